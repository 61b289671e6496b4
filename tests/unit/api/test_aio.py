"""asyncio on the stack: transports, streams and servers, on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import socket
import termios

import pytest

from ustack import aio
from ustack.tcp.info import unpack_tcp_info

PORT = 8000
HOST = "127.0.0.1"


class Collector(asyncio.Protocol):
    """Keeps what it hears of, in order."""

    def __init__(self):
        self.said = []
        self.data = bytearray()
        self.transport = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.said.append("made")

    def data_received(self, data):
        self.data += data

    def eof_received(self):
        self.said.append("eof")

    def connection_lost(self, exc):
        self.said.append("lost")
        self.lost.set_result(exc)

    def pause_writing(self):
        self.said.append("pause")

    def resume_writing(self):
        self.said.append("resume")


async def until(condition):
    """Let the loop turn until ``condition`` is true."""
    while not condition():
        await asyncio.sleep(0)


async def connected(server_protocol=Collector, client_protocol=Collector):
    """Return a server, and both ends' protocols."""
    made = []
    server = await aio.create_server(lambda: made.append(server_protocol()) or made[-1], HOST, PORT)
    _, client = await aio.create_connection(client_protocol, HOST, PORT)
    await until(lambda: made)
    return server, client, made[0]


def test_streams_echo(run):
    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def main():
        server = await aio.start_server(echo, HOST, PORT)
        reader, writer = await aio.open_connection(HOST, PORT)
        assert writer.get_extra_info("peername") == (HOST, PORT)
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        assert server.connections == 0

    run(main)


