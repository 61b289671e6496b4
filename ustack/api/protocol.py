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
from typing import NamedTuple

MAGIC = 0x75
VERSION = 1
MAX_DATA = 1024
NAME = b"\0ustack."
"""How the names of the daemon's ends begin, abstract ones: a socket of ours is known by it."""
REQUEST = struct.Struct("=BBHiii4s2sH")
REPLY = struct.Struct("=ii4s2sH")
ACCEPTED = struct.Struct("=4s4s2s2s")
MAX_REQUEST_BYTES = REQUEST.size + MAX_DATA

(
    HELLO, SOCKET, BIND, LISTEN, CONNECT, SHUTDOWN,
    GETSOCKNAME, GETPEERNAME, SETSOCKOPT, GETSOCKOPT, IOCTL, SENDOOB,
) = range(12)  # fmt: skip


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
