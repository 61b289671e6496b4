"""Every public method beside the standard module's, over the same calls (see ``methods.py``)."""

from __future__ import annotations

import json
import select
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ustack
from apps import on_ustack
from kit.calls_daemon import connected
from kit.lab import Namespace, tools_missing

PROGRAM = Path(__file__).parent / "methods.py"
ON_USTACK = on_ustack.load("methods.py")
COUNTS = "what is said of arguments that are missing are Python's own words, not C's"
NAMED = "the class has another module"
DIFFERENT = {
    "socket.set_inheritable": {1: "a program that is executed cannot have the stack's sockets"},
    "socket.getsockopt": {25: COUNTS},
    "socket.recv": {7: COUNTS},
    "socket.send": {7: COUNTS},
    "socket.sendmsg": {8: COUNTS},
    "socket.special": {3: NAMED, 4: NAMED},
    "epoll.modify": {4: COUNTS},
}
"""By method: which of its results differ, and why."""
REMOTE = {
    **{method: reasons for method, reasons in DIFFERENT.items() if method[:6] == "socket"},
    "socket.family": {2: NAMED},
    "socket.special": {2: "multiprocessing passes it on", 3: NAMED, 4: NAMED},
}
"""The same for sockets through the daemon, whose epoll and poll are Linux's."""
del REMOTE["socket.set_inheritable"]
WITHOUT = {"sendmsg_afalg": "AF_ALG is the kernel's cryptography"}


def public(cls: object) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def test_every_public_method_is_tried():
    assert ON_USTACK["SOCKET"].keys() == public(socket.socket) - WITHOUT.keys()
    assert ON_USTACK["EPOLL"].keys() == public(select.epoll)
    assert ON_USTACK["POLL"].keys() == public(select.poll())


@pytest.fixture(scope="module")
def linux() -> dict[str, Any]:
    """What Linux gives, in a namespace of its own."""
    if tools_missing(["ip"]):
        pytest.skip("needs root")
    with Namespace("methods") as namespace:
        return dict(json.loads(namespace.output(sys.executable, str(PROGRAM))))


def in_process(path: Path) -> Any:
    with ustack.up():
        return ON_USTACK["main"]()


def through_a_daemon(path: Path) -> Any:
    with connected(path):
        return ON_USTACK["main"]()


@pytest.mark.tap
@pytest.mark.parametrize(
    ("table", "different"), [(in_process, DIFFERENT), (through_a_daemon, REMOTE)]
)
def test_what_every_method_gives_is_what_linux_gives(
    linux: dict[str, Any],
    tmp_path: Path,
    table: Callable[[Path], Any],
    different: dict[str, dict[int, str]],
):
    ours = dict(json.loads(json.dumps(table(tmp_path / "u.sock"))))
    assert ours.keys() == linux.keys()
    found: dict[str, Any] = {}
    for method, wanted in linux.items():
        if isinstance(wanted, list) and len(wanted) == len(ours[method]):
            pairs = enumerate(zip(wanted, ours[method], strict=True))
            unlike = {at: pair for at, pair in pairs if pair[0] != pair[1]}
        else:
            unlike = {} if wanted == ours[method] else {-1: (wanted, ours[method])}
        reasons = different.get(method, {})
        found |= {f"{method} {at}": pair for at, pair in unlike.items() if at not in reasons}
        assert reasons.keys() <= unlike.keys(), f"{method} does not differ any more"
    assert found == {}