def test_bulk_arrives_whole_in_both_directions_at_once(run):
    size = 8 << 20
    data = bytes(range(256)) * (size // 256)

    async def echo(reader, writer):
        while chunk := await reader.read(1 << 18):
            writer.write(chunk)
            await writer.drain()
        writer.close()

    async def main():
        await aio.start_server(echo, HOST, PORT, limit=1 << 18)
        reader, writer = await aio.open_connection(HOST, PORT, limit=1 << 18)

        async def send():
            for start in range(0, size, 1 << 17):
                writer.write(data[start : start + (1 << 17)])
                await writer.drain()
            writer.write_eof()

        got, _ = await asyncio.gather(reader.read(), send())
        assert got == data
        writer.close()

    run(main)


def test_a_protocol_hears_of_everything_in_order(run):
    async def main():
        server, client, peer = await connected()
        client.transport.write(b"abc")
        client.transport.writelines([b"d", b"ef"])
        client.transport.close()
        assert await peer.lost is None
        assert await client.lost is None
        assert peer.data == b"abcdef"
        assert peer.said == ["made", "eof", "lost"]
        assert client.said == ["made", "lost"]
        server.close()

    run(main)


def test_half_close_lets_the_other_half_go_on(run):
    class KeepsOpen(Collector):
        def eof_received(self):
            self.transport.write(b"answer")
            self.transport.close()
            return True

    async def main():
        _, client, _ = await connected(KeepsOpen)
        assert client.transport.can_write_eof()
        client.transport.write(b"question")
        client.transport.write_eof()
        with pytest.raises(RuntimeError):
            client.transport.write(b"more")
        await client.lost
        assert client.data == b"answer"

    run(main)


def test_a_slow_reader_pauses_the_writer_and_resuming_drains_it(run):
    size = 16 << 20

    async def main():
        _, client, peer = await connected()
        peer.transport.pause_reading()
        assert not peer.transport.is_reading()
        client.transport.write(bytes(size))
        assert client.said == ["made", "pause"]
        assert client.transport.get_write_buffer_size() > 65536
        await asyncio.sleep(0.01)
        assert peer.data == b""
        peer.transport.resume_reading()
        await until(lambda: len(peer.data) == size)
        assert client.said == ["made", "pause", "resume"]
        assert client.transport.get_write_buffer_size() == 0

    run(main)


def test_a_file_goes_from_the_descriptor_as_there_is_room(run, tmp_path):
    """Nothing is copied at the socket, and a slow reader pauses the protocol that asks."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(250)) * 48_000)
    size = 12_000_000

    class Sender(Collector):
        def connection_made(self, transport):
            self.transport, self.at, self.pauses = transport, 0, 0
            self.file = path.open("rb")

        def resume_writing(self):
            while self.at < size:
                sent = self.transport.send_file(self.file.fileno(), self.at, size - self.at)
                if sent is None:
                    return
                assert sent > 0
                self.at += sent
            assert self.transport.send_file(self.file.fileno(), size, 10) == 0
            self.file.close()
            self.transport.close()

        def pause_writing(self):
            self.pauses += 1

    async def main():
        _, sender, reader = await connected(Collector, Sender)
        reader.transport.pause_reading()
        sender.resume_writing()
        assert 0 < sender.at < size
        reader.transport.resume_reading()
        await until(lambda: len(reader.data) == size)
        assert reader.data == path.read_bytes()
        assert sender.pauses > 0
        tcp = aio.current_runtime().stack.tcp
        assert (tcp.copied_bytes, tcp.ref_bytes) == (0, size)
        await sender.lost

    run(main)


def test_close_sends_what_is_buffered_and_abort_does_not(run):
    size = 16 << 20

    async def main():
        _, client, peer = await connected()
        client.transport.write(bytes(size))
        client.transport.close()
        assert client.transport.is_closing()
        client.transport.write(b"ignored")
        await peer.lost
        assert len(peer.data) == size
        _, client = await aio.create_connection(Collector, HOST, PORT)
        client.transport.write(bytes(size))
        client.transport.abort()
        assert client.transport.get_write_buffer_size() == 0
        assert await client.lost is None

    run(main)


def test_the_callers_buffer_is_his_again_when_write_returns(run):
    size = 8 << 20

    async def main():
        _, client, peer = await connected()
        data = bytearray(b"a" * size)
        client.transport.write(data)
        data[:] = b"b" * size
        await until(lambda: len(peer.data) == size)
        assert peer.data.count(b"a") == size

    run(main)


def test_a_buffered_protocol_is_filled_in_place(run):
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self):
            self.buffer = bytearray(100)
            self.filled = []

        def get_buffer(self, sizehint):
            return self.buffer

        def buffer_updated(self, n):
            self.filled.append(bytes(self.buffer[:n]))

    async def main():
        _, client, peer = await connected(Buffered)
        client.transport.write(bytes(range(250)))
        await until(lambda: sum(map(len, peer.filled)) == 250)
        assert b"".join(peer.filled) == bytes(range(250))
        assert max(map(len, peer.filled)) <= 100

    run(main)


def test_a_reset_is_told_by_connection_lost(run):
    async def main():
        _, client, peer = await connected()
        peer.transport.pause_reading()
        client.transport.write(b"never read")
        await asyncio.sleep(0.01)
        peer.transport.close()
        assert isinstance(await client.lost, ConnectionResetError)

    run(main)


def test_refusal_and_a_taken_port_are_errors_of_the_call(run):
    async def main():
        with pytest.raises(ConnectionRefusedError):
            await aio.open_connection(HOST, 9)
        await aio.create_server(Collector, HOST, PORT)
        with pytest.raises(OSError, match="in use"):
            await aio.create_server(Collector, HOST, PORT)

    run(main)


def test_a_cancelled_connect_leaves_nothing_behind(run):
    async def main():
        runtime = aio.current_runtime()
        await aio.create_server(Collector, HOST, PORT, backlog=0, start_serving=False)
        sock = runtime.call(runtime.stack.socket)
        runtime.call(sock.bind, 0x7F000001, 8001)
        runtime.call(sock.listen, 0)
        # The accept queue is full, further SYNs are dropped.
        _, writer = await aio.open_connection(HOST, 8001)
        results = [asyncio.ensure_future(aio.open_connection(HOST, 8001)) for _ in range(4)]
        await asyncio.sleep(0.02)
        waiting = [task for task in results if not task.done()]
        assert waiting
        for task in waiting:
            task.cancel()
        await asyncio.gather(*results, return_exceptions=True)
        states = [row["state"] for row in runtime.stack.tcp.diag()]
        assert "SYN-SENT" not in states
        writer.close()

    run(main)


def test_a_servers_name_tells_the_port_that_it_got(run):
    async def main():
        server = await aio.create_server(Collector, HOST, 0)
        host, port = server.sockets[0].getsockname()
        assert host == HOST and port
        assert server.is_serving()
        task = asyncio.ensure_future(server.serve_forever())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not server.is_serving() and server.sockets == ()

    run(main)


def test_closing_the_server_leaves_its_connections(run):
    async def main():
        server, client, peer = await connected()
        server.close()
        client.transport.write(b"still here")
        await until(lambda: peer.data == b"still here")
        done = asyncio.ensure_future(server.wait_closed())
        await asyncio.sleep(0)
        assert not done.done()
        server.close_connections()
        await done

    run(main)


def test_a_protocols_bug_ends_its_connection_alone():
    class Faulty(asyncio.Protocol):
        def data_received(self, data):
            raise ZeroDivisionError

    async def main():
        contexts = []
        asyncio.get_running_loop().set_exception_handler(lambda _, c: contexts.append(c))
        server, client, _ = await connected(Faulty)
        client.transport.write(b"x")
        await client.lost
        assert isinstance(contexts[0]["exception"], ZeroDivisionError)
        assert server.is_serving()
        aio.current_runtime().close()

    asyncio.run(main())


def test_many_connections_at_once(run):
    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    async def one(n):
        reader, writer = await aio.open_connection(HOST, PORT)
        writer.write(b"%d\n" % n)
        assert await reader.readline() == b"%d\n" % n
        writer.close()
        await writer.wait_closed()

    async def main():
        await aio.start_server(echo, HOST, PORT)
        await asyncio.gather(*[one(n) for n in range(100)])

    run(main)


def test_a_loop_has_one_stack(run):
    async def main():
        runtime = aio.current_runtime()
        assert aio.current_runtime() is runtime
        with pytest.raises(RuntimeError):
            aio.up()

    run(main)


def test_the_transports_socket_tells_tcp_info(run):
    async def main():
        server = await aio.start_server(lambda reader, writer: writer.close(), HOST, PORT)
        _, writer = await aio.open_connection(HOST, PORT)
        sock = writer.get_extra_info("socket")
        packed = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 280)
        assert unpack_tcp_info(packed)["bytes_acked"] == 1
        assert sock.ioctl(termios.FIONREAD) == 0
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main)
