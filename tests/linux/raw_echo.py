"""Run as a program in a namespace: an echo request in fragments of our own making.

``raw_echo.py TAP SEED SIZE MTU``: sends the fragments of one request in an order that the
seed says, some twice; prints whether the reply is right.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from kit.checksum import checksum
from kit.fragments import fragment, join

ETH_P_IP = 0x0800
HOST, STACK = 0x0A000001, 0x0A000002


def neighbour(tap: str) -> bytes:
    """Return the stack's MAC address, asking the kernel's ARP for it.

    The datagram that makes the kernel ask is refused; the refusal is awaited, for else
    it could arrive among the echo reply's fragments.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(60)
        asker.connect(("10.0.0.2", 9))
        asker.send(b"")
        with contextlib.suppress(ConnectionRefusedError):
            asker.recv(1)
    for _ in range(6000):
        for line in Path("/proc/net/arp").read_text().splitlines():
            words = line.split()
            if words[0] == "10.0.0.2" and words[5] == tap and words[2] == "0x2":
                return bytes.fromhex(words[3].replace(":", ""))
        time.sleep(0.01)
    raise SystemExit("the stack does not answer ARP")


def main(tap: str, seed: int, size: int, mtu: int) -> None:
    """Send one request and read its reply."""
    rng = random.Random(seed)
    payload = rng.randbytes(size)
    message = struct.pack(">BBHHH", 8, 0, 0, 0x4242, seed & 0xFFFF) + payload
    message = message[:2] + struct.pack(">H", checksum(message)) + message[4:]
    header = struct.pack(
        ">BBHHHBBHII", 0x45, 0, 20 + len(message), 1000 + seed, 0, 64, 1, 0, HOST, STACK
    )
    pieces = fragment(header + message, mtu)
    rng.shuffle(pieces)
    pieces = [p for n, p in enumerate(pieces[:-1]) for _ in range(1 + n % 2)] + pieces[-1:]
    mac = neighbour(tap)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
    wire.bind((tap, ETH_P_IP))
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    wire.settimeout(60)
    ours = wire.getsockname()[4]
    for piece in pieces:
        wire.send(mac + ours + struct.pack(">H", ETH_P_IP) + piece)
    got: list[bytes] = []
    while sum(len(p) - 20 for p in got) < len(message):
        packet = wire.recv(70_000)[14:]
        packet = packet[: struct.unpack_from(">H", packet, 2)[0]]
        if packet[9] == 1 and packet[12:16] == struct.pack(">I", STACK):
            got.append(packet)
    reply = join(got)
    assert reply[0] == 0 and checksum(reply) == 0 and reply[4:] == message[4:]
    print(f"{len(pieces)} fragments sent, {len(got)} received: right")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
