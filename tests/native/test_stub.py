"""The typed stub says what the headers say, and so does the module that is installed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from ustack.native.lib import ffi, lib

ROOT = Path(__file__).parents[2]
STUB = ROOT / "ustack" / "native" / "_ustack_c.pyi"


@pytest.fixture(scope="module")
def classes() -> dict[str, set[str]]:
    """Members by class, as the stub has them."""
    found = {}
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = {
                item.target.id if isinstance(item, ast.AnnAssign) else item.name
                for item in node.body
                if isinstance(item, ast.AnnAssign | ast.FunctionDef)
            }
    return found


@pytest.mark.slow
def test_stub_is_what_the_headers_give():
    command = [sys.executable, str(ROOT / "tools" / "gen_stub.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_function_and_constant_of_the_module_is_in_the_stub(classes):
    assert set(dir(lib)) == classes["Lib"]


def test_every_struct_of_the_module_has_the_members_of_the_stub(classes):
    _, structs, unions = ffi.list_types()
    assert {*structs, *unions} == classes.keys() - {"Lib"}
    for name in (*structs, *unions):
        ctype = f"struct {name}" if name in structs else f"union {name}"
        if classes[name]:
            assert {field for field, _ in ffi.typeof(ctype).fields} == classes[name], name
        else:  # opaque; cffi aborts when asked for the fields
            with pytest.raises(ffi.error):
                ffi.sizeof(ctype)
