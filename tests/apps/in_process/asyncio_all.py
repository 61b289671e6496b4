"""asyncio as it comes: streams, datagrams, TLS, signals, threads, sendfile, a subprocess."""

import asyncio
import os
import select
import signal
import socket
import ssl
import sys
import tempfile


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def streams() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    readers, writers = [], []
    for number in range(20):
        reader, writer = await asyncio.open_connection("localhost", port)
        writer.write(bytes([number]) * 100_000)
        writer.write_eof()
        readers.append(reader.read())
        writers.append(writer)  # one that nothing names is closed, and its answer is lost
    print(sum(len(data) for data in await asyncio.gather(*readers)))
    server.close()


class Upper(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        if data.islower():
            self.transport.sendto(data.upper(), addr)
        else:
            self.got.set_result(data)


async def datagrams() -> None:
    loop = asyncio.get_running_loop()
    here, _ = await loop.create_datagram_endpoint(Upper, local_addr=("127.0.0.1", 0))
    there = here.get_extra_info("sockname")
    transport, client = await loop.create_datagram_endpoint(Upper, remote_addr=there)
    client.got = loop.create_future()
    transport.sendto(b"datagram")
    print((await client.got).decode())
    here.close()
    transport.close()


async def tls(certificate: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    trusting = ssl.create_default_context(cafile=certificate)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trusting, server_hostname="localhost"
    )
    writer.write(b"secret\n")
    print((await reader.readline()).decode().strip(), writer.get_extra_info("cipher") is not None)
    writer.close()
    server.close()


async def the_rest() -> None:
    loop = asyncio.get_running_loop()
    caught = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, caught.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    await caught.wait()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "print('child')", stdout=asyncio.subprocess.PIPE
    )
    print((await child.communicate())[0].decode().strip())
    print(await asyncio.to_thread(lambda: "thread"))


async def main() -> None:
    await streams()
    await datagrams()
    await the_rest()
    if len(sys.argv) > 1:
        await tls(sys.argv[1])


asyncio.run(main())
print(socket.socket.__module__, select.epoll.__module__.split(".")[0], tempfile.gettempdir() != "")
