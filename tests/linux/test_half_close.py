"""nc closes one direction and goes on in the other, from either side (RFC 9293 §3.6)."""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

import pytest

from kit.lab import Daemon, Namespace, wait_for

PROGRAM = Path(__file__).with_name("half_close_server.py")


@pytest.mark.parametrize("size", [1, 300, 5_000_000])
def test_what_is_sent_before_our_fin_is_echoed_after_it(ns: Namespace, daemon: Daemon, size: int):
    data = random.Random(size).randbytes(size)
    run = ns.run("nc", "-N", "-w", "60", "10.0.0.2", "7", input=data, text=False)
    assert run.returncode == 0, run.stderr
    assert hashlib.sha256(run.stdout).digest() == hashlib.sha256(data).digest()
    wait_for(lambda: not daemon.connections(), "both directions closed")


def test_nc_goes_on_sending_after_the_stack_has_closed_its_side(ns: Namespace):
    data = random.Random(3).randbytes(2_000_000)
    server = ns.start(sys.executable, str(PROGRAM), "tap5", text=True)
    assert server.stdout is not None
    assert server.stdout.readline().strip() == "ready"
    run = ns.run("nc", "-N", "-w", "60", "10.0.5.2", "5000", input=data, text=False)
    assert run.stdout == b"welcome"
    assert server.stdout.readline().split() == [str(len(data)), hashlib.sha256(data).hexdigest()]
    assert server.wait(60) == 0
