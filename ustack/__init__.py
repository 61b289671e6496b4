"""ustack: the Linux network stack, rebuilt in user space.

``from ustack import socket`` is the standard module's twin on the stack of this process;
``ustack.up()`` puts that stack on a TAP device, ``ustack.epoll()`` is its own epoll and
``ustack.aio`` its asyncio. The names below are loaded when they are first used, so that a
command that needs none of them does not pay for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ustack import aio, select, socket
    from ustack.api.polling import epoll
    from ustack.api.stacks import connect, down, up, use
    from ustack.takeover import install, uninstall

__all__ = [
    "aio", "connect", "down", "epoll", "install", "select", "socket", "uninstall", "up", "use",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in ("connect", "up", "down", "use"):
        return getattr(import_module("ustack.api.stacks"), name)
    if name in ("aio", "select", "socket"):
        return import_module("ustack." + name)
    if name in ("install", "uninstall"):
        return getattr(import_module("ustack.takeover"), name)
    if name == "epoll":
        return import_module("ustack.api.polling").epoll
    raise AttributeError(f"module 'ustack' has no attribute {name!r}")
