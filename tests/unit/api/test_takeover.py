"""What ``ustack.install()`` puts into the place of what."""

from __future__ import annotations

import select
import socket

from ustack.takeover import replacements


def test_the_modules_and_their_public_objects_are_replaced_and_nothing_of_the_interpreters():
    replaced = [theirs for theirs, _ in replacements()]
    assert replaced[:2] == [socket, select]
    assert socket.socket in replaced
    assert select.epoll in replaced
    # A built-in module's loader is a class of importlib's, and it is everybody's.
    assert not [thing for thing in replaced if getattr(thing, "__name__", "").endswith("Importer")]
    assert not [thing for thing in replaced for m in (socket, select) if thing is m.__loader__]
