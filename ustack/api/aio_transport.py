"""An asyncio transport over one connected core socket, on the inline runtime.

Text and the end of it come by the inbox while the protocol wants them. Of whatever else happens
the softirq tells by ``woken``, and the runtime calls ``_service``, which reads what is left and
sends what is buffered. Writing tries the socket at once and keeps only what it did not take;
flow control is asyncio's.
"""

from __future__ import annotations

import asyncio
import socket as _socket
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from ustack.api.aio_socket import TransportSocket
from ustack.api.names import api_address
from ustack.api.zerocopy import send_chunk
from ustack.sock.wait import EPOLLERR, EPOLLHUP, EPOLLOUT

if TYPE_CHECKING:
    from ustack.api.aio_server import StackServer
    from ustack.inet.sockets import InetSocket
    from ustack.runtime.inline import InlineRuntime

HIGH_WATER_BYTES = 64 * 1024
"""asyncio's own default for pause_writing."""
WRITABLE = EPOLLOUT | EPOLLERR | EPOLLHUP


class StackTransport(asyncio.Transport):
    """A connection; ``protocol`` may be a Protocol or a BufferedProtocol."""

    _start_tls_compatible = True

    __slots__ = (
        "__weakref__", "_addresses", "_buffered", "_closing", "_direct", "_eof_asked", "_eof_seen",
        "_held", "_high_bytes", "_low_bytes", "_protocol", "_protocol_paused", "_queued",
        "_reading", "_runtime", "_server", "_sock", "_unsent", "_unsent_bytes",
    )  # fmt: skip

    def __init__(
        self,
        runtime: InlineRuntime,
        sock: InetSocket,
        protocol: asyncio.BaseProtocol,
        addresses: tuple[tuple[int, int], tuple[int, int]],
        server: StackServer | None = None,
    ) -> None:
        """Make the transport of ``sock``, which is connected; ``start`` is to be called next.

        Args:
            addresses: its own and the peer's.
            server: which has accepted it.
        """
        self._runtime = runtime
        self._sock: InetSocket | None = sock
        self._server = server
        self._addresses = addresses
        self._unsent: deque[memoryview] | tuple[()] = ()
        self._unsent_bytes = 0
        self._high_bytes = HIGH_WATER_BYTES
        self._low_bytes = HIGH_WATER_BYTES // 4
        self._protocol_paused = False
        self._reading = True
        self._direct = False
        """What ``text_received`` is given goes on to the protocol at once."""
        self._held = b""
        """What it was given meanwhile; the rest is behind it, in the receive queue."""
        self._eof_seen = False
        self._eof_asked = False
        self._closing = False
        self._queued = False
        self._protocol: Any = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)
        if server is None:
            sock.set_reader(self)
        else:
            sock.set_first_reader(self)

    def __repr__(self) -> str:
        state = "closed" if self._sock is None else "closing" if self._closing else "open"
        local, peer = map(api_address, self._addresses)
        return f"<StackTransport {state} {local} -> {peer}>"

    def start(self, left: bool) -> None:
        """Tell the protocol that it is connected.

        Args:
            left: something may have come that the inbox will not tell of.
        """
        try:
            self._protocol.connection_made(self)
        except Exception as exc:
            self._fatal(exc, "protocol.connection_made() failed")
            return
        self._direct = self._reading and not self._buffered
        if not self._direct:
            self._choose_way()
        if left or self._held or self._buffered:
            self._queue_service()

    # Where it is and what carries it.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return ``peername``, ``sockname`` or ``socket`` (options only), else ``default``."""
        if name == "peername":
            return api_address(self._addresses[1])
        if name == "sockname":
            return api_address(self._addresses[0])
        if name == "socket" and self._sock is not None:
            return TransportSocket(self._runtime, self._sock)
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the connection to another protocol (as start_tls does)."""
        self._protocol = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)
        self._choose_way()

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the present protocol."""
        return self._protocol

    def is_closing(self) -> bool:
        """Whether close() or abort() was called, or the connection is gone."""
        return self._closing

    # Being woken.

    def woken(self, events: int) -> bool:
        """Something has changed that the inbox does not tell (``InetSocket.set_reader``)."""
        self._queue_service()
        return True

    def _queue_service(self) -> None:
        if not self._queued:
            self._queued = True
            self._runtime.defer(self._service)

    def _service(self) -> None:
        """Do what the socket is ready for; the runtime calls this after a poll."""
        self._queued = False
        sock = self._sock
        if sock is not None and (
            self._unsent or (self._protocol_paused and sock.poll() & EPOLLOUT)
        ):
            self._send_unsent()
        if self._reading and self._sock is not None:
            if self._held:
                self._deliver_held()
            elif self._sock.rcv_ready(1):
                self._receive()

    # Receiving.

    def text_received(self, text: bytes) -> None:
        """Take what has come, without having been woken (``InetSocket.set_reader``)."""
        if not self._direct or self._held:
            self._held += text
            self._queue_service()
            return
        try:
            self._protocol.data_received(text)
        except Exception as exc:
            self._fatal(exc, "the protocol failed on received data")

    def end_received(self) -> None:
        """There is no more text; the protocol is told behind what it has not had yet."""
        if self._direct and not self._held:
            self._receive_eof()
        else:
            self._queue_service()

    def _choose_way(self) -> None:
        """Have text handed over, or fetch it if it goes into the protocol's own buffer."""
        self._direct = self._reading and not self._buffered
        if self._sock is not None:
            self._sock.pause_reader(not self._direct)

    def _deliver_held(self) -> None:
        """Hand on what came at the wrong moment, then what is behind it."""
        text = self._held
        try:
            if self._buffered:
                buffer = memoryview(self._protocol.get_buffer(-1)).cast("B")
                n = min(len(buffer), len(text))
                buffer[:n], self._held = text[:n], text[n:]
                self._protocol.buffer_updated(n)
            else:
                self._held = b""
                self._protocol.data_received(text)
        except Exception as exc:
            self._fatal(exc, "the protocol failed on received data")
            return
        self._queue_service()

    def is_reading(self) -> bool:
        """Whether data goes to the protocol as it comes."""
        return self._reading and not self._eof_seen

    def pause_reading(self) -> None:
        """Leave received data in the socket, whose window then closes."""
        self._reading = False
        self._choose_way()

    def resume_reading(self) -> None:
        """Deliver data again, also what has come meanwhile."""
        if self._closing or self._reading or self._eof_seen:
            return
        self._reading = True
        self._choose_way()
        self._queue_service()

    def _receive(self) -> None:
        """Read once, up to a buffer's worth, and come back if there is more."""
        sock = self._sock
        if sock is None:
            return
        try:
            n = self._receive_buffered(sock) if self._buffered else self._receive_bytes(sock)
        except BlockingIOError:
            return
        except OSError as exc:
            self._fatal(exc, "receiving failed")
            return
        except Exception as exc:
            self._fatal(exc, "the protocol failed on received data")
            return
        if n == 0:
            self._receive_eof()
        elif self._reading and self._sock is not None and self._sock.rcv_ready(1):
            self._queue_service()

    def _receive_bytes(self, sock: InetSocket) -> int:
        buffer = self._runtime.read_buffer
        n = sock.recv_into(buffer)
        if n:
            self._protocol.data_received(bytes(buffer[:n]))
        return n

    def _receive_buffered(self, sock: InetSocket) -> int:
        buffer = self._protocol.get_buffer(-1)
        if not len(buffer):
            raise RuntimeError("get_buffer() returned an empty buffer")
        n = sock.recv_into(buffer)
        if n:
            self._protocol.buffer_updated(n)
        return n

    def _receive_eof(self) -> None:
        self._reading = False
        self._eof_seen = True
        try:
            keep_open = self._protocol.eof_received()
        except Exception as exc:
            self._fatal(exc, "protocol.eof_received() failed")
            return
        if not keep_open:
            self.close()

    # Sending.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``, keeping a copy of what the socket does not take now."""
        if self._eof_asked:
            raise RuntimeError("Cannot call write() after write_eof()")
        sock = self._sock
        if sock is None or self._closing or not data:
            return
        if not self._unsent:
            runtime = self._runtime
            if runtime.is_running:
                runtime.answered = True
                n = sock.send_soon(data, self)
                if n and n == len(data):
                    return
                runtime.send_posted()
                data = memoryview(data).cast("B")[n:] if n else data
        self._send_or_keep(data)

    def _send_or_keep(self, data: bytes | bytearray | memoryview) -> None:
        """Send what the socket takes of ``data`` now, behind what is kept; keep the rest."""
        sock, n = self._sock, 0
        if sock is None:
            return
        if not self._unsent:
            runtime = self._runtime
            try:
                n = sock.send(data) if runtime.is_running else runtime.call(sock.send, data)
            except BlockingIOError:
                pass
            except OSError as exc:
                self._fatal(exc, "sending failed")
                return
            if n == len(data) and not (type(data) is memoryview and data.nbytes != n):
                return
        rest = memoryview(data).cast("B")[n:]
        self._keep(rest if type(data) is bytes else memoryview(bytes(rest)))

    def text_left(self, text: bytes) -> None:
        """Send what could not go together with others' texts (``InetSocket.post``)."""
        self._send_or_keep(text)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send several pieces as one."""
        self.write(b"".join(list_of_data))

    def send_file(self, fd: int, offset: int, count: int) -> int | None:
        """Queue a part of a file without a copy at the socket (tcp_sendpage).

        Returns:
            How many bytes, at most ``count``; 0 at the end of the file. None if there is no
            room now: the protocol has been paused, and asks again when it is resumed.
        """
        sock = self._sock
        if sock is None or self._closing or self._eof_asked:
            return None
        try:
            if not self._unsent:
                return self._runtime.call(send_chunk, sock, fd, offset, count)
        except BlockingIOError:
            pass
        except OSError as exc:
            self._fatal(exc, "sending failed")
            return None
        if not self._protocol_paused:
            self._protocol_paused = True
            self._tell(self._protocol.pause_writing, "protocol.pause_writing() failed")
        return None

    def can_write_eof(self) -> bool:
        """TCP can: return True."""
        return True

    def write_eof(self) -> None:
        """Send FIN behind what is buffered; receiving goes on."""
        if self._closing or self._eof_asked:
            return
        self._runtime.send_posted()
        self._eof_asked = True
        if not self._unsent:
            self._shutdown_write()

    def _keep(self, rest: memoryview) -> None:
        if rest.nbytes:
            self._unsent = self._unsent or deque()
            self._unsent.append(rest)
            self._unsent_bytes += rest.nbytes
            self._pause_protocol_if_full()

    def _send_unsent(self) -> None:
        """Send what is buffered as far as the socket takes it (it has just become writable)."""
        sock, unsent = self._sock, self._unsent
        while unsent and sock is not None:
            piece = unsent[0]
            try:
                n = self._runtime.call(sock.send, piece)
            except BlockingIOError:
                break
            except OSError as exc:
                self._fatal(exc, "sending failed")
                return
            self._unsent_bytes -= n
            if n < piece.nbytes:
                unsent[0] = piece[n:]
                break
            unsent.popleft()
        self._resume_protocol_if_drained()
        if unsent or self._sock is None:
            return
        if self._closing:
            self._detach(None)
        elif self._eof_asked:
            self._shutdown_write()

    def _shutdown_write(self) -> None:
        if self._sock is None:
            return
        try:
            self._runtime.call(self._sock.shutdown, _socket.SHUT_WR)
        except OSError as exc:
            self._fatal(exc, "shutdown failed")

    # Flow control of the protocol's writing.

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the socket has not yet taken."""
        self._runtime.send_posted()
        return self._unsent_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return (low, high) water in bytes."""
        return self._low_bytes, self._high_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when the protocol is paused and resumed, in bytes, with asyncio's defaults."""
        if high is None:
            high = HIGH_WATER_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high_bytes, self._low_bytes = high, low
        self._pause_protocol_if_full()

    def _pause_protocol_if_full(self) -> None:
        if self._unsent_bytes > self._high_bytes and not self._protocol_paused:
            self._protocol_paused = True
            self._tell(self._protocol.pause_writing, "protocol.pause_writing() failed")

    def _resume_protocol_if_drained(self) -> None:
        if self._protocol_paused and self._unsent_bytes <= self._low_bytes:
            self._protocol_paused = False
            self._tell(self._protocol.resume_writing, "protocol.resume_writing() failed")

    # The end.

    def close(self) -> None:
        """Send what is buffered, then close; the protocol hears of it by connection_lost."""
        if self._closing:
            return
        self._runtime.send_posted()
        self._closing = True
        self._reading = False
        if not self._unsent:
            self._detach(None)
        else:
            self._choose_way()

    def abort(self) -> None:
        """Close without sending what is buffered."""
        self._force_close(None)

    def _fatal(self, exc: Exception, message: str) -> None:
        """End the connection; what the network did is no news, the protocol's bugs are."""
        if not isinstance(exc, OSError):
            self._report(exc, message)
        self._force_close(exc)

    def _force_close(self, exc: Exception | None) -> None:
        """End the connection at once; asyncio's SSLProtocol calls it by this name."""
        self._closing = True
        self._reading = False
        self._unsent = ()
        self._unsent_bytes = 0
        self._detach(exc)

    def _detach(self, exc: Exception | None) -> None:
        """Close the socket now, tell the protocol in the loop's next turn."""
        sock = self._sock
        if sock is None:
            return
        self._sock = None
        runtime = self._runtime
        if runtime.is_running:
            runtime.send_posted()
            sock.close(unread=bool(self._held))
        else:
            runtime.call(partial(sock.close, unread=bool(self._held)))
        runtime.loop.call_soon(self._connection_lost, exc)

    def _connection_lost(self, exc: Exception | None) -> None:
        try:
            self._protocol.connection_lost(exc)
        except Exception as bug:
            self._report(bug, "connection_lost() failed")
        finally:
            self._protocol = None  # which has us, too
            if self._server is not None:
                self._server.detach(self)
                self._server = None

    def _tell(self, callback: Any, message: str) -> None:
        try:
            callback()
        except Exception as exc:
            self._report(exc, message)

    def _report(self, exc: Exception, message: str) -> None:
        self._runtime.loop.call_exception_handler(
            {"message": message, "exception": exc, "transport": self, "protocol": self._protocol}
        )
