"""What many tests need: a stack, or a daemon whose client the test's own process is."""

from __future__ import annotations

import random
import socket as std
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import calls_daemon
from ustack import socket
from ustack.config import StackConfig
from ustack.lib.addresses import parse_interface, parse_ipv4
from ustack.nic.pair import wire_pair
from ustack.stack import Stack


@pytest.fixture
def stack() -> Stack:
    """A stack with eth0 on a wire whose other end nobody holds."""
    wire, _ = wire_pair()
    stack = Stack(rng=random.Random(1), now_us=1_000_000)
    stack.add_igb(
        wire,
        mac=bytes.fromhex("020000000001"),
        address=parse_interface("10.0.0.2/24"),
        gateway=parse_ipv4("10.0.0.1"),
    )
    return stack


@pytest.fixture
def config() -> StackConfig | None:
    """The daemon's configuration, which a file of tests may choose."""
    return None


@pytest.fixture
def daemon(tmp_path: Path, config: StackConfig | None) -> Iterator[calls_daemon.CallsDaemon]:
    with calls_daemon.connected(tmp_path / "u.sock", config=config) as daemon:
        yield daemon


@pytest.fixture
def listener(daemon: calls_daemon.CallsDaemon) -> Iterator[std.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def pair(listener: std.socket) -> Iterator[tuple[std.socket, std.socket]]:
    """A client's socket and the server's for it."""
    with socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            yield client, server
