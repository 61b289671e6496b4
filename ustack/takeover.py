"""Putting the stack in the place of the kernel's sockets for a Python program.

``install()`` makes ``import socket`` and ``import select`` give the stack's modules, and lets
modules that are loaded already refer to them: each of their names that is one of the standard
modules, or one of the objects that differ, is bound anew. Nothing else of a program is touched.
asyncio then runs on its own selector loop, whose selectors ask the stack's ``select``; only its
self-pipe stays the kernel's, since signals write to it. uvloop's loop makes sockets of its own
in C, so importing it fails, as if it were not there.
"""

from __future__ import annotations

import asyncio
import select as _select
import selectors
import socket as _socket
import ssl  # its SSLSocket stays a subclass of the kernel's socket
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import ustack.api.remote_kinds  # before ``socket`` means another module
import ustack.select
import ustack.socket
from ustack.api.stacks import give_kernel_other_families, kernel_has_other_families
from ustack.api.tls import wrap_stack_sockets

OURS = {_socket: ustack.socket, _select: ustack.select}
EXEMPT = ("ustack", "socket", "_socket", "select")
"""Modules that must go on using the kernel's, with all that is below them."""


class _Takeover:
    """What ``install()`` has put where, so that ``uninstall()`` puts back that and nothing else."""

    def __init__(self) -> None:
        self.substitutes: dict[ModuleType, ModuleType] = {}
        """By the standard module: what ``import`` gives instead."""
        self.bound: list[tuple[dict[str, Any], str, Any, Any]] = []
        """Namespace, name, the standard's object and ours."""
        self.programs_own: set[tuple[int, str]] = set()
        """Namespace and name of what was ours before."""
        self.taken: set[tuple[int, int]] = set()
        """Namespace and object of ours that it has had from a substitute."""

    def forget(self) -> None:
        """Nothing is substituted any more."""
        for noted in (self.substitutes, self.bound, self.programs_own, self.taken):
            noted.clear()


_takeover = _Takeover()


class StackEventLoop(asyncio.SelectorEventLoop):
    """asyncio's selector loop on the stack."""

    def _make_self_pipe(self) -> None:
        self._ssock, self._csock = _socket.socketpair()
        self._ssock.setblocking(False)
        self._csock.setblocking(False)
        self._internal_fds += 1  # type: ignore[attr-defined]
        self._add_reader(self._ssock.fileno(), self._read_from_self)  # type: ignore[attr-defined]


class StackEventLoopPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes loops that run on the stack."""

    _loop_factory = StackEventLoop


def install() -> None:
    """Let this process's Python programs use the stack: socket, select, asyncio. Twice is once.

    The stack is the process's, ``ustack.up()``'s; call it before or after, but before the
    program makes its first socket.
    """
    if kernel_has_other_families():
        return
    give_kernel_other_families(True)
    for theirs, ours in OURS.items():
        _takeover.substitutes[theirs] = sys.modules[theirs.__name__] = _substitute(theirs, ours)
    sys.modules.setdefault("uvloop", None)  # type: ignore[arg-type]
    _bind_ours()
    _let_selectors_ask(ustack.select)
    wrap_stack_sockets(True)
    asyncio.set_event_loop_policy(StackEventLoopPolicy())


def uninstall() -> None:
    """Undo ``install()``; what a program itself imports from ustack stays as it is."""
    if not kernel_has_other_families():
        return
    give_kernel_other_families(False)
    for theirs in OURS:
        sys.modules[theirs.__name__] = theirs
    if sys.modules.get("uvloop", ssl) is None:
        del sys.modules["uvloop"]
    _bind_theirs()
    _let_selectors_ask(_select)
    wrap_stack_sockets(False)
    asyncio.set_event_loop_policy(None)


def replacements() -> list[tuple[Any, Any]]:
    """Return (the standard's, ours) of each object that differs."""
    pairs: list[tuple[Any, Any]] = []
    for theirs, ours in OURS.items():
        for name in dir(theirs):
            if name.startswith("__"):
                continue  # of the module itself: a built-in one's loader is importlib's own class
            standard, own = getattr(theirs, name), getattr(ours, name, None)
            if callable(standard) and own is not None and own is not standard:
                pairs.append((standard, own))
    return pairs


def _substitute(theirs: ModuleType, ours: ModuleType) -> ModuleType:
    """Make what ``import`` gives: all names of ours, noting who takes one that differs."""
    made = ModuleType(theirs.__name__, ours.__doc__)
    differing = {id(own) for _, own in replacements()}

    def __getattr__(name: str) -> Any:
        value = getattr(ours, name)
        _takeover.taken.add((id(sys._getframe(1).f_globals), id(value)))
        return value

    names = vars(ours).items()
    made.__dict__.update((name, value) for name, value in names if id(value) not in differing)
    made.__dict__.update(
        __name__=theirs.__name__, __getattr__=__getattr__, __dir__=lambda: dir(ours)
    )
    return made


def _bind_ours() -> None:
    pairs = [*_takeover.substitutes.items(), *replacements()]
    ours = {id(own) for _, own in pairs}
    replacing = {id(standard): (standard, own) for standard, own in pairs}
    for names in _namespaces():
        for key, value in list(names.items()):
            standard, own = replacing.get(id(value), (None, None))
            if standard is value and own is not None:
                _takeover.bound.append((names, key, standard, own))
                names[key] = own
            elif id(value) in ours:
                _takeover.programs_own.add((id(names), key))


def _bind_theirs() -> None:
    for names, key, standard, own in _takeover.bound:
        if names.get(key) is own:
            names[key] = standard
    standards = {id(own): standard for standard, own in replacements()}
    modules = {id(made): standard for standard, made in _takeover.substitutes.items()}
    for names in _namespaces():
        for key, value in list(names.items()):
            if id(value) in modules:
                names[key] = modules[id(value)]
            elif (id(names), id(value)) in _takeover.taken and (
                (id(names), key) not in _takeover.programs_own
            ):
                names[key] = standards[id(value)]
    _takeover.forget()


def _namespaces() -> Iterator[dict[str, Any]]:
    """Yield the names of each loaded module that is the program's."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and name.split(".")[0] not in EXEMPT:
            yield vars(module)


def _let_selectors_ask(module: Any) -> None:
    """The classes of ``selectors`` have taken their functions from ``select`` for good."""
    selectors.SelectSelector._select = staticmethod(module.select)  # type: ignore[attr-defined]
    selectors.PollSelector._selector_cls = module.poll  # type: ignore[attr-defined]
    selectors.EpollSelector._selector_cls = module.epoll  # type: ignore[attr-defined]
