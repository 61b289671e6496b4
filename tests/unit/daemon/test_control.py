"""The control socket: one answer a request, nobody can stop it, nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from unit.daemon.fakes import FakeNet
from ustack.daemon import control
from ustack.daemon.capture import Capture
from ustack.daemon.control import ControlError, ControlServer, claim_path
from ustack.daemon.messages import (
    AnyReply,
    AnyRequest,
    CaptureRequest,
    CounterRow,
    Done,
    DropsRequest,
    Failure,
    PacketPiece,
    Rows,
    SocketsRequest,
    Started,
    StopRequest,
    decode_reply,
    encode,
    row_messages,
)


class World:
    """A control server on a running loop, with a net whose packets the test makes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.net = FakeNet()
        self.rows = 3
        self.made = 0
        self.server = ControlServer(path, self.answer, self.start_capture)
        self.server.start(asyncio.get_running_loop())

    def answer(self, request: AnyRequest) -> Iterator[bytes]:
        if isinstance(request, DropsRequest):
            raise_later: list[int] = []
            yield from row_messages(CounterRow("", "x", raise_later[i]) for i in range(1))
        yield from row_messages(self.make_rows())

    def make_rows(self) -> Iterator[CounterRow]:
        for i in range(self.rows):
            self.made += 1
            yield CounterRow("", "x" * 200, i)

    def start_capture(self, request: CaptureRequest, notify: Callable[[], None]) -> Capture:
        return Capture(self.net, request, notify)  # type: ignore[arg-type]

    def connect(self) -> socket.socket:
        """Return a connected client socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(str(self.path))
        sock.setblocking(False)
        return sock


async def receive(sock: socket.socket) -> AnyReply | None:
    """Return the next reply, None at the end."""
    data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 65536), 5)
    return decode_reply(data) if data else None


async def answer_to(sock: socket.socket, message: bytes) -> list[AnyReply | None]:
    """Send a message and return the replies up to the last."""
    await asyncio.get_running_loop().sock_sendall(sock, message)
    replies = [await receive(sock)]
    while isinstance(replies[-1], Rows):
        replies.append(await receive(sock))
    return replies


@contextlib.asynccontextmanager
async def world_at(path: Path) -> AsyncIterator[World]:
    world = World(path)
    try:
        yield world
    finally:
        world.server.close()
        assert not path.exists()
        assert not world.net.taps


def run(tmp_path: Path, scenario: Callable[[World], object]) -> None:
    """Run an async scenario against a server."""

    async def main() -> None:
        async with world_at(tmp_path / "c.sock") as world:
            await asyncio.wait_for(scenario(world), 20)  # type: ignore[arg-type]

    asyncio.run(main())


def test_requests_on_one_connection_are_answered_one_after_the_other(tmp_path: Path):
    async def scenario(world: World) -> None:
        with world.connect() as sock:
            for _ in range(3):
                rows, done = await answer_to(sock, encode(SocketsRequest()))
                assert isinstance(rows, Rows) and len(rows.rows) == 3
                assert done == Done()

    run(tmp_path, scenario)


def test_only_the_owner_may_connect(tmp_path: Path):
    async def scenario(world: World) -> None:
        assert stat.S_IMODE(world.path.stat().st_mode) == 0o600

    run(tmp_path, scenario)


@pytest.mark.parametrize("message", [b"{", b"\x00", b'{"op":"x"}', b"[" * 60_000, b" " * 70_000])
def test_a_bad_request_is_answered_and_the_next_one_works(tmp_path: Path, message: bytes):
    async def scenario(world: World) -> None:
        with world.connect() as sock:
            (failure,) = await answer_to(sock, message)
            assert isinstance(failure, Failure)
            assert len(await answer_to(sock, encode(SocketsRequest()))) == 2

    run(tmp_path, scenario)


def test_a_bug_in_a_view_is_told_to_the_client_and_hurts_nobody(tmp_path: Path):
    async def scenario(world: World) -> None:
        with world.connect() as sock:
            (failure,) = await answer_to(sock, encode(DropsRequest()))
            assert isinstance(failure, Failure)
            assert len(await answer_to(sock, encode(SocketsRequest()))) == 2

    run(tmp_path, scenario)


def test_a_long_answer_is_made_no_faster_than_it_is_read(tmp_path: Path):
    async def scenario(world: World) -> None:
        world.rows = 20_000
        with world.connect() as sock:
            await asyncio.get_running_loop().sock_sendall(sock, encode(SocketsRequest()))
            for _ in range(50):
                await asyncio.sleep(0)
            assert 0 < world.made < 10_000
            got = 0
            while not isinstance(reply := await receive(sock), Done):
                assert isinstance(reply, Rows)
                got += len(reply.rows)
            assert got == 20_000

    run(tmp_path, scenario)


def test_a_client_that_does_not_read_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "STALL_S", 0.01)

    async def scenario(world: World) -> None:
        world.rows = 20_000
        with world.connect() as sock:
            await asyncio.get_running_loop().sock_sendall(sock, encode(SocketsRequest()))
            while world.server._clients or not world.made:
                await asyncio.sleep(0.002)
            assert world.made < 20_000

    run(tmp_path, scenario)


def test_a_client_that_goes_away_in_the_middle_is_forgotten(tmp_path: Path):
    async def scenario(world: World) -> None:
        world.rows = 20_000
        sock = world.connect()
        await asyncio.get_running_loop().sock_sendall(sock, encode(SocketsRequest()))
        await receive(sock)
        sock.close()
        while world.server._clients:
            await asyncio.sleep(0)

    run(tmp_path, scenario)


def test_there_is_a_limit_to_the_number_of_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "MAX_CLIENTS", 2)

    async def scenario(world: World) -> None:
        with world.connect() as one, world.connect() as two, world.connect() as three:
            for sock in (one, two):
                assert len(await answer_to(sock, encode(SocketsRequest()))) == 2
            (failure,) = await answer_to(three, encode(SocketsRequest()))
            assert isinstance(failure, Failure)

    run(tmp_path, scenario)


def test_a_capture_streams_until_it_is_stopped(tmp_path: Path):
    async def scenario(world: World) -> None:
        loop = asyncio.get_running_loop()
        with world.connect() as sock:
            await loop.sock_sendall(sock, encode(CaptureRequest()))
            assert await receive(sock) == Started()
            world.net.pass_packet(b"one")
            world.net.pass_packet(b"two", outgoing=True)
            first, second = await receive(sock), await receive(sock)
            assert isinstance(first, PacketPiece) and isinstance(second, PacketPiece)
            assert (first.data, first.outgoing) == (b"one", False)
            assert (second.data, second.outgoing) == (b"two", True)
            world.net.pass_packet(b"three")
            await loop.sock_sendall(sock, encode(StopRequest()))
            third = await receive(sock)
            assert isinstance(third, PacketPiece) and third.data == b"three"
            assert await receive(sock) == Done(received=3, dropped=0)
            assert not world.net.taps
            assert len(await answer_to(sock, encode(SocketsRequest()))) == 2

    run(tmp_path, scenario)


def test_a_capture_of_an_unknown_device_is_refused(tmp_path: Path):
    async def scenario(world: World) -> None:
        with world.connect() as sock:
            (failure,) = await answer_to(sock, encode(CaptureRequest("eth7")))
            assert failure == Failure("eth7: No such device exists")

    run(tmp_path, scenario)


def test_a_capture_ends_when_its_client_goes_away(tmp_path: Path):
    async def scenario(world: World) -> None:
        sock = world.connect()
        await asyncio.get_running_loop().sock_sendall(sock, encode(CaptureRequest()))
        await receive(sock)
        sock.close()
        while world.net.taps:
            await asyncio.sleep(0)

    run(tmp_path, scenario)


def test_a_capture_whose_client_does_not_read_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "STALL_S", 0.01)

    async def scenario(world: World) -> None:
        with world.connect() as sock:
            await asyncio.get_running_loop().sock_sendall(sock, encode(CaptureRequest()))
            while not world.net.taps:
                await asyncio.sleep(0)
            while world.net.taps:
                world.net.pass_packet(bytes(60_000))
                await asyncio.sleep(0.001)

    run(tmp_path, scenario)


def test_a_stop_without_a_capture_is_an_error(tmp_path: Path):
    async def scenario(world: World) -> None:
        with world.connect() as sock:
            (failure,) = await answer_to(sock, encode(StopRequest()))
            assert isinstance(failure, Failure)

    run(tmp_path, scenario)


def test_a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not(tmp_path: Path):
    path = tmp_path / "c.sock"
    claim_path(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(path))
        sock.listen(1)
        with pytest.raises(ControlError, match="in use"):
            claim_path(path)
    assert path.exists()
    claim_path(path)
    assert not path.exists()


def test_no_folder_is_made_but_the_usual_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usual = tmp_path / "run"
    monkeypatch.setattr(control, "CONTROL_FOLDER", usual)
    with pytest.raises(ControlError, match=f"no folder {tmp_path / 'other'}$"):
        claim_path(tmp_path / "other" / "c.sock")
    assert not (tmp_path / "other").exists()
    claim_path(usual / "c.sock")
    assert usual.is_dir()


def test_a_file_in_the_way_is_left_alone(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(ControlError, match="not a socket"):
        claim_path(path)
    assert path.read_text() == "mine"


def test_a_path_that_is_too_long_or_impossible_is_one_line(tmp_path: Path):
    long = tmp_path / ("x" * 200)
    with pytest.raises(ControlError):
        control.bind_control_socket(long)
    (tmp_path / "file").write_text("")
    with pytest.raises(ControlError):
        claim_path(tmp_path / "file" / "c.sock")


def test_closing_leaves_another_daemons_socket_alone(tmp_path: Path):
    async def main() -> None:
        world = World(tmp_path / "c.sock")
        os.unlink(world.path)
        world.path.write_text("somebody else's")
        world.server.close()
        assert world.path.exists()

    asyncio.run(main())
