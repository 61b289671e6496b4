"""What lies unread in Unix sockets, by inode: one question to the kernel (sock_diag(7)).

The bytes between the daemon and a client are in the receive queues of a socketpair, and only
its reader could ask for them with SIOCINQ; ``ss -x`` asks the same way as we do here.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
UDIAG_SHOW_RQLEN = 0x10
UNIX_DIAG_RQLEN = 4
ALL_STATES = 0xFFFFFFFF
HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr."""
QUESTION = struct.Struct("=BBHIIIII")
"""struct unix_diag_req."""
ANSWER = struct.Struct("=BBBBIII")
"""struct unix_diag_msg; attributes follow."""
ATTRIBUTE = struct.Struct("=HH")


def unread_bytes() -> dict[int, int]:
    """Return the bytes in the receive queue of every Unix socket that has some.

    Raises:
        OSError: the kernel has no unix_diag.
    """
    found: dict[int, int] = {}
    question = QUESTION.pack(
        socket.AF_UNIX, 0, 0, ALL_STATES, 0, UDIAG_SHOW_RQLEN, 0xFFFFFFFF, 0xFFFFFFFF
    )
    header = HEADER.pack(
        HEADER.size + len(question), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
        netlink.send(header + question)
        while _read(netlink.recv(1 << 16), found):
            pass
    return found


def _read(data: bytes, found: dict[int, int]) -> bool:
    """Note a datagram's sockets; return whether there are more to come."""
    offset = 0
    while offset < len(data):
        length, kind, *_ = HEADER.unpack_from(data, offset)
        if kind == NLMSG_DONE:
            return False
        if kind == NLMSG_ERROR:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        _note(data[offset + HEADER.size : offset + length], found)
        offset += _aligned(length)
    return True


def _note(message: bytes, found: dict[int, int]) -> None:
    inode = ANSWER.unpack_from(message)[4]
    offset = ANSWER.size
    while offset + ATTRIBUTE.size <= len(message):
        length, kind = ATTRIBUTE.unpack_from(message, offset)
        if kind == UNIX_DIAG_RQLEN:
            (unread,) = struct.unpack_from("=I", message, offset + ATTRIBUTE.size)
            if unread:
                found[inode] = unread
        offset += max(_aligned(length), ATTRIBUTE.size)


def _aligned(length: int) -> int:
    return length + 3 & ~3
