"""Socket options of listeners: TCP_DEFER_ACCEPT, TCP_FASTOPEN, TCP_FASTOPEN_KEY.

They may be set before listen(), which then finds them in ``sk.listen``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from ustack.lib.socket_error import socket_error
from ustack.tcp.fastopen import TCP_FASTOPEN_KEY_LENGTH, FastopenContext, FastopenQueue
from ustack.tcp.listen import listen_queues
from ustack.tcp.rtt import TCP_RTO_MAX_US, TCP_TIMEOUT_INIT_US
from ustack.tcp.states import TCP_CLOSE, TCP_LISTEN

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

IPPROTO_TCP = 6
TCP_DEFER_ACCEPT = 9
TCP_FASTOPEN = 23
TCP_FASTOPEN_KEY = 33

TIMEOUT_INIT_S = TCP_TIMEOUT_INIT_US // 1_000_000
RTO_MAX_S = TCP_RTO_MAX_US // 1_000_000


def secs_to_retrans(seconds: int) -> int:
    """Return how many SYN-ACK timeouts last at least ``seconds``, 255 at most."""
    count = 0
    while retrans_to_secs(count) < seconds and count < 255:
        count += 1
    return count


def retrans_to_secs(count: int) -> int:
    """Return how many seconds ``count`` SYN-ACK timeouts last."""
    return sum([min(TIMEOUT_INIT_S << i, RTO_MAX_S) for i in range(count)])


def set_defer_accept(sk: TcpSock, seconds: int) -> None:
    """Wait for data before a connection may be accepted (TCP_DEFER_ACCEPT)."""
    listen_queues(sk).defer_accept = secs_to_retrans(seconds)


def defer_accept(sk: TcpSock) -> int:
    """Return TCP_DEFER_ACCEPT in seconds, rounded up as it was taken."""
    return retrans_to_secs(sk.listen.defer_accept) if sk.listen is not None else 0


def set_fastopen(sk: TcpSock, qlen: int) -> None:
    """Let ``qlen`` connections run ahead of their handshake (TCP_FASTOPEN), 0: none.

    Raises:
        OSError: EINVAL, a negative length, or the socket is connected.
    """
    if qlen < 0 or sk.tp.state not in (TCP_CLOSE, TCP_LISTEN):
        raise socket_error(errno.EINVAL)
    _fastopen_queue(sk).max_qlen = min(qlen, sk.prot.somaxconn)


def fastopen(sk: TcpSock) -> int:
    """Return TCP_FASTOPEN."""
    queue = sk.listen.fastopen if sk.listen is not None else None
    return queue.max_qlen if queue is not None else 0


def set_fastopen_key(sk: TcpSock, value: int | bytes) -> None:
    """Give a listener one or two keys of its own (TCP_FASTOPEN_KEY).

    Raises:
        OSError: EINVAL, not 16 or 32 bytes, or the socket is connected.
    """
    sizes = (TCP_FASTOPEN_KEY_LENGTH, 2 * TCP_FASTOPEN_KEY_LENGTH)
    if not isinstance(value, bytes) or len(value) not in sizes:
        raise socket_error(errno.EINVAL)
    if sk.tp.state not in (TCP_CLOSE, TCP_LISTEN):
        raise socket_error(errno.EINVAL)
    context = FastopenContext("0-0-0-0", sk.prot.rng)
    context.set_keys(value)
    _fastopen_queue(sk).context = context


def fastopen_key(sk: TcpSock) -> bytes:
    """Return the keys of a listener's cookies."""
    queue = sk.listen.fastopen if sk.listen is not None else None
    context = queue.context if queue is not None else None
    return b"".join((context or sk.prot.fastopen).keys)


def _fastopen_queue(sk: TcpSock) -> FastopenQueue:
    queues = listen_queues(sk)
    if queues.fastopen is None:
        queues.fastopen = FastopenQueue(0)
    return queues.fastopen


SETTERS: dict[tuple[int, int], Callable[[TcpSock, int], None]] = {
    (IPPROTO_TCP, TCP_DEFER_ACCEPT): set_defer_accept,
    (IPPROTO_TCP, TCP_FASTOPEN): set_fastopen,
}
GETTERS: dict[tuple[int, int], Callable[[TcpSock], int]] = {
    (IPPROTO_TCP, TCP_DEFER_ACCEPT): defer_accept,
    (IPPROTO_TCP, TCP_FASTOPEN): fastopen,
}
