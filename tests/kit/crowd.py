"""Very many peers at the other end of a wire in memory, and the stack they talk to.

For the bench and the tests of memory: each peer is a number, its segments are made when they
are sent, and nothing of it is kept. Time is virtual: ``BATCH`` connections are opened every
``BATCH_US``, because what idles must be seen to idle.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from ustack.config import StackConfig, UstackConfig
from ustack.lib.addresses import Ipv4Interface, parse_ipv4
from ustack.native.lib import lib
from ustack.nic.pair import wire_pair
from ustack.stack import Stack

SERVER = parse_ipv4("10.0.0.1")
FIRST_PEER = parse_ipv4("10.1.0.0")
MAC = bytes.fromhex("020000000001")
PORT = 80
PORTS = 60_000
"""Peers of one address."""
ISS = 1000
BATCH = 50
BATCH_US = 10_000
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
SYN_OPTIONS = bytes((2, 4, 1460 >> 8, 1460 & 0xFF, 4, 2, 1, 3, 3, 7, 1, 1))
DATA_VALID = b"\2" + bytes(9)


class Crowd:
    """A listening stack, and peers that are told apart by their numbers."""

    def __init__(self, arena_bytes: int = 256 << 20, live_socks: int = 1024) -> None:
        config = StackConfig(ustack=UstackConfig(tcp_live_socks=live_socks))
        core = replace(config.core, arena_bytes=arena_bytes, somaxconn=65535)
        self.now_us = 1
        wire, self._wire = wire_pair()
        self.stack = Stack(replace(config, core=core), rng=random.Random(1), now_us=1)
        self._dev = self.stack.add_igb(wire, address=Ipv4Interface(SERVER, 8))
        self.listener: Any = None
        self.listen()

    def listen(self) -> None:
        """Listen, or do so anew: whoever has not been accepted is lost with the old listener."""
        if self.listener is not None:
            self.listener.close()
        self.listener = self.stack.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(0, PORT)
        self.listener.listen(65535)

    def poll(self, us: int = BATCH_US // 2) -> None:
        """Let ``us`` microseconds pass and the stack do all that it has to do."""
        self.now_us += us
        while self.stack.poll(self.now_us):
            pass
        self._answer_arp()

    def wait(self, us: int) -> None:
        """Let time pass, timer by timer."""
        end_us = self.now_us + us
        while (due := self.stack.next_deadline_us()) is not None and due <= end_us:
            self.poll(max(due - self.now_us, 0))
        self.poll(end_us - self.now_us)

    def _answer_arp(self) -> None:
        waiting = [bytes(unit) for unit in iter(self._wire.recv_frame, None)]
        self._heard = [unit for unit in waiting if unit[22:24] == b"\x08\x00"]
        for unit in waiting:
            if unit[22:24] == b"\x08\x06":
                sender, target = unit[38:42], unit[48:52]
                reply = struct.pack(">HHBBH", 1, 0x800, 6, 4, 2) + MAC + target
                reply += unit[16:22] + sender
                self._wire.send_frame(bytes(10) + unit[16:22] + MAC + b"\x08\x06" + reply)
        if len(waiting) != len(self._heard):
            heard = self._heard
            self.poll(1)
            self._heard = heard + self._heard

    def heard(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield (peer, flags, seq, ack) of the segments that the last ``poll`` sent."""
        for unit in self._heard:
            ihl = (unit[24] & 15) * 4
            _, port, seq, ack, flags = struct.unpack_from(">HHIIxB", unit, 24 + ihl)
            yield self.number(int.from_bytes(unit[40:44], "big"), port), flags, seq, ack

    def send(self, peer: int, flags: int, seq: int, ack: int, data: bytes = b"") -> None:
        """Have ``peer`` send a segment; timestamps are always in it."""
        tsval = 1000 + self.now_us // 1000 & 0xFFFF_FFFF
        options = struct.pack(">BBBBII", 1, 1, 8, 10, tsval, 0)
        if flags & SYN:
            options = SYN_OPTIONS + options
        saddr, sport = FIRST_PEER + peer // PORTS, 1024 + peer % PORTS
        offset = (20 + len(options)) // 4 << 4
        tcp = struct.pack(">HHIIBBHHH", sport, PORT, seq, ack, offset, flags, 65535, 0, 0)
        tcp += options + data
        ip = struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0, saddr, SERVER)
        self._wire.send_frame(
            DATA_VALID
            + self._dev.dev_addr
            + MAC
            + b"\x08\0"
            + ip[:10]
            + _checksum(ip)
            + ip[12:]
            + tcp
        )

    def open(self, peers: Iterable[int]) -> None:
        """Connect peers."""
        for some in _batches(peers):
            for peer in some:
                self.send(peer, SYN, ISS, 0)
            self.poll()
            for peer, flags, seq, _ in self.heard():
                if flags & SYN:
                    self.send(peer, ACK, ISS + 1, seq + 1)
            self.poll()

    def knock(self, peers: Iterable[int]) -> None:
        """Send SYNs that nothing follows."""
        for some in _batches(peers):
            for peer in some:
                self.send(peer, SYN, ISS, 0)
            self.poll()

    def accept_all(self, each: Callable[[Any], None] | None = None) -> int:
        """Accept whoever waits; return how many."""
        count = 0
        while True:
            try:
                sock = self.listener.accept()
            except BlockingIOError:
                return count
            count += 1
            if each is not None:
                each(sock)

    @staticmethod
    def number(addr: int, port: int) -> int:
        """Return the peer with this address and port."""
        return (addr - FIRST_PEER) * PORTS + port - 1024

    def block(self, peer: int) -> Any:
        """Return the control block of a peer's connection."""
        fast = self.stack.tcp.fast.ptr
        key = (SERVER, PORT, FIRST_PEER + peer // PORTS, 1024 + peer % PORTS)
        return lib.us_tcp_sock_at(fast, lib.us_tcp_lookup(fast, *key))

    def tell(
        self,
        peers: Iterable[int],
        flags: int,
        data: bytes = b"",
        *,
        ahead: int = 0,
        unheard: int = 0,
    ) -> None:
        """Have peers send what comes next, everything acknowledged.

        Args:
            ahead: bytes that are missing before it.
            unheard: bytes that are not acknowledged.
        """
        for some in _batches(peers):
            for peer in some:
                tp = self.block(peer)
                self.send(peer, flags, tp.rcv_nxt + ahead, tp.snd_nxt - unheard, data)
            self.poll()


def _batches(peers: Iterable[int]) -> Iterator[list[int]]:
    everybody = list(peers)
    return (everybody[i : i + BATCH] for i in range(0, len(everybody), BATCH))


def _checksum(header: bytes) -> bytes:
    total = sum(struct.unpack(">10H", header))
    total = (total >> 16) + (total & 0xFFFF)
    return struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF)


def rss_bytes() -> int:
    """Return the memory of this process that is in RAM, Python included."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * 4096
