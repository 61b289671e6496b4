"""How the headers become cffi's text, and that a build that fails breaks nothing."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def build():
    """``ustack_c/build_ext.py``, which is no part of the package."""
    pytest.importorskip("setuptools")
    spec = importlib.util.spec_from_file_location("build_ext", ROOT / "ustack_c" / "build_ext.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_editable_install_takes_what_was_built_into_the_checkout(build, tmp_path, monkeypatch):
    from setuptools import Distribution, Extension

    command = build.BuildExt(Distribution({"ext_modules": [Extension(build.MODULE, [])]}))
    command.inplace, command.build_lib, command.build_temp = True, str(tmp_path), str(tmp_path)
    command.ensure_finalized()
    made = tmp_path / command.get_ext_filename(build.MODULE)
    made.parent.mkdir(parents=True)
    made.write_text("module")
    made.with_name(build.PRELOAD).write_text("preload")
    target = tmp_path / "checkout" / made.name
    monkeypatch.setattr(build, "in_place_target", lambda: target)
    command.copy_extensions_to_source()
    assert target.read_text() == "module"
    assert target.with_name(build.PRELOAD).read_text() == "preload"


def test_headers_come_after_those_they_include(build, tmp_path):
    (tmp_path / "a.h").write_text('#include "c.h"\n#include "b.h"\n')
    (tmp_path / "b.h").write_text('#include <stdint.h>\n#include "c.h"\n')
    (tmp_path / "c.h").write_text("")
    assert [path.name for path in build.headers_in_order(tmp_path)] == ["c.h", "b.h", "a.h"]


def test_headers_that_include_each_other_are_refused(build, tmp_path):
    (tmp_path / "a.h").write_text('#include "b.h"\n')
    (tmp_path / "b.h").write_text('#include "a.h"\n')
    with pytest.raises(ValueError, match=r"a\.h -> b\.h -> a\.h"):
        build.headers_in_order(tmp_path)


def test_cffi_reads_declarations_and_integers_without_directives(build, tmp_path):
    header = """#ifndef GUARD_H
#define GUARD_H
#include <stdint.h>
#define US_SIZE (4096u)	/* bytes */
#define US_MASK 0xff
extern int us_call(void);
#endif
"""
    (tmp_path / "a.h").write_text(header)
    assert build.cdef_text(tmp_path).split("\n") == [
        "#define US_SIZE 4096",
        "#define US_MASK 0xff",
        "int us_call(void);",
    ]


def test_every_abi_header_is_in_the_text(build):
    names = {path.name for path in build.headers_in_order()}
    assert names == {path.name for path in ROOT.glob("ustack_c/abi/*.h")}
    assert "us_mem_create" in build.cdef_text()


@pytest.mark.slow
def test_a_build_that_fails_leaves_the_old_module(build, tmp_path, monkeypatch):
    target = tmp_path / "module.so"
    target.write_bytes(b"the old one")
    monkeypatch.setenv("CC", "false")
    with pytest.raises(subprocess.CalledProcessError):
        build.build_module(target)
    assert [path.name for path in tmp_path.iterdir()] == ["module.so"]
    assert target.read_bytes() == b"the old one"
