"""The import contracts of pyproject.toml hold, and no stray package escapes them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINTER = Path(sys.executable).with_name("lint-imports")


def test_import_contracts_hold():
    run = subprocess.run([LINTER], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_only_native_imports_the_compiled_module():
    importers = [
        str(path.relative_to(ROOT))
        for path in sorted(ROOT.glob("ustack/**/*.py"))
        if "_ustack_c" in path.read_text() and path.parent.name != "native"
    ]
    assert not importers


def test_every_package_has_a_module_docstring():
    without = []
    for path in sorted(ROOT.glob("ustack/**/*.py")):
        text = path.read_text()
        if text.strip() and not text.startswith(('"""', 'r"""')):
            without.append(str(path.relative_to(ROOT)))
    assert not without


def is_a_face(node: ast.stmt) -> bool:
    """Whether a statement only re-exports: imports, names, a lazy __getattr__."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If):
        return all(is_a_face(n) for n in [*node.body, *node.orelse])
    if isinstance(node, ast.FunctionDef):
        return node.name == "__getattr__"
    return isinstance(node, ast.Import | ast.ImportFrom | ast.Assign)


def test_init_files_hold_no_code():
    with_code = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted(ROOT.glob("ustack/**/__init__.py"))
        for node in ast.parse(path.read_text()).body
        if not is_a_face(node)
    ]
    assert not with_code
