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
    sys.modules["socket"] = ustack.socket
    sys.modules["select"] = ustack.select
    sys.modules.setdefault("uvloop", None)  # type: ignore[arg-type]
    _rebind({id(theirs): (theirs, ours) for theirs, ours in replacements()})
    _let_selectors_ask(ustack.select)
    wrap_stack_sockets(True)
    asyncio.set_event_loop_policy(StackEventLoopPolicy())


def uninstall() -> None:
    """Undo ``install()``."""
    if not kernel_has_other_families():
        return
    give_kernel_other_families(False)
    sys.modules["socket"] = _socket
    sys.modules["select"] = _select
    if sys.modules.get("uvloop", ssl) is None:
        del sys.modules["uvloop"]
    _rebind({id(ours): (ours, theirs) for theirs, ours in replacements()})
    _let_selectors_ask(_select)
    wrap_stack_sockets(False)
    asyncio.set_event_loop_policy(None)


def replacements() -> list[tuple[Any, Any]]:
    """Return (the standard's, ours) of each object that differs, the modules first."""
    pairs: list[tuple[Any, Any]] = list(OURS.items())
    for theirs, ours in OURS.items():
        for name in dir(theirs):
            if name.startswith("__"):
                continue  # of the module itself: a built-in one's loader is importlib's own class
            standard, own = getattr(theirs, name), getattr(ours, name, None)
            if callable(standard) and own is not None and own is not standard:
                pairs.append((standard, own))
    return pairs


def _rebind(replacements: dict[int, tuple[Any, Any]]) -> None:
    for name, module in list(sys.modules.items()):
        if not isinstance(module, ModuleType) or name.split(".")[0] in EXEMPT:
            continue
        names = vars(module)
        for key, value in list(names.items()):
            found = replacements.get(id(value))
            if found is not None and found[0] is value:
                names[key] = found[1]


def _let_selectors_ask(module: Any) -> None:
    """The classes of ``selectors`` have taken their functions from ``select`` for good."""
    selectors.SelectSelector._select = staticmethod(module.select)  # type: ignore[attr-defined]
    selectors.PollSelector._selector_cls = module.poll  # type: ignore[attr-defined]
    selectors.EpollSelector._selector_cls = module.epoll  # type: ignore[attr-defined]
