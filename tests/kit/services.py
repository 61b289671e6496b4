"""Run as a program: echo, discard and chargen for many clients at once, in one of four styles.

``services.py STACK STYLE ADDRESS PORT [TAP HOST_ADDRESS [SETTING ...]]`` with STACK
``linux``, ``ustack`` (in process, on TAP) or ``daemon`` (that USTACK_SOCKET names), STYLE
``thread`` (one for each connection), ``epoll``, ``protocol`` or ``streams`` (asyncio on uvloop),
and SETTING ``tcp_fastpath=0``, ``offloads=off`` or ``busy_poll_us=N``. Echo is on PORT, discard
on PORT + 1, chargen on PORT + 2. It prints "ready" and serves until killed. The styles know
nothing of the stack: what ``socket``, ``select`` and the server's maker are decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket as linux_socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import uvloop

import ustack
from kit.traffic import pin
from ustack import aio
from ustack import select as ustack_select
from ustack import socket as ustack_socket
from ustack.config import NicConfig, StackConfig, UstackConfig

CHUNK = 1 << 18
NOTHING = bytes(CHUNK)
SINK = bytearray(CHUNK)


def echo(sk: Any) -> bool:
    """Send back what has come; a non-blocking socket must take it all."""
    data = sk.recv(65536)
    if data:
        sk.sendall(data)
    return bool(data)


def discard(sk: Any) -> bool:
    """Read what has come; several threads may write into one buffer, for nobody reads it."""
    return bool(sk.recv_into(SINK))


def chargen(sk: Any) -> bool:
    """Send as much as fits."""
    return bool(sk.send(NOTHING))


SERVICES: list[Callable[[Any], bool]] = [echo, discard, chargen]


def listeners(module: Any, address: str, port: int) -> list[Any]:
    """Return the three services' listening sockets."""
    return [module.create_server((address, port + i), backlog=4096) for i in range(3)]


def serve_thread(module: Any, select: Any, address: str, port: int) -> None:
    """Have one blocked thread for each connection."""

    def converse(sk: Any, service: Callable[[Any], bool]) -> None:
        with sk, contextlib.suppress(ConnectionError):
            sk.setsockopt(module.IPPROTO_TCP, module.TCP_NODELAY, 1)
            while service(sk):
                pass

    def accept(listener: Any, service: Callable[[Any], bool]) -> None:
        while True:
            sk, _ = listener.accept()
            threading.Thread(target=converse, args=(sk, service), daemon=True).start()

    threads = [
        threading.Thread(target=accept, args=pair)
        for pair in zip(listeners(module, address, port), SERVICES, strict=True)
    ]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    for thread in threads:
        thread.join()


def serve_epoll(module: Any, select: Any, address: str, port: int) -> None:
    """Have one thread that waits for all of them."""
    epoll = select.epoll()
    accepting = {}
    for sk, service in zip(listeners(module, address, port), SERVICES, strict=True):
        sk.setblocking(False)
        epoll.register(sk, select.EPOLLIN)
        accepting[sk.fileno()] = sk, service
    connections: dict[int, tuple[Any, Callable[[Any], bool]]] = {}
    print("ready", flush=True)
    while True:
        for fd, _ in epoll.poll():
            if fd in accepting:
                accept(module, select, epoll, *accepting[fd], connections)
                continue
            sk, service = connections[fd]
            try:
                if service(sk):
                    continue
            except BlockingIOError:
                continue
            except ConnectionError:
                pass
            del connections[fd]
            sk.close()


def accept(
    module: Any, select: Any, epoll: Any, listener: Any, service: Callable[[Any], bool],
    connections: dict[int, tuple[Any, Callable[[Any], bool]]],
) -> None:  # fmt: skip
    """Take everybody who waits."""
    with contextlib.suppress(BlockingIOError):
        while True:
            sk, _ = listener.accept()
            sk.setblocking(False)
            sk.setsockopt(module.IPPROTO_TCP, module.TCP_NODELAY, 1)
            epoll.register(sk, select.EPOLLOUT if service is chargen else select.EPOLLIN)
            connections[sk.fileno()] = sk, service


class EchoProtocol(asyncio.Protocol):
    """Echo as an asyncio protocol."""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Send it back."""
        self.transport.write(data)


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo as an asyncio stream."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def options(settings: list[str]) -> dict[str, Any]:
    """Return what ``up`` is to be given for the command line's settings."""
    given = dict(setting.split("=") for setting in settings)
    on = given.pop("offloads", "on") == "on"
    nic = NicConfig(rx_checksum=on, tx_checksum=on, tso=on, large_receive=on)
    fast = UstackConfig(tcp_fastpath=given.pop("tcp_fastpath", "1") == "1")
    return {"config": StackConfig(nic=nic, ustack=fast), **{k: int(v) for k, v in given.items()}}


async def serve_asyncio(stack: str, style: str, address: str, port: int, rest: list[str]) -> None:
    """Echo on the loop's own sockets, or on a stack that the loop drives."""
    loop = asyncio.get_running_loop()
    if stack == "ustack":
        tap, host_address, *settings = rest
        aio.up(tap, f"{address}/24", host_address=f"{host_address}/24", **options(settings))
    if style == "streams":
        start = aio.start_server if stack == "ustack" else asyncio.start_server
        server = await start(echo_stream, address, port, backlog=4096)
    else:
        create = aio.create_server if stack == "ustack" else loop.create_server
        server = await create(EchoProtocol, address, port, backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()


def main(stack: str, style: str, address: str, port: str, *rest: str) -> None:
    """Serve."""
    pin(0)
    if style in ("protocol", "streams"):
        uvloop.run(serve_asyncio(stack, style, address, int(port), list(rest)))
    serve = {"thread": serve_thread, "epoll": serve_epoll}[style]
    if stack == "ustack":
        tap, host_address, *settings = rest
        ustack.up(tap, f"{address}/24", host_address=f"{host_address}/24", **options(settings))
        serve(ustack_socket, ustack_select, address, int(port))
    import select  # the standard one

    if stack == "daemon":
        ustack.connect()
    serve(ustack_socket if stack == "daemon" else linux_socket, select, address, int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
