"""A wire of descriptors that needs no TAP: a pair of Unix sockets that keep units apart."""

from __future__ import annotations

import socket

from ustack.nic.wire import VNET_CSUM, VNET_TSO4, Wire

BUFFER_BYTES = 1 << 22


class SeqpacketWire(Wire):
    """One end of a pair, read and written by the device itself."""

    features = VNET_CSUM | VNET_TSO4

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        self.end = end
        self.dma_fd = end.fileno()

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.dma_fd

    def close(self) -> None:
        """Close it."""
        self.end.close()


def seqpacket_pair() -> tuple[SeqpacketWire, SeqpacketWire]:
    """Return both ends of a new wire."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return SeqpacketWire(near), SeqpacketWire(far)
