"""TLS on ``ustack.aio``'s transports and streams, on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from ustack import aio

PORT = 8000
HOST = "127.0.0.1"
CERTIFICATE = Path(__file__).parents[2] / "apps" / "localhost.pem"


@pytest.fixture
def serving() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    return context


@pytest.fixture
def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CERTIFICATE))


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def test_streams_are_encrypted_from_the_start(run, serving, trusting):
    async def main():
        server = await aio.start_server(echo, HOST, PORT, ssl=serving)
        reader, writer = await aio.open_connection(
            HOST, PORT, ssl=trusting, server_hostname="localhost"
        )
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        assert writer.get_extra_info("peername") == (HOST, PORT)
        for _ in range(3):
            writer.write(b"x" * 300_000)
            assert await reader.readexactly(300_000) == b"x" * 300_000
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main)


def test_streams_are_encrypted_later_on(run, serving, trusting):
    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go on\n")
        await writer.start_tls(serving)
        await echo(reader, writer)

    async def main():
        await aio.start_server(upgrade, HOST, PORT)
        reader, writer = await aio.open_connection(HOST, PORT)
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go on\n"
        await writer.start_tls(trusting, server_hostname="localhost")
        writer.write(b"secret\n")
        assert await reader.readline() == b"secret\n"
        assert writer.get_extra_info("ssl_object") is not None
        writer.close()
        await writer.wait_closed()

    run(main)


def test_a_connections_protocol_goes_on_above_the_encryption(run, serving, trusting):
    class Answering(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            made.append(self)

        def data_received(self, data):
            heard.put_nowait(data)

    made: list[Answering] = []
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def main():
        await aio.create_server(Answering, HOST, PORT)
        plain, client = await aio.create_connection(Answering, HOST, PORT)
        while len(made) < 2:
            await asyncio.sleep(0)
        server = next(one for one in made if one is not client)
        encrypted, secure = await asyncio.gather(
            aio.start_tls(server.transport, server, serving, server_side=True),
            aio.start_tls(plain, client, trusting, server_hostname="localhost"),
        )
        secure.write(b"question")
        assert await heard.get() == b"question"
        encrypted.write(b"answer")
        assert await heard.get() == b"answer"
        assert len(made) == 2
        secure.close()

    run(main)


def test_who_is_not_trusted_is_not_connected(run, serving):
    async def main():
        await aio.start_server(echo, HOST, PORT, ssl=serving)
        with pytest.raises(ssl.SSLCertVerificationError):
            await aio.open_connection(HOST, PORT, ssl=True)
        with pytest.raises(ValueError, match="only meaningful with ssl"):
            await aio.open_connection(HOST, PORT, server_hostname="localhost")

    run(main)


def test_a_handshake_has_its_time(run, trusting):
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def main():
        await aio.start_server(say_nothing, HOST, PORT)
        with pytest.raises((ConnectionAbortedError, OSError)):
            await aio.open_connection(HOST, PORT, ssl=trusting, ssl_handshake_timeout=0.02)

    run(main)
