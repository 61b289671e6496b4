"""asyncio's streams and protocols on ustack; ``ustack.aio`` is its public name.

The functions are asyncio's own, with the stack's runtime as an extra argument. Without one
they use the runtime of the running loop: ``up()`` puts it on a TAP, otherwise it is a stack
that has only its loopback device.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from ustack.api.aio_datagram import StackDatagramTransport
from ustack.api.aio_server import StackServer
from ustack.api.aio_tls import Handshake, StreamLoop, secured
from ustack.api.aio_transport import WRITABLE, StackTransport
from ustack.api.names import resolve_host
from ustack.inet.dgram import DgramSocket
from ustack.lib.addresses import INADDR_LOOPBACK
from ustack.runtime.inline import InlineRuntime
from ustack.sock.wait import WaitEntry

if TYPE_CHECKING:
    from ssl import SSLContext

    from ustack.inet.sockets import InetSocket

P = TypeVar("P", bound=asyncio.BaseProtocol)
D = TypeVar("D", bound=asyncio.DatagramProtocol)
ClientConnected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]

SOL_SOCKET = 1
IPPROTO_TCP = 6
TCP_NODELAY = 1
SO_REUSEADDR = 2
SO_BROADCAST = 6
SO_REUSEPORT = 15
SOCK_DGRAM = 2
STREAM_LIMIT_BYTES = 64 * 1024

_runtimes: WeakKeyDictionary[asyncio.AbstractEventLoop, InlineRuntime] = WeakKeyDictionary()
"""The runtime of each loop; like asyncio's running loop it belongs to the process's edge."""


def up(
    tap: str | None = None, address: str | None = None, *, busy_poll_us: int = 0, **options: Any
) -> InlineRuntime:
    """Make the running loop's stack, with ``ustack.up()``'s arguments; it is then the default.

    Raises:
        OSError: the TAP cannot be had (permission, busy).
        RuntimeError: no loop is running, or it has a stack.
    """
    from ustack.api.stacks import build_stack

    loop = asyncio.get_running_loop()
    if loop in _runtimes and not _runtimes[loop].closed:
        raise RuntimeError("this loop has a stack; close its runtime first")
    runtime = InlineRuntime(build_stack(tap, address, **options), loop, busy_poll_us=busy_poll_us)
    _runtimes[loop] = runtime
    return runtime


def current_runtime() -> InlineRuntime:
    """Return the running loop's runtime; make one of a loopback-only stack if there is none."""
    runtime = _runtimes.get(asyncio.get_running_loop())
    if runtime is None or runtime.closed:
        runtime = up()
    return runtime


async def create_server(
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    host: str | None = None,
    port: int = 0,
    *,
    backlog: int = 100,
    reuse_address: bool = True,
    start_serving: bool = True,
    ssl: SSLContext | None = None,
    runtime: InlineRuntime | None = None,
    **timeouts: float | None,
) -> StackServer:
    """Serve TCP connections on ``host`` (None: any address) and ``port`` (0: a free one).

    Args:
        ssl: encrypts them.
        timeouts: ``ssl_handshake_timeout``, ``ssl_shutdown_timeout``: seconds.

    Raises:
        OSError: the address cannot be bound.
    """
    runtime = runtime or current_runtime()
    if ssl is not None:
        protocol_factory = secured(protocol_factory, ssl, **timeouts)
    sock = runtime.call(runtime.stack.socket)
    try:
        if reuse_address:
            runtime.call(sock.setsockopt, SOL_SOCKET, SO_REUSEADDR, 1)
        runtime.call(sock.bind, await _resolve(host), port)
        server = StackServer(runtime, sock, protocol_factory, backlog)
        if start_serving:
            server.listen()
    except BaseException:
        runtime.call(sock.close)
        raise
    return server


async def start_server(
    client_connected_cb: ClientConnected,
    host: str | None = None,
    port: int = 0,
    *,
    limit: int = STREAM_LIMIT_BYTES,
    **options: Any,
) -> StackServer:
    """Serve connections with ``client_connected_cb(reader, writer)``, as asyncio's does.

    Args:
        limit: bytes that a reader holds before the connection's window closes.
        options: create_server's, ``runtime`` among them.
    """
    loop: Any = StreamLoop(asyncio.get_running_loop())

    def factory() -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        return asyncio.StreamReaderProtocol(reader, client_connected_cb, loop=loop)

    return await create_server(factory, host, port, **options)


