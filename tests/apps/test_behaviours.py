"""The same scenes on the kernel's stack and on ours must be seen to end alike."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ustack
from apps import on_ustack
from kit.calls_daemon import connected
from kit.lab import Namespace, tools_missing

PROGRAM = Path(__file__).parent / "behaviours.py"
ON_USTACK = on_ustack.load("behaviours.py")


@pytest.fixture(scope="module")
def linux() -> Any:
    """What Linux does, in a namespace of its own."""
    if tools_missing(["ip"]):
        pytest.skip("needs root")
    with Namespace("behaviours") as namespace:
        return json.loads(namespace.output(sys.executable, str(PROGRAM)))


@pytest.fixture
def stack() -> Iterator[None]:
    with ustack.up():
        yield


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[None]:
    with connected(tmp_path / "u.sock"):
        yield


def test_the_scenes_run_on_the_stacks_own_modules():
    assert ON_USTACK["socket"] is ustack.socket and ON_USTACK["select"] is ustack.select


@pytest.mark.tap
@pytest.mark.parametrize("scene", ON_USTACK["SCENES"], ids=lambda scene: scene.__name__)
def test_a_scene_ends_as_on_linux(stack, linux, scene):
    assert json.loads(json.dumps(scene())) == linux[scene.__name__]


POLL = "a socketpair has no EPOLLERR, and is writable before it is connected"
REMOTE = {
    "unconnected": POLL,
    "listening": POLL,
    "refused": POLL,
    "fin": POLL,
    "reset": POLL,
    "low_water": "what is held back for SO_RCVLOWAT is not there for a call that does not wait",
    "a_child_peeks_where_its_listener_was_told_to": "SO_PEEK_OFF is the descriptor's own",
    "disconnecting": "a connection's descriptor cannot begin anew",
    "disconnecting_what_never_was_connected": "the same",
}
"""Scenes that end otherwise through the daemon, and why."""
SAME = [scene for scene in ON_USTACK["SCENES"] if scene.__name__ not in REMOTE]


@pytest.mark.tap
@pytest.mark.parametrize("scene", SAME, ids=lambda scene: scene.__name__)
def test_a_scene_through_the_daemon_ends_as_on_linux(daemon, linux, scene):
    assert json.loads(json.dumps(scene())) == linux[scene.__name__]
