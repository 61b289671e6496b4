"""asyncio datagram endpoints on the stack, on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio

import pytest

from ustack import aio


class Collector(asyncio.DatagramProtocol):
    """Puts what it hears into a queue."""

    def __init__(self):
        self.heard = asyncio.Queue()

    def datagram_received(self, data, addr):
        self.heard.put_nowait((data, addr))

    def error_received(self, exc):
        self.heard.put_nowait(type(exc))

    def connection_lost(self, exc):
        self.heard.put_nowait("lost")


async def endpoint(**addresses):
    return await aio.create_datagram_endpoint(Collector, **addresses)


def test_datagrams_go_both_ways(run):
    async def main():
        server, served = await endpoint(local_addr=("127.0.0.1", 0))
        here = server.get_extra_info("sockname")
        client, asked = await endpoint(remote_addr=here)
        for number in range(200):
            client.sendto(b"%d" % number)
        got = [await served.heard.get() for _ in range(200)]
        assert [data for data, _ in got] == [b"%d" % number for number in range(200)]
        server.sendto(b"back", got[0][1])
        assert await asked.heard.get() == (b"back", here)
        assert client.get_extra_info("peername") == here
        assert client.get_extra_info("socket").type.name == "SOCK_DGRAM"

    run(main)


def test_a_closed_port_is_an_error_received(run):
    async def main():
        client, asked = await endpoint(remote_addr=("127.0.0.1", 9))
        client.sendto(b"x")
        assert await asked.heard.get() is ConnectionRefusedError
        client.close()
        assert await asked.heard.get() == "lost"
        assert client.is_closing()
        client.sendto(b"nowhere")

    run(main)


def test_mistakes_are_asyncios(run):
    async def main():
        with pytest.raises(ValueError, match="address family"):
            await endpoint()
        client, asked = await endpoint(remote_addr=("127.0.0.1", 9))
        with pytest.raises(ValueError, match="Invalid address"):
            client.sendto(b"x", ("127.0.0.1", 10))
        with pytest.raises(TypeError):
            client.sendto("text")
        client.sendto(bytes(70_000))
        assert await asked.heard.get() is OSError

    run(main)


def test_a_protocol_that_fails_ends_its_transport(run):
    async def main():
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        server, served = await endpoint(local_addr=("127.0.0.1", 0))
        served.datagram_received = lambda data, addr: 1 / 0
        server.sendto(b"x", server.get_extra_info("sockname"))
        assert await served.heard.get() == "lost"
        assert "datagram_received() failed" in told[0]["message"]

    run(main)
