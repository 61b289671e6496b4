"""asyncio on two stacks that one wire joins: text comes by C's inbox, not by the wait queue."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref

import pytest
import uvloop

from kit.seqpacket import seqpacket_pair
from ustack import aio
from ustack.config import CoreConfig, NicConfig, StackConfig
from ustack.lib.addresses import parse_interface
from ustack.runtime.clock import monotonic_us
from ustack.runtime.inline import InlineRuntime
from ustack.stack import Stack

PORT = 8000
SERVER, CLIENT = "10.0.0.1", "10.0.0.2"
CONFIG = StackConfig(nic=NicConfig(rx_usecs=0), core=CoreConfig(arena_bytes=64 << 20))


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Run ``main(server's runtime, client's)`` on a loop of its own."""

    def run(main):
        async def body():
            errors = []
            asyncio.get_running_loop().set_exception_handler(lambda _, ctx: errors.append(ctx))
            runtimes = []
            for wire, address in zip(seqpacket_pair(), (SERVER, CLIENT), strict=True):
                stack = Stack(CONFIG, rng=random.Random(address), now_us=monotonic_us())
                stack.add_igb(wire, address=parse_interface(f"{address}/24"))
                runtimes.append(InlineRuntime(stack))
            try:
                await asyncio.wait_for(main(*runtimes), 20)
            finally:
                for runtime in runtimes:
                    runtime.close()
                    runtime.stack.close()
            return errors

        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(body())

    return run


class Server(asyncio.Protocol):
    """Does with what it receives what ``on_data(protocol, data)`` does."""

    def __init__(self, on_data):
        self.on_data = on_data
        self.data = b""
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data
        self.on_data(self, data)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def serve(runtime, on_data):
    """Return the protocols of a server, in the order in which they were connected."""
    protocols = []

    def factory():
        protocols.append(Server(on_data))
        return protocols[-1]

    await aio.create_server(factory, SERVER, PORT, runtime=runtime)
    return protocols


async def connect(runtime, count):
    """Return the readers and the writers of ``count`` connections."""
    return zip(
        *[await aio.open_connection(SERVER, PORT, runtime=runtime) for _ in range(count)],
        strict=True,
    )


async def until(condition):
    """Let the loop run until ``condition()``."""
    while not condition():
        await asyncio.sleep(0)


def echo(protocol, data):
    protocol.transport.write(data)


def test_many_connections_ping_and_pong(run):
    async def main(server, client):
        await serve(server, echo)
        readers, writers = await connect(client, 20)
        for turn in range(20):
            for i, writer in enumerate(writers):
                writer.write(b"%d of %d;" % (turn, i))
            for i, reader in enumerate(readers):
                assert await reader.readuntil(b";") == b"%d of %d;" % (turn, i)

    assert run(main) == []


def test_what_is_written_in_pieces_and_then_closed_arrives_whole_and_in_order(run):
    large = random.Random(2).randbytes(500_000)

    def answer(protocol, data):
        for piece in (b"small", large, b"again", memoryview(large)[:9000], b"end"):
            protocol.transport.write(piece)
        protocol.transport.close() if data == b"close" else protocol.transport.write_eof()

    async def main(server, client):
        await serve(server, answer)
        readers, writers = await connect(client, 6)
        for i, writer in enumerate(writers):
            writer.write(b"close" if i % 2 else b"eof")
        for reader in readers:
            assert await reader.read(-1) == b"small" + large + b"again" + large[:9000] + b"end"
        for writer in writers:
            writer.close()

    assert run(main) == []


def test_answers_to_others_than_who_asked_arrive_in_order(run):
    protocols = []

    def to_all(protocol, data):
        for other in protocols:
            other.transport.write(data)

    async def chat(server, client):
        nonlocal protocols
        protocols = await serve(server, to_all)
        readers, writers = await connect(client, 5)
        await until(lambda: len(protocols) == 5)
        for turn in range(20):
            for i, writer in enumerate(writers):
                writer.write(b"%02d%d;" % (turn, i))
        heard = [[await reader.readuntil(b";") for _ in range(100)] for reader in readers]
        assert heard[1:] == heard[:-1]  # each the same in the same order
        for i in range(5):
            assert [t for t in heard[0] if t[2:3] == b"%d" % i] == [
                b"%02d%d;" % (turn, i) for turn in range(20)
            ]

    assert run(chat) == []


def test_bulk_comes_back_whole(run):
    async def main(server, client):
        await serve(server, echo)
        (reader,), (writer,) = await connect(client, 1)
        data = random.Random(1).randbytes(3_000_000)
        writer.write(data)
        assert await reader.readexactly(len(data)) == data

    assert run(main) == []


def test_what_came_before_a_pause_by_somebody_else_is_kept_and_stays_in_order(run):
    async def main(server, client):
        def pause_all(protocol, data):
            for other in protocols:
                other.transport.pause_reading()

        protocols = await serve(server, pause_all)
        _readers, writers = await connect(client, 2)
        for i in range(30):  # both often lie in one batch: one pauses the other
            for writer in writers:
                writer.write(b"%03d" % i)
            await until(lambda: any(not p.transport.is_reading() for p in protocols))
            for protocol in protocols:
                protocol.transport.resume_reading()
        for protocol in protocols:
            while len(protocol.data) < 90:
                protocol.transport.resume_reading()
                await asyncio.sleep(0)
            assert protocol.data == b"".join(b"%03d" % i for i in range(30))

    assert run(main) == []