async def create_connection(
    protocol_factory: Callable[[], P],
    host: str,
    port: int,
    *,
    local_addr: tuple[str, int] | None = None,
    ssl: SSLContext | bool | None = None,
    server_hostname: str | None = None,
    runtime: InlineRuntime | None = None,
    **timeouts: float | None,
) -> tuple[asyncio.Transport, P]:
    """Connect to ``host`` and ``port``; return the transport and its protocol.

    Args:
        ssl: encrypts the connection; True: with the default context.
        server_hostname: whose certificate is expected, if not that of ``host``.
        timeouts: ``ssl_handshake_timeout``, ``ssl_shutdown_timeout``: seconds.

    Raises:
        OSError: the connection could not be made (ConnectionRefusedError, TimeoutError, ...).
    """
    if server_hostname is not None and not ssl:
        raise ValueError("server_hostname is only meaningful with ssl")
    runtime = runtime or current_runtime()
    addr = await _resolve(host) or INADDR_LOOPBACK
    local = None if local_addr is None else (await _resolve(local_addr[0]), local_addr[1])
    sock = runtime.call(runtime.stack.socket)
    try:
        if local is not None:
            runtime.call(sock.bind, *local)
        await _connect(runtime, sock, addr, port)
        protocol = protocol_factory()
        runtime.call(sock.setsockopt, IPPROTO_TCP, TCP_NODELAY, 1)
        addresses = (sock.getsockname(), sock.getpeername())
    except BaseException:
        runtime.call(sock.close)
        raise
    handshake = Handshake(protocol, ssl, server_hostname or host, **timeouts) if ssl else None
    below = handshake.below if handshake else protocol
    transport = StackTransport(runtime, sock, below, addresses)
    transport.start(True)
    return (await handshake.finish(transport) if handshake else transport), protocol


async def open_connection(
    host: str, port: int, *, limit: int = STREAM_LIMIT_BYTES, **options: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect and return (reader, writer), as asyncio's does; options: create_connection's."""
    loop: Any = StreamLoop(asyncio.get_running_loop())
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    transport, protocol = await create_connection(
        lambda: asyncio.StreamReaderProtocol(reader, loop=loop), host, port, **options
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def create_datagram_endpoint(
    protocol_factory: Callable[[], D],
    local_addr: tuple[str, int] | None = None,
    remote_addr: tuple[str, int] | None = None,
    *,
    reuse_port: bool = False,
    allow_broadcast: bool = False,
    runtime: InlineRuntime | None = None,
) -> tuple[StackDatagramTransport, D]:
    """Make a UDP socket, bound and connected as the addresses say; return it and its protocol.

    Raises:
        OSError: EADDRINUSE, EADDRNOTAVAIL, ENETUNREACH, EACCES (a broadcast).
        ValueError: neither address is given.
    """
    if local_addr is None and remote_addr is None:
        raise ValueError("unexpected address family")
    runtime = runtime or current_runtime()
    local = None if local_addr is None else (await _resolve(local_addr[0]), local_addr[1])
    remote = None if remote_addr is None else (await _resolve(remote_addr[0]), remote_addr[1])
    sock = runtime.call(runtime.stack.socket, SOCK_DGRAM)
    assert isinstance(sock, DgramSocket)
    try:
        for option, wanted in ((SO_REUSEPORT, reuse_port), (SO_BROADCAST, allow_broadcast)):
            if wanted:
                runtime.call(sock.setsockopt, SOL_SOCKET, option, 1)
        if local is not None:
            runtime.call(sock.bind, *local)
        if remote is not None:
            runtime.call(sock.connect, *remote)
        protocol = protocol_factory()
        transport = StackDatagramTransport(runtime, sock, protocol)
    except BaseException:
        runtime.call(sock.close)
        raise
    transport.start()
    return transport, protocol


async def _connect(runtime: InlineRuntime, sock: InetSocket, addr: int, port: int) -> None:
    """Connect a non-blocking core socket and wait for the outcome."""
    connected = runtime.loop.create_future()

    def check() -> None:
        if sock.poll() & WRITABLE and not connected.done():
            connected.set_result(None)

    def wake(events: int) -> bool:
        runtime.defer(check)
        return True

    entry = WaitEntry(wake)
    sock.wq.add(entry)
    try:
        runtime.call(sock.connect, addr, port)
    except BlockingIOError:
        check()
        await connected
        runtime.call(sock.connect, addr, port)  # reports how it ended
    finally:
        sock.wq.remove(entry)


async def _resolve(host: str | None) -> int:
    """Look up ``host``; a name that needs the C library's resolver is asked for in a thread."""
    if host is None or host == "" or host.replace(".", "").isdigit():
        return resolve_host(host)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, resolve_host, host)
