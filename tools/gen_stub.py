#!/usr/bin/env python3
"""Write ``ustack/native/_ustack_c.pyi``: the types of what ``ustack_c/abi/*.h`` declares.

A struct becomes a class with a field per member, whose name a Python annotation can use
for a cffi pointer to it; functions and constants become members of ``lib``. Whatever
cffi hands out or takes as a pointer to something else is Any. ``--check`` writes
nothing and fails if the file is not what would be written.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from pycparser import c_ast, c_parser

ROOT = Path(__file__).resolve().parents[1]
STUB = ROOT / "ustack" / "native" / "_ustack_c.pyi"

PRELUDE = "\n".join(
    f"typedef {sign} {kind}{bits}_t;"
    for sign, kind in (("unsigned long", "uint"), ("long", "int"))
    for bits in (8, 16, 32, 64)
)
HEAD = '''"""Types of the compiled module. Written by tools/gen_stub.py; do not edit."""

from typing import Any

ffi: Any
'''


def build_script() -> ModuleType:
    """Return ``ustack_c/build_ext.py``, which knows the headers' order and cffi's text."""
    spec = importlib.util.spec_from_file_location("build_ext", ROOT / "ustack_c" / "build_ext.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(cdef: str) -> tuple[list[str], c_ast.FileAST]:
    """Return the names of the #define constants, and the rest as a syntax tree."""
    constants = re.findall(r"^#define (\w+)", cdef, re.MULTILINE)
    plain = re.sub(r"^#.*$", "", cdef, flags=re.MULTILINE)
    plain = re.sub(r"/\*.*?\*/|//[^\n]*", "", plain, flags=re.DOTALL)
    return constants, c_parser.CParser().parse(PRELUDE + plain)


def python_type(node: c_ast.Node) -> str:
    """Return the annotation for a member, a parameter or a result."""
    if isinstance(node, c_ast.TypeDecl):
        inner = node.type
        if isinstance(inner, c_ast.Struct | c_ast.Union):
            return str(inner.name)
        if isinstance(inner, c_ast.IdentifierType):
            names = inner.names
            if names == ["void"]:
                return "None"
            return "float" if "double" in names or "float" in names else "int"
        return "int"  # an enum
    pointed = getattr(node, "type", None)
    if isinstance(node, c_ast.PtrDecl) and isinstance(getattr(pointed, "type", None), c_ast.Struct):
        return str(pointed.type.name)
    return "Any"


def parameter_type(node: c_ast.Node) -> str:
    """Return the annotation for a parameter: cffi takes many things for a pointer."""
    return python_type(node) if isinstance(node, c_ast.TypeDecl) else "Any"


def struct_lines(struct: c_ast.Struct | c_ast.Union) -> Iterator[str]:
    """Yield the class of one struct; an opaque one has no members."""
    if not struct.decls:
        yield f"class {struct.name}: ..."
        return
    yield f"class {struct.name}:"
    for member in struct.decls:
        yield f"    {member.name}: {python_type(member.type)}"


def function_line(declared: c_ast.Decl) -> str:
    """Return the method of ``lib`` that stands for one function."""
    function = declared.type
    params = []
    for i, param in enumerate(function.args.params if function.args else []):
        if python_type(param.type) == "None":
            continue  # (void)
        name = getattr(param, "name", None) or f"arg{i}"
        name += "_" if keyword.iskeyword(name) else ""
        params.append(f"{name}: {parameter_type(param.type)}")
    listed = ", ".join(["self", *params, "/"])
    return f"    def {declared.name}({listed}) -> {python_type(function.type)}: ..."


def structs_of(tree: c_ast.FileAST) -> dict[str, c_ast.Struct | c_ast.Union]:
    """Return the structs by name; of several declarations the one with members."""
    found: dict[str, c_ast.Struct | c_ast.Union] = {}
    for declared in tree.ext:
        node = declared.type
        if isinstance(node, c_ast.Struct | c_ast.Union) and (node.decls or node.name not in found):
            found[node.name] = node
    return found


def enumerators_of(tree: c_ast.FileAST) -> list[str]:
    """Return the names of all enumeration constants."""
    enums = [declared.type for declared in tree.ext if isinstance(declared.type, c_ast.Enum)]
    return [item.name for enum in enums if enum.values for item in enum.values.enumerators]


def stub_text() -> str:
    """Return what the file should hold."""
    constants, tree = parse(build_script().cdef_text())
    lines = [HEAD]
    for _, struct in sorted(structs_of(tree).items()):
        lines += [*struct_lines(struct), ""]
    lines.append("class Lib:")
    lines += [f"    {name}: int" for name in sorted(constants + enumerators_of(tree))]
    functions = [d for d in tree.ext if isinstance(d.type, c_ast.FuncDecl)]
    lines += [function_line(f) for f in sorted(functions, key=lambda f: str(f.name))]
    return "\n".join([*lines, "", "lib: Lib", ""])


def main(argv: list[str]) -> int:
    """Write or check the stub; return the exit status."""
    text = stub_text()
    if argv == ["--check"]:
        if STUB.exists() and STUB.read_text() == text:
            return 0
        print(f"{STUB.relative_to(ROOT)} is not up to date: run tools/gen_stub.py", file=sys.stderr)
        return 1
    if argv:
        print("usage: tools/gen_stub.py [--check]", file=sys.stderr)
        return 2
    STUB.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
