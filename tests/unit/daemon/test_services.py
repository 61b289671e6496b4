"""Echo, discard and chargen, and the list of services on the command line."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from unit.daemon.fakes import FakeTransport, deliver
from ustack.daemon.services.registry import ServiceSpec, parse_services
from ustack.daemon.services.simple import Chargen, Discard, Echo, chargen_block


def buffer() -> memoryview:
    """A small shared receive buffer."""
    return memoryview(bytearray(16))


@pytest.mark.rfc("862", "TCP Based Echo Service")
def test_echo_returns_what_comes_and_closes_after_the_peer():
    echo = Echo()
    transport = FakeTransport(echo)
    echo.connection_made(transport)  # type: ignore[arg-type]
    echo.data_received(b"hello " * 10)
    assert transport.written == b"hello " * 10
    assert not echo.eof_received()  # the transport closes by itself then


def test_echo_does_not_read_while_its_peer_does_not():
    echo = Echo()
    transport = FakeTransport(echo, room=10)
    echo.connection_made(transport)  # type: ignore[arg-type]
    echo.data_received(b"x" * 12)
    assert not transport.reading
    transport.make_room(100)
    assert transport.reading


@pytest.mark.rfc("863", "TCP Based Discard Service")
def test_discard_says_nothing():
    discard = Discard(buffer())
    transport = FakeTransport(discard)
    discard.connection_made(transport)  # type: ignore[arg-type]
    deliver(discard, b"x" * 1000)
    assert not transport.written


@pytest.mark.rfc("864", "Data Syntax")
def test_the_pattern_turns_by_one_character_a_line():
    lines = chargen_block().split(b"\r\n")[:-1]
    assert all(len(line) == 72 for line in lines)
    assert lines[0][:5] == b' !"#$'
    for line, following in itertools.pairwise(lines):
        assert following[:-1] == line[1:]
    assert len(lines) % 95 == 0  # blocks follow each other without a seam


def test_chargen_writes_while_there_is_room_and_ignores_input():
    block = chargen_block()
    chargen = Chargen(buffer(), block)
    transport = FakeTransport(chargen, room=len(block) + 1)
    chargen.connection_made(transport)  # type: ignore[arg-type]
    assert len(transport.written) == 2 * len(block)
    deliver(chargen, b"whatever")
    assert len(transport.written) == 2 * len(block)
    transport.make_room(1)
    assert len(transport.written) == 3 * len(block)
    assert chargen.eof_received()


def test_services_have_well_known_ports_that_can_be_changed(tmp_path: Path):
    assert parse_services(f"echo,discard:99,chargen,http:8080={tmp_path}") == (
        ServiceSpec("echo", 7),
        ServiceSpec("discard", 99),
        ServiceSpec("chargen", 19),
        ServiceSpec("http", 8080, tmp_path),
    )
    assert parse_services("") == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("telnet", "unknown service 'telnet'"),
        ("echo:0", "bad port"),
        ("echo:70000", "bad port"),
        ("echo:x", "bad port"),
        ("echo=/tmp", "takes no folder"),
        ("http", "needs a folder"),
        ("http=", "needs a folder"),
        ("http=/nowhere/at/all", "does not exist"),
        ("echo,discard:7", "two services on port 7"),
    ],
)
def test_a_mistake_in_the_list_is_explained(text: str, says: str):
    with pytest.raises(ValueError, match=says):
        parse_services(text)