def test_a_connection_that_another_ones_callback_closes_hears_no_more(run):
    async def main(server, client):
        def close_others(protocol, data):
            for other in protocols:
                if other is not protocol:
                    other.transport.abort()

        protocols = await serve(server, close_others)
        _readers, writers = await connect(client, 5)
        await until(lambda: len(protocols) == 5)
        for writer in writers:
            writer.write(b"x")
        await until(lambda: sum(p.lost.done() for p in protocols) == 4)
        assert sum(bool(p.data) for p in protocols) == 1

    assert run(main) == []


def test_one_that_is_closed_before_it_heard_all_is_reset(run):
    async def main(server, client):
        def close_all(protocol, data):
            for other in protocols:
                other.transport.close()

        protocols = await serve(server, close_all)
        readers, writers = await connect(client, 2)
        await until(lambda: len(protocols) == 2)
        aborts = 0
        for writer in writers:
            writer.write(b"x")
        for protocol, reader in zip(protocols, readers, strict=True):
            assert await protocol.lost is None
            try:
                assert await reader.read() == b""
                assert protocol.data
            except ConnectionResetError:
                assert not protocol.data
                aborts += 1
        snapshot = server.stack.net.mib.snapshot()
        assert snapshot["TcpExt"]["TCPAbortOnClose"] == aborts

    assert run(main) == []


def test_a_bug_in_data_received_ends_that_connection_alone(run):
    async def main(server, client):
        def fail(protocol, data):
            if data == b"bug":
                raise ValueError("a bug")
            echo(protocol, data)

        protocols = await serve(server, fail)
        readers, writers = await connect(client, 3)
        for writer, text in zip(writers, (b"one", b"bug", b"two"), strict=True):
            writer.write(text)
        assert await readers[0].readexactly(3) == b"one"
        assert await readers[2].readexactly(3) == b"two"
        assert isinstance(await protocols[1].lost, ValueError)

    (context,) = run(main)
    assert str(context["exception"]) == "a bug"


def test_the_end_of_the_stream_comes_behind_the_text(run):
    async def main(server, client):
        protocols = await serve(server, lambda protocol, data: None)
        _readers, writers = await connect(client, 5)
        for writer in writers:
            writer.write(b"warm")
        await until(lambda: all(p.data for p in protocols))
        for writer in writers:
            writer.write(b", last")
            writer.write_eof()
        for protocol in protocols:
            assert await protocol.lost is None
            assert protocol.data == b"warm, last"

    assert run(main) == []


def test_one_that_closes_with_much_left_to_send_hears_no_more(run):
    async def main(server, client):
        def answer_and_close(protocol, data):
            protocol.transport.write(bytes(20_000_000))
            protocol.transport.close()

        protocols = await serve(server, answer_and_close)
        (reader,), (writer,) = await connect(client, 1)
        writer.write(b"first")
        await until(lambda: protocols and protocols[0].transport.is_closing())
        writer.write(b"second")
        for _ in range(20):
            await reader.read(1 << 20)
        assert protocols[0].data == b"first"

    assert run(main) == []


def test_what_is_over_is_freed_without_the_garbage_collector(run):
    async def main(server, client):
        gone = []

        def watch(protocol, data):
            gone.append(weakref.ref(protocol.transport))

        protocols = await serve(server, watch)
        _readers, writers = await connect(client, 3)
        for writer in writers:
            writer.write(b"hello")
            writer.write_eof()
        await until(lambda: len(gone) == 3 and all(p.lost.done() for p in protocols))
        gc.disable()
        try:
            protocols.clear()
            await until(lambda: not any(ref() for ref in gone))
        finally:
            gc.enable()

    assert run(main) == []


class Filler(asyncio.BufferedProtocol):
    """Takes a few bytes a time."""

    def __init__(self):
        self.data = b""
        self.buffer = bytearray(5)

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        self.data += self.buffer[:nbytes]


def test_a_protocol_may_hand_over_to_one_that_has_a_buffer(run):
    async def main(server, client):
        fillers = []

        def switch(protocol, data):
            fillers.append(Filler())
            protocol.transport.set_protocol(fillers[-1])

        protocols = await serve(server, switch)
        _readers, writers = await connect(client, 3)
        for writer in writers:
            writer.write(b"first")
        await until(lambda: len(fillers) == 3)
        for writer in writers:
            writer.write(b"and then much more")
        await until(lambda: all(f.data == b"and then much more" for f in fillers))
        assert [p.data for p in protocols] == [b"first"] * 3

    assert run(main) == []


def test_text_for_one_who_has_just_been_given_a_buffer_is_put_into_it(run):
    async def main(server, client):
        fillers = []

        def switch_all(protocol, data):
            for other in protocols:
                fillers.append(Filler())
                other.transport.set_protocol(fillers[-1])

        protocols = await serve(server, switch_all)
        _readers, writers = await connect(client, 2)
        for writer in writers:
            writer.write(b"many bytes")
        await until(lambda: len(b"".join(p.data for p in (*protocols, *fillers))) == 20)

    assert run(main) == []
