"""Compile ustack_c into the one extension module, ``ustack.native._ustack_c``.

And ``preload/`` into the library beside it that ``ustack run -- CMD`` puts in front of others.

The headers in ``abi/`` are read twice: by gcc, and (joined in the order of their
#include lines, without guards) by cffi's cdef, so there is one declaration of
everything. Setuptools calls ``BuildExt`` for a wheel or an editable install; run as a
script, this file rebuilds the module in place. The module is made in a temporary folder
and renamed at the end: whoever imports it meanwhile gets the old one, and a failed build
changes nothing.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from cffi import FFI
from setuptools.command.build_ext import build_ext

C_FOLDER = Path(__file__).resolve().parent
MODULE = "ustack.native._ustack_c"
PRELOAD = "libustack_preload.so"
COMPILE_FLAGS = [
    "-std=gnu11",
    "-O2",
    "-g1",
    "-fmax-errors=10",
    "-fPIC",
    "-fvisibility=hidden",
    "-flto=auto",
    "-pthread",
]
WARNING_FLAGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]

WAITS = ["us_wait", "us_igb_wait", "us_igb_recv_wait"]
"""The calls that may take long: they let other threads have the GIL meanwhile. The others keep
it: to give it back and fetch it costs more than most of them take, and who has to fetch it from
a busy thread waits for its time slice."""
_RELEASE = re.compile(
    r"  Py_BEGIN_ALLOW_THREADS\n  _cffi_restore_errno\(\);\n"
    r"(  \{ (?:result = )?(\w+)\(.*\n)"
    r"  _cffi_save_errno\(\);\n  Py_END_ALLOW_THREADS\n"
)
"""How cffi's wrapper makes a call; nobody reads ``ffi.errno``."""

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"[ \t]*$', re.MULTILINE)
_CONSTANT = re.compile(
    r"^#define\s+(\w+)\s+(?:\(?\s*(-?(?:0[xX])?[0-9a-fA-F]+)[uUlL]*\s*\)?)\s*(?:/\*.*\*/\s*)?$"
)
_DIRECTIVE = re.compile(r"^\s*#")


def headers_in_order(abi: Path = C_FOLDER / "abi") -> list[Path]:
    """Return the ABI headers so that each comes after those it includes."""
    ordered: list[Path] = []
    underway: list[str] = []

    def visit(name: str) -> None:
        path = abi / name
        if path in ordered:
            return
        if name in underway:
            raise ValueError(f"abi headers include each other: {' -> '.join([*underway, name])}")
        underway.append(name)
        for included in _INCLUDE.findall(path.read_text()):
            visit(included)
        underway.pop()
        ordered.append(path)

    for path in sorted(abi.glob("*.h")):
        visit(path.name)
    return ordered


def cdef_text(abi: Path = C_FOLDER / "abi") -> str:
    """Return what cffi reads: all declarations and integer constants, no directives."""
    return "\n".join(_declarations(path.read_text()) for path in headers_in_order(abi))


def _declarations(header: str) -> str:
    lines = []
    for line in header.splitlines():
        constant = _CONSTANT.match(line)
        if constant:
            lines.append(f"#define {constant[1]} {constant[2]}")
        elif not _DIRECTIVE.match(line):
            lines.append(re.sub(r"^extern\s+", "", line))
    return "\n".join(lines)


def write_wrapper(target: Path) -> None:
    """Write cffi's generated C file to ``target``."""
    ffi = FFI()
    ffi.cdef(cdef_text())
    includes = "\n".join(f'#include "{path.name}"' for path in headers_in_order())
    ffi.set_source(MODULE, includes)
    ffi.emit_c_code(str(target))
    target.write_text(_RELEASE.sub(_keep_gil, target.read_text()))


def _keep_gil(call: re.Match[str]) -> str:
    return call[0] if call[2] in WAITS else call[1]


def build_module(target: Path) -> None:
    """Compile everything and put the module at ``target`` in one step.

    Raises:
        subprocess.CalledProcessError: The compiler refused; ``target`` is as it was.
    """
    with tempfile.TemporaryDirectory(prefix="ustack-build-") as folder:
        work = Path(folder)
        write_wrapper(work / "wrapper.c")
        jobs = [(work / "wrapper.c", ["-I", sysconfig.get_path("include")])]
        jobs += [(source, WARNING_FLAGS) for source in sorted((C_FOLDER / "src").glob("*.c"))]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(lambda job: _compile(job[0], job[1], work), jobs))
        made = work / "module.so"
        cc = _compiler()
        _run([*cc, *COMPILE_FLAGS, "-shared", "-o", str(made), *map(str, objects)])
        install(made, target)


def build_preload(target: Path) -> None:
    """Compile the preload library and put it at ``target`` in one step.

    Raises:
        subprocess.CalledProcessError: The compiler refused; ``target`` is as it was.
    """
    with tempfile.TemporaryDirectory(prefix="ustack-build-") as folder:
        made = Path(folder) / PRELOAD
        sources = sorted(map(str, (C_FOLDER / "preload").glob("*.c")))
        flags = [*COMPILE_FLAGS, *WARNING_FLAGS]
        _run([*_compiler(), *flags, "-shared", "-o", str(made), *sources, "-ldl"])
        install(made, target)


def _compile(source: Path, flags: list[str], work: Path) -> Path:
    target = work / f"{source.stem}.o"
    include = ["-I", str(C_FOLDER / "abi"), "-I", str(C_FOLDER / "src")]
    _run([*_compiler(), *COMPILE_FLAGS, *flags, *include, "-c", str(source), "-o", str(target)])
    return target


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CC", "cc"))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    sys.stderr.write(done.stdout + done.stderr)
    done.check_returncode()


def install(made: Path, target: Path) -> None:
    """Copy ``made`` beside ``target`` and rename it over it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        shutil.copy(made, beside)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def one_build_at_a_time() -> Iterator[None]:
    """Hold a lock on the C folder: several builds in one checkout take turns."""
    folder = os.open(C_FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def in_place_target() -> Path:
    """Return where the module lies in a checkout."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    return C_FOLDER.parent / "ustack" / "native" / f"_ustack_c{suffix}"


class BuildExt(build_ext):
    """Setuptools' build_ext for the one module, built as above."""

    def build_extension(self, ext: object) -> None:
        with one_build_at_a_time():
            target = Path(self.get_ext_fullpath(MODULE))
            build_module(target)
            build_preload(target.with_name(PRELOAD))

    def copy_extensions_to_source(self) -> None:
        """Put an editable install's module into the checkout, in one step."""
        made = Path(self.build_lib, self.get_ext_filename(MODULE))
        install(made, in_place_target())
        install(made.with_name(PRELOAD), in_place_target().with_name(PRELOAD))

    def get_source_files(self) -> list[str]:
        """Name what an sdist needs to compile."""
        patterns = ("*.py", "abi/*.h", "src/*.[ch]", "preload/*.[ch]")
        found = [path for pattern in patterns for path in sorted(C_FOLDER.glob(pattern))]
        return [str(path.relative_to(C_FOLDER.parent)) for path in found]


if __name__ == "__main__":
    try:
        with one_build_at_a_time():
            build_module(in_place_target())
            build_preload(in_place_target().with_name(PRELOAD))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{shlex.join(error.cmd)}: status {error.returncode}; the old module stays")
