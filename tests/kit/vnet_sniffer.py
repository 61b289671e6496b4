"""Run as a program in a namespace: writes every frame of a device with its struct virtio_net_hdr.

``python vnet_sniffer.py DEVICE FILE``. An AF_PACKET socket with PACKET_VNET_HDR shows how the
kernel understood what came in through the TAP: checksum still to do, how to cut it. Each record
is a 4-byte length and the header with the frame behind it. Prints "ready", ends on SIGTERM.
"""

from __future__ import annotations

import signal
import socket
import struct
import sys
from pathlib import Path

SOL_PACKET, PACKET_VNET_HDR = 263, 15
ETH_P_ALL = 3
SO_RCVBUFFORCE = 33


def records(path: Path) -> list[bytes]:
    """Read back what the program wrote: header and frame of each record."""
    data = path.read_bytes()
    out, at = [], 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        out.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return out


def main(device: str, path: str) -> None:
    """Sniff until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sniffer, open(path, "wb") as file:
        sniffer.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        sniffer.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
        sniffer.bind((device, ETH_P_ALL))
        print("ready", flush=True)
        while True:
            unit = sniffer.recv(1 << 17)
            file.write(struct.pack("<I", len(unit)) + unit)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
