"""The messages of socket calls between a client process and ustackd, in binary.

``ustack_c/preload/ustack_proto.h`` says what they mean; both sides of the daemon's socket
pack and read them here, a client in C by the header.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

MAGIC = 0x75
VERSION = 2
MAX_DATA = 2048
KEY_BYTES = 8
NAME = b"\0ustack."
"""How the names of the daemon's ends begin, abstract ones: a socket of ours is known by it."""
(
    CONNECTED_PRIORITY, NEW_PRIORITY, LISTENER_PRIORITY, READ_SHUT_PRIORITY, ORPHAN_PRIORITY,
) = range(5)  # fmt: skip
"""SO_PRIORITY of a stream's descriptor: what its client has told it to do, for all to see."""
REQUEST = struct.Struct("=BBHiii4s2sH")
REPLY = struct.Struct("=ii4s2sH")
ACCEPTED = struct.Struct(">IIHH8s")
DATAGRAM = struct.Struct("=4s2sBBI12s")
MAX_REQUEST_BYTES = REQUEST.size + 0xFFFF

(
    HELLO, SOCKET, BIND, LISTEN, CONNECT, SHUTDOWN,
    GETSOCKNAME, GETPEERNAME, SETSOCKOPT, GETSOCKOPT, IOCTL, SENDOOB,
    DISCONNECT, SENDMSG, RECVERR, FASTOPEN, LINGER, RECV, TELL,
) = range(19)  # fmt: skip
SURE_OPTIONS = frozenset(
    (
        (int(socket.IPPROTO_TCP), int(socket.TCP_NODELAY)),
        (int(socket.SOL_SOCKET), int(socket.SO_KEEPALIVE)),
    )
)
"""What TELL may set: any number is right, whatever the connection's state."""
HAS_ADDRESS, HAS_PKTINFO, HAS_TTL, HAS_TOS, HAS_MORE = 1, 2, 4, 8, 16
HAS_ERROR = 128
IPPROTO_IP, IP_TOS, IP_TTL, IP_PKTINFO = 0, 1, 2, 8

Address = tuple[int, int]
Ancillary = tuple[int, int, bytes]


class Call(NamedTuple):
    """One request; addresses and ports as numbers."""

    op: int
    level: int = 0
    name: int = 0
    value: int = 0
    addr: int = 0
    port: int = 0
    data: bytes = b""


class Answer(NamedTuple):
    """What a call gives, besides the descriptor of a new socket."""

    value: int = 0
    addr: int = 0
    port: int = 0
    data: bytes = b""


def pack_call(call: Call) -> bytes:
    """Return the message that asks for ``call``."""
    fixed = REQUEST.pack(
        MAGIC, VERSION, call.op, call.level, call.name, call.value,
        *pack_address(call.addr, call.port), len(call.data),
    )  # fmt: skip
    return fixed + call.data


def parse_call(message: bytes) -> Call:
    """Read one request.

    Raises:
        OSError: EPROTO, it is none of this version.
    """
    if REQUEST.size <= len(message) <= MAX_REQUEST_BYTES:
        magic, version, op, level, name, value, addr, port, length = REQUEST.unpack_from(message)
        data = message[REQUEST.size :]
        if (magic, version, length) == (MAGIC, VERSION, len(data)):
            return Call(op, level, name, value, *unpack_address(addr, port), data)
    raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))


def pack_answer(error: int, answer: Answer) -> bytes:
    """Return the message that carries an answer; ``error`` is an errno or 0."""
    address = pack_address(answer.addr, answer.port)
    return REPLY.pack(error, answer.value, *address, len(answer.data)) + answer.data


def parse_answer(message: bytes) -> Answer:
    """Read an answer.

    Raises:
        OSError: the one that it carries; EPROTO, it is none.
    """
    if len(message) < REPLY.size:
        raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
    error, value, addr, port, length = REPLY.unpack_from(message)
    if error:
        raise OSError(error, os.strerror(error))
    return Answer(value, *unpack_address(addr, port), message[REPLY.size :][:length])


def pack_address(addr: int, port: int) -> tuple[bytes, bytes]:
    """Return address and port in network order."""
    return addr.to_bytes(4, "big"), port.to_bytes(2, "big")


def unpack_address(addr: bytes, port: bytes) -> tuple[int, int]:
    """Return what ``pack_address`` packed."""
    return int.from_bytes(addr, "big"), int.from_bytes(port, "big")


class DatagramHeader(NamedTuple):
    """What stands before a datagram in the pair."""

    address: Address | None = None
    """From whom, or to whom it is; None: to the peer."""
    ancillary: Sequence[Ancillary] = ()
    """IP_PKTINFO, IP_TTL and IP_TOS, as recvmsg() gives and sendmsg() takes them."""
    has: int = 0
    """HAS_MORE; HAS_ERROR: it is no datagram, but a hint to ask for SO_ERROR."""


ERROR_HINT = DATAGRAM.pack(b"", b"", HAS_ERROR, 0, 0, b"")


def pack_datagram(header: DatagramHeader) -> bytes:
    """Return the bytes that stand before a datagram."""
    has, tos, ttl, pktinfo = header.has, 0, 0, b""
    for _, kind, value in header.ancillary:
        if kind == IP_PKTINFO:
            has, pktinfo = has | HAS_PKTINFO, value
        elif kind == IP_TTL:
            has, ttl = has | HAS_TTL, int.from_bytes(value, "little")
        elif kind == IP_TOS:
            has, tos = has | HAS_TOS, value[0]
    if header.address is not None:
        has |= HAS_ADDRESS
    return DATAGRAM.pack(*pack_address(*header.address or (0, 0)), has, tos, ttl, pktinfo)


def parse_datagram(message: Any) -> DatagramHeader:
    """Read what stands before a datagram.

    Raises:
        struct.error: the message is too short for it.
    """
    addr, port, has, tos, ttl, pktinfo = DATAGRAM.unpack_from(message)
    ancillary = []
    if has & HAS_PKTINFO:
        ancillary.append((IPPROTO_IP, IP_PKTINFO, pktinfo))
    if has & HAS_TTL:
        ancillary.append((IPPROTO_IP, IP_TTL, struct.pack("I", ttl)))
    if has & HAS_TOS:
        ancillary.append((IPPROTO_IP, IP_TOS, bytes([tos])))
    address = unpack_address(addr, port) if has & HAS_ADDRESS else None
    return DatagramHeader(address, ancillary, has)


def rights(fd: int) -> list[tuple[int, int, bytes]]:
    """Return the ancillary data that passes descriptor ``fd`` on; none if it is negative."""
    if fd < 0:
        return []
    return [(int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS), struct.pack("i", fd))]


def rights_in(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with a message; they are the caller's to close."""
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
