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


@pytest.fixture(autouse=True)
def stack() -> Iterator[None]:
    with ustack.up():
        yield


def test_the_scenes_run_on_the_stacks_own_modules():
    assert ON_USTACK["socket"] is ustack.socket and ON_USTACK["select"] is ustack.select


@pytest.mark.tap
@pytest.mark.parametrize("scene", ON_USTACK["SCENES"], ids=lambda scene: scene.__name__)
def test_a_scene_ends_as_on_linux(linux, scene):
    assert json.loads(json.dumps(scene())) == linux[scene.__name__]
