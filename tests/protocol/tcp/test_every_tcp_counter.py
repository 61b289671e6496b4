"""Every counter and drop reason of TCP, with the packets that raise it and by how much.

A counter or reason that has no script here fails, and so does a script that misses.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest

from kit.ack_clock import AckClock
from kit.flight import Flight
from kit.host import TEST_CONFIG, Host, host
from kit.md5 import tcp_md5sig
from kit.peer import PEER_MAC, Peer
from kit.segment import build_ip, pattern
from ustack.config import LINUX_310, TcpConfig
from ustack.core.sysctl import sysctl_write
from ustack.lib.addresses import ETH_BROADCAST, parse_ipv4
from ustack.lib.counters import TcpExtMib, TcpMib, UstackMib
from ustack.lib.drop_reason import DropReason
from ustack.sock.wait import EPOLLIN
from ustack.tcp.fastopen import tcp_fastopen_cookie_gen
from ustack.tcp.listen_options import IPPROTO_TCP, TCP_DEFER_ACCEPT, TCP_FASTOPEN
from ustack.tcp.md5 import TCP_MD5SIG
from ustack.wire.ipv4 import build_ipv4

SECOND = 1_000_000
SOL_SOCKET, SO_KEEPALIVE = 1, 9
KEY = b"secret"
SACK = "mss 1460,nop,nop,sackOK"
TS = "mss 1460,sackOK,TS val 1000 ecr 0"
Script = Callable[[Host], object]


# How connections come about.


def md5_says(ours: bytes | None, theirs: bytes | None) -> Script:
    """A peer's SYN reaches a listener that may have its key, signed with this one."""

    def script(h: Host) -> None:
        lsk = h.listen()
        if ours is not None:
            lsk.setsockopt(IPPROTO_TCP, TCP_MD5SIG, tcp_md5sig("10.0.0.1", ours))
        peer = h.peer()
        peer.md5_key = theirs
        peer.send("S 0:0(0) <nop,nop,md5>" if theirs is not None else "S 0:0(0)")

    return script


def opened(h: Host) -> None:
    """A peer opens a connection."""
    h.established()


def connects(h: Host) -> Peer:
    """We ask for a connection; nobody answers yet."""
    peer = h.peer(port=80, to=None)
    h.connect()
    peer.expect("S 0:0(0)")
    return peer


def wrong_answer(h: Host) -> None:
    """Our SYN is answered, but it is another that is acknowledged."""
    connects(h).send("S. 0:0(0) ack 77")


def sends_to_itself(h: Host) -> None:
    """Five bytes from one socket of the host to another, by the shortcut."""
    h.listen(80)
    sk = h.connect(h.addr)
    h.stack.redirect_sockmap(True)
    sk.send(b"hello")


def refused(h: Host) -> None:
    """Our SYN is answered with a reset."""
    connects(h).send("R. 0:0(0) ack 1")


def half_open(h: Host, options: str = "mss 1460") -> Peer:
    """A SYN is answered, the third ACK does not come."""
    h.listen()
    peer = h.peer()
    peer.send(f"S 0:0(0) <{options}>")
    peer.expect("S. 0:0(0) ack 1")
    return peer


def says(*lines: str, options: str = "mss 1460") -> Script:
    """The peer of an open connection says these lines."""

    def script(h: Host) -> None:
        _, peer = h.established(options)
        for line in lines:
            peer.send(line)

    return script


def half_open_says(*lines: str, options: str = "mss 1460") -> Script:
    """The peer of a half-open connection says these lines."""

    def script(h: Host) -> None:
        peer = half_open(h, options)
        for line in lines:
            peer.send(line)

    return script


def to_a_listener(line: str) -> Script:
    """A listener hears this from a stranger."""

    def script(h: Host) -> None:
        h.listen()
        peer = h.peer()
        peer.host_iss = 0
        peer.send(line)

    return script


def to_a_closed_port(h: Host) -> None:
    """A SYN arrives where nobody listens."""
    h.peer(to=81).send("S 0:0(0)")


def wrong_checksum(h: Host) -> None:
    """A SYN arrives damaged."""
    h.listen()
    h.peer().send("S 0:0(0)", checksum_ok=False)


def half_a_header(h: Host) -> None:
    """Ten bytes are no TCP header."""
    assert h.net is not None
    h.net.send_ip(build_ipv4(parse_ipv4("10.0.0.1"), h.addr, 6, 10) + bytes(10))
    h.settle()


def by_broadcast(h: Host) -> None:
    """A SYN for our IP address comes in a broadcast frame."""
    h.listen()
    peer = h.peer()
    assert h.net is not None
    packet = build_ip(peer.segment("S 0:0(0)"))
    h.net.send_frame(ETH_BROADCAST + PEER_MAC + b"\x08\x00" + packet)
    h.settle()


def from_afar(h: Host) -> None:
    """A SYN comes from where we have no route to."""
    h.listen()
    h.peer(addr="192.0.2.1").send("S 0:0(0)")


# Timestamps.


def old_timestamps(times: int) -> Script:
    """FINs with a timestamp from the past."""

    def script(h: Host) -> None:
        h.listen()
        peer = h.peer()
        peer.handshake(TS, ts="nop,nop,TS val 1000 ecr *")
        for _ in range(times):
            peer.send("F. 1:1(0) ack 1 <nop,nop,TS val 900 ecr *>")
            peer.drain()

    return script


def overtaken_ack(h: Host) -> None:
    """A pure ACK with an old number and a timestamp from the past."""
    h.listen()
    peer = h.peer()
    peer.handshake(TS, ts="nop,nop,TS val 1000 ecr *")
    peer.send("P. 1:11(10) ack 1 <nop,nop,TS val 1001 ecr *>")
    peer.send(". 1:1(0) ack 1 <nop,nop,TS val 900 ecr *>")


def acks_with_old_timestamps(h: Host) -> None:
    """Two pure ACKs, too old to have been overtaken: only the first is answered."""
    h.listen()
    peer = h.peer()
    peer.handshake(TS, ts="nop,nop,TS val 100000 ecr *")
    for _ in range(2):
        peer.send(". 1:1(0) ack 1 <nop,nop,TS val 900 ecr *>")


def ends_beyond_the_window(h: Host) -> None:
    """Something waits to be read, and the next segment ends beyond the window."""
    _, peer = h.established()
    tp = h.stack.tcp.ehash[(h.addr, 80, peer.addr, peer.port)].tp
    peer.send("P. 1:11(10) ack 1")
    at = 11 + tp.rcv_wnd - 10
    peer.send(f"P. {at}:{at + 20}(20) ack 1")


# Queues of a listener.


def accept_queue_is_full(h: Host) -> None:
    """A backlog of 0 holds one child; a second peer's SYN finds no place."""
    h.listen(backlog=0)
    h.peer().handshake()
    h.peer().send("S 0:0(0) <mss 1460>")


def syn_queue_is_full(h: Host) -> None:
    """A backlog of 0 holds one request; a second SYN finds no place."""
    h.listen(backlog=0)
    h.peer().send("S 0:0(0) <mss 1460>")
    h.peer().send("S 0:0(0) <mss 1460>")


def defers_accept(h: Host) -> None:
    """TCP_DEFER_ACCEPT lets a bare third ACK wait for data."""
    h.listen().setsockopt(IPPROTO_TCP, TCP_DEFER_ACCEPT, 1)
    h.peer().handshake()


def cookie_comes_back(ack: int) -> Script:
    """The SYN queue is full; the third ACK brings a cookie back, or a number beside it."""

    def script(h: Host) -> None:
        h.listen(backlog=0)
        h.peer().send("S 0:0(0) <mss 1460>")
        peer = h.peer()
        peer.send("S 0:0(0) <mss 1460>")
        peer.expect("S. 0:0(0) ack 1")
        peer.send(f". 1:1(0) ack {ack}")

    return script


def foreign_echo(h: Host) -> None:
    """The third ACK echoes a timestamp that was never sent."""
    h.listen()
    peer = h.peer()
    peer.send("S 0:0(0) <mss 1460,sackOK,TS val 1000 ecr 0>")
    peer.expect("S. 0:0(0) ack 1")
    peer.send(". 1:1(0) ack 1 <nop,nop,TS val 1001 ecr 77>")


# Fast Open.


def fast_open(cookie: bytes, times: int = 1, qlen: int = 5) -> Script:
    """SYNs with text and a cookie, or a request for one."""

    def script(h: Host) -> None:
        h.listen().setsockopt(IPPROTO_TCP, TCP_FASTOPEN, qlen)
        for _ in range(times):
            h.peer().send(f"S 0:5(5) <mss 1460,FO {cookie.hex()},nop,nop>")

    return script


def syn_data_is_swallowed(h: Host) -> None:
    """Nobody answers a SYN with text, nor any of those that follow without."""
    h.peer(port=80, to=None)
    h.socket().send_fastopen(b"hello", parse_ipv4("10.0.0.1"), 80)
    h.advance_us(5 * SECOND)


def fast_open_by_the_old_key(h: Host) -> None:
    """A cookie of the key that was in use before."""
    cookie = tcp_fastopen_cookie_gen(h.stack.tcp.fastopen, parse_ipv4("10.0.0.1"), h.addr)
    old = "-".join(f"{n:x}" for n in struct.unpack("<4I", h.stack.tcp.fastopen.keys[0]))
    config = sysctl_write(h.stack.config, "net.ipv4.tcp_fastopen_key", f"1-2-3-4,{old}")
    h.stack.set_config(config)
    fast_open(cookie)(h)


# Sending.


def in_flight(h: Host, segments: int = 10) -> tuple[Any, Peer]:
    """Segments of 1000 bytes are out, none acknowledged."""
    sk, peer = h.established("mss 1000,nop,wscale 7")
    sk.send(pattern(0, 1000 * segments))
    peer.expect_data(1, 1 + 1000 * segments)
    return sk, peer


def sends_three(h: Host) -> None:
    """Three segments go out."""
    in_flight(h, 3)


def delivers_three(h: Host) -> None:
    """Three segments go out and are acknowledged."""
    in_flight(h, 3)[1].send(". 1:1(0) ack 3001")


def fast_retransmit(h: Host) -> None:
    """Three duplicate ACKs repeat the first hole, a partial ACK the second."""
    _, peer = in_flight(h)
    for _ in range(5):
        peer.send(". 1:1(0) ack 1")
    peer.expect(". 1:1001(1000) ack 1")
    peer.send(". 1:1(0) ack 3001")
    peer.expect(". 3001:4001(1000) ack 1")


def small_write_behind_a_full_ring(h: Host) -> None:
    """More than the ring holds, at once, and then three bytes more."""
    sk, _ = h.established("mss 1000,nop,wscale 7", win=60_000)
    sk.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    sk._sk.tp.snd_cwnd = 500
    sk.send(bytes(255_000))
    sk.send(b"abc")


def ack_train(h: Host) -> None:
    """The ACKs of a round come 1 ms apart, for longer than half the RTT."""
    clock = AckClock("cubic", rtt_us=20_000, on=h)
    for _ in range(6):
        clock.advance_us(1000)
        clock.ack()
    clock.advance_us(20_000)
    while not clock.tp.bictcp.found:
        clock.advance_us(1000)
        clock.ack()


def rising_delay(h: Host) -> None:
    """The least RTT of a round is an eighth above the least ever."""
    clock = AckClock("cubic", rtt_us=80_000, on=h)
    for _ in range(3):
        clock.ack(10)
        clock.advance_us(80_000)
    while not clock.tp.bictcp.found:
        clock.advance_us(3000)
        clock.ack(rtt_us=91_000)


def timeout(h: Host) -> None:
    """One timeout repeats the first segment."""
    _, peer = in_flight(h)
    peer.expect(". 1:1001(1000) ack 1", within_us=5 * SECOND)


def slow_start_again(h: Host) -> None:
    """After a timeout an ACK lets two more segments be repeated."""
    _, peer = in_flight(h)
    peer.expect(". 1:1001(1000) ack 1", within_us=5 * SECOND)
    peer.send(". 1:1(0) ack 1001")
    assert sum(len(seg.payload) for seg in peer.drain()) == 2000


def silent_synack(h: Host) -> None:
    """The SYN-ACK is repeated once."""
    half_open(h)
    h.advance_us(1_500_000)


def connect_times_out(h: Host) -> None:
    """One SYN, no answer (tcp_syn_retries 0)."""
    connects(h)
    h.advance_us(2 * SECOND)


def probed(h: Host) -> None:
    """The peer closes its window and is probed once."""
    sk, peer = h.established("mss 1000", win=1000)
    sk.send(pattern(0, 3000))
    peer.expect_data(1, 1001)
    peer.send(". 1:1(0) ack 1001 win 0")
    peer.expect(". 1000:1000(0) ack 1", within_us=2 * SECOND)


def kept_alive(h: Host) -> None:
    """Two hours of silence."""
    sk, peer = h.established()
    sk.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
    peer.expect(". 0:0(0) ack 1", within_us=7_201 * SECOND)


# Receiving.


def dialogue(h: Host) -> None:
    """Question and answer, until a question is not answered."""
    sk, peer = h.established()
    at = 1
    for i in range(5):
        peer.send(f"P. {at}:{at + 10}(10) ack {1 + 5 * i}")
        at += 10
        sk.recv(100)
        sk.send(b"reply")
        peer.drain()
    peer.send(f"P. {at}:{at + 10}(10) ack 26")
    peer.expect(f". 26:26(0) ack {at + 10}", within_us=SECOND)


def window_closes(h: Host) -> tuple[Any, Peer, int]:
    """Nobody reads until our window is closed; the sequence number that would be next."""
    sk, peer = h.established()
    at, window = 1, 64_240
    while window:
        size = min(1000, window)
        peer.send(f"P. {at}:{at + size}({size}) ack 1")
        got = peer.drain()
        ack = got[-1] if got else peer.expect_next(within_us=SECOND)
        at += size
        assert ack.ack == (peer.iss + at) & 0xFFFFFFFF
        window = ack.window
    return sk, peer, at


def window_opens_again(h: Host) -> None:
    """All is read at last."""
    sk, _, at = window_closes(h)
    while at > 1:
        at -= len(sk.recv(4096))
    h.settle()


def byte_for_a_closed_window(h: Host) -> None:
    """A byte for a window that a lack of memory has closed, while nothing waits to be read."""
    _, peer = h.established()
    starve(h)
    peer.send("P. 1:6(5) ack 1")
    peer.expect(". 1:1(0) ack 1 win 0")
    peer.send("P. 1:2(1) ack 1")


def window_cannot_close(h: Host) -> None:
    """Of a window of one segment 100 bytes are left: worth nothing, but not taken back."""
    _, peer = h.established()
    peer.send(". 1:1361(1360) ack 1")
    peer.expect(". 1:1(0) ack 1361 win 100")


def too_many_holes(h: Host) -> None:
    """Single bytes beyond holes, until one is too many."""
    _, peer = h.established()
    at = 3
    while not h.mib.TCPOFODrop:
        peer.send(f". {at}:{at + 1}(1) ack 1")
        at += 2
        assert at < 60_000


def far_holes_give_way(h: Host) -> None:
    """Single bytes far beyond holes fill the buffer; what is nearer takes their place."""
    _, peer = h.established()
    tp = h.stack.tcp.ehash[(h.addr, 80, peer.addr, peer.port)].tp
    for at in range(1001, 1001 + 2 * (tp.sk_rcvbuf // 257), 2):
        peer.send(f". {at}:{at + 1}(1) ack 1")
    peer.send(". 501:701(200) ack 1")


def duplicate_acks_in_one(h: Host) -> None:
    """Three duplicate ACKs go out, of the next two one."""
    lsk = h.listen()
    peer = h.peer()
    peer.handshake(TS, ts="nop,nop,TS val 1000 ecr *")
    sk = lsk.accept()
    tp = h.stack.tcp.ehash[(h.addr, 80, peer.addr, peer.port)].tp
    at = 1
    ts = "<nop,nop,TS val 1000 ecr *>"
    while tp.ack_quick or at < 3000:
        h.advance_us(50_000)
        peer.send(f". {at}:{at + 100}(100) ack 1 {ts}")
        at += len(sk.recv(100))
    tp.rcv_rtt_us = tp.srtt_us = 50_000 << 3
    for i in range(1, 6):
        peer.send(f". {at + 100 * i}:{at + 100 * i + 100}(100) ack 1 {ts}")
    h.advance_us(10_000)


def just_beyond_the_window(h: Host) -> None:
    """Text whose first byte is the one after the last that we offered to take."""
    _, peer = h.established()
    tp = h.stack.tcp.ehash[(h.addr, 80, peer.addr, peer.port)].tp
    at = 1 + tp.rcv_wnd
    peer.send(f"P. {at}:{at + 10}(10) ack 1")


# Memory.


def starve(h: Host) -> None:
    """Take every page of the arena."""
    mem = h.stack.net.mem
    while mem.free_pages:
        mem.alloc_pages(0)


def text_without_memory(h: Host) -> None:
    """Text arrives and there is no page for it."""
    _, peer = h.established()
    starve(h)
    peer.send("P. 1:6(5) ack 1")


def runs_low_on_memory(h: Host) -> None:
    """Unread text is more than tcp_mem likes; it is read after seven milliseconds."""
    sk, peer = h.established()
    for at in range(1, 30_001, 1000):
        peer.send(f"P. {at}:{at + 1000}(1000) ack 1")
    h.advance_us(7_000)
    while sk.poll() & EPOLLIN:
        sk.recv(100_000)
    h.settle()


def holes_next_to_each_other(h: Host) -> None:
    """Single bytes beyond a hole, the last one first, until the buffer is full of them."""
    _, peer = h.established()
    for at in range(70, 2, -1):
        peer.send(f". {at}:{at + 1}(1) ack 1")


def syn_without_memory(h: Host) -> None:
    """A SYN arrives and there is no page for the request."""
    h.listen()
    peer = h.peer()
    starve(h)
    peer.send("S 0:0(0) <mss 1460>")


# Closing.


def time_wait(h: Host) -> Peer:
    """We close first, the peer after us."""
    sk, peer = h.established()
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send("F. 1:1(0) ack 2")
    peer.drain()
    return peer


def time_wait_hears(*lines: str) -> Script:
    """What comes after the end."""

    def script(h: Host) -> None:
        peer = time_wait(h)
        for line in lines:
            peer.send(line)

    return script


def sends_with_the_syn(ack: int) -> Script:
    """Five bytes go with our SYN; the SYN-ACK acknowledges them, or does not."""

    def script(h: Host) -> None:
        peer = h.peer(port=80, to=None)
        h.socket().send_fastopen(b"hello", peer.addr, 80)
        peer.expect("S 0:5(5)")
        peer.send(f"S. 0:0(0) ack {ack} <mss 1460>")

    return script


def time_wait_gives_way(h: Host) -> None:
    """We connect again, there is but one port, to whom we have just closed with."""
    peer = h.peer(port=80, to=None)
    sk = h.connect()
    peer.answer_syn(TS)
    sk.close()
    peer.drain()
    peer.send("F. 1:1(0) ack 2 <nop,nop,TS val 1001 ecr *>")
    h.advance_us(2 * SECOND)
    h.connect()


def closes_and_hears_ack(h: Host) -> None:
    """An orphan whose FIN is acknowledged may wait a second for the peer's."""
    sk, peer = h.established()
    peer.send("P. 1:2(1) ack 1")  # measures the RTT: the RTO is 200 ms
    sk.recv(1)
    sk.close()
    peer.drain()
    peer.send(". 2:2(0) ack 2")


def closes_without_lingering(h: Host) -> None:
    """The FIN is acknowledged when the application closes, and it does not want to wait."""
    sk, peer = h.established()
    sk.setsockopt(6, 8, -1)  # TCP_LINGER2
    sk.shutdown(1)
    peer.drain()
    peer.send(". 1:1(0) ack 2")
    sk.close()
    h.settle()


def fin_wait_2_hears_nonsense(h: Host) -> None:
    """Two segments far from an orphan's window."""
    sk, peer = h.established()
    sk.close()
    peer.drain()
    peer.send(". 1:1(0) ack 2")
    for _ in range(2):
        peer.send(". 200000:200000(0) ack 2")


def syn_ack_of_long_ago(h: Host) -> None:
    """A SYN-ACK echoes a timestamp that our SYN did not have."""
    peer = connects(h)
    peer.send("S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 5 ecr 77>")


def time_wait_hears_from_the_past(h: Host) -> None:
    """A repeated FIN whose timestamp is older than the connection's end."""
    lsk = h.listen()
    peer = h.peer()
    peer.handshake(TS, ts="nop,nop,TS val 1000 ecr *")
    lsk.accept().close()
    peer.send("F. 1:1(0) ack 2 <nop,nop,TS val 1001 ecr *>")
    peer.send("F. 1:1(0) ack 2 <nop,nop,TS val 900 ecr *>")


def closes(h: Host) -> None:
    """The application closes."""
    h.established()[0].close()
    h.settle()


def closes_unread(h: Host) -> None:
    """The application closes with text unread."""
    sk, peer = h.established()
    peer.send("P. 1:6(5) ack 1")
    sk.close()
    h.settle()


def probe_of_the_path(h: Host) -> Peer:
    """A larger segment at byte 10241, and a dozen behind it; ours is the active side."""
    peer = h.peer(port=80, to=None)
    sk = h.connect()
    peer.answer_syn("mss 1460")
    sk.setsockopt(1, 7, 200_000)
    sk.send(pattern(0, 10_240))
    peer.send(". 1:1(0) ack 10241")
    sk.send(pattern(10_240, 30_000))
    return peer


def probe_arrives(h: Host) -> None:
    """The path takes it."""
    probe_of_the_path(h).send(". 1:1(0) ack 20000")


def probe_is_lost(h: Host) -> None:
    """It does not: duplicates are all that comes back."""
    peer = probe_of_the_path(h)
    for _ in range(3):
        peer.send(". 1:1(0) ack 10241")


def text_for_an_orphan(h: Host) -> None:
    """Text for a socket that is closed."""
    sk, peer = h.established()
    sk.close()
    peer.send("P. 1:6(5) ack 1")


def polled(h: Host) -> None:
    """A SYN, and the answer to our ARP request, come in at a NIC that is polled all the time."""
    h.adapter.config = replace(h.adapter.config, busy_poll=True)
    half_open(h)


def syn_of_long_ago(h: Host) -> None:
    """In Linux 3.10, from a host whose last connection had a later timestamp."""
    h.stack.set_config(sysctl_write(h.stack.config, "net.ustack.profile", LINUX_310))
    lsk = h.listen()
    peer = h.peer()
    peer.handshake(TS, ts="nop,nop,TS val 1000 ecr *")
    lsk.accept().close()
    peer.send("F. 1:1(0) ack 2 <nop,nop,TS val 1000 ecr *>")
    h.peer().send("S 0:0(0) <mss 1460,sackOK,TS val 5 ecr 0>")


@dataclass(frozen=True)
class Case:
    """What raises one counter or reason, and by how much in all."""

    script: Script
    times: int = 1
    config: TcpConfig = field(default_factory=TcpConfig)
    also: tuple[str, ...] = ()
    """Reasons for which something else is dropped on the way."""

    def host(self) -> Host:
        """Play it to a new host."""
        h = host(TEST_CONFIG, tcp=self.config)
        self.script(h)
        return h


def case(script: Script, times: int = 1, **config: Any) -> Case:
    """Shorten the tables."""
    return Case(script, times, TcpConfig(**config))


TCP = {
    "ActiveOpens": case(connects),
    "PassiveOpens": case(opened),
    "AttemptFails": case(refused),
    "EstabResets": case(says("R 1:1(0)")),
    "CurrEstab": case(opened),
    "InSegs": case(opened, 2),
    "OutSegs": case(opened),
    "RetransSegs": case(timeout),
    "InErrs": case(wrong_checksum),
    "OutRsts": case(to_a_closed_port),
    "InCsumErrors": case(wrong_checksum),
}
CONSTANT_TCP = {
    "RtoAlgorithm": "a constant: 1, other",
    "RtoMin": "a constant: 200 ms",
    "RtoMax": "a constant: 120 s",
    "MaxConn": "a constant: -1, dynamic",
}
# Loss recovery.


def loses_the_first(h: Host) -> Flight:
    """Three later segments of ten are selectively acknowledged: the first is repeated."""
    f = Flight(h, ts=True)
    f.ack(0, (1, 4))
    assert f.segs() == [0]
    return f


def reordered_sack(h: Host) -> None:
    """A hole is filled though nothing was repeated."""
    f = Flight(h)
    f.ack(0, (2, 3))
    f.ack(3)


def reordered_reno(h: Host) -> None:
    """More duplicates than segments in flight."""
    Flight(h, 2, sack=False).dup(3)


def original_arrives_late(h: Host) -> None:
    """All arrives, with the timestamp of the first sending."""
    f = loses_the_first(h)
    f.ack(10, ecr=f.first_ts)


def part_arrives_late(h: Host) -> None:
    """The first hole is filled by the original while another one is left."""
    f = Flight(h, ts=True)
    f.ack(0, (1, 2), (3, 6))
    f.wait(1000)
    assert f.segs()
    f.ack(2, (3, 6), ecr=f.first_ts)
    f.ack(2, (3, 7), ecr=f.first_ts)
    f.ack(6, ecr=f.first_ts)


def dsack_undoes(h: Host) -> None:
    """The repetition proves to have been superfluous."""
    f = Flight(h)
    f.ack(0, (1, 4))
    f.ack(4, (0, 1))


def timeout_was_spurious(h: Host) -> None:
    """After a timeout data that was never repeated is acknowledged."""
    f = Flight(h)
    f.wait(600_000)
    f.ack(0, (2, 4))


def retransmission_is_lost(h: Host) -> None:
    """What was sent after the repetition arrives, the repetition does not."""
    f = loses_the_first(h)
    f.write(10)
    f.ack(0, (1, 10))
    f.wait(100_000)
    f.ack(0, (1, 12))


def silence_in_disorder(sack: bool) -> Script:
    """One segment of several has arrived, then nothing."""

    def script(h: Host) -> None:
        f = Flight(h, sack=sack)
        if sack:
            f.ack(0, (5, 6))
        else:
            f.dup()
        f.wait(1_000_000)

    return script


def silence_in_recovery(sack: bool) -> Script:
    """The repetition is lost, and then all is silent."""

    def script(h: Host) -> None:
        f = Flight(h, sack=sack)
        if sack:
            f.ack(0, (1, 4))
        else:
            f.dup(3)
        f.wait(1_000_000)

    return script


def silence_again(h: Host) -> None:
    """The timeout's own repetition came through, and then all is silent again."""
    f = Flight(h, sack=False)
    f.wait(1_000_000)
    f.ack(1)
    f.wait(20_000_000)


def last_is_lost(h: Host) -> None:
    """A probe repairs the loss of the last segment."""
    f = Flight(h, 3)
    f.ack(2)
    f.wait(500_000)
    f.ack(3)
    f.write(1)
    f.ack(4)


def last_is_lost_twice(h: Host) -> None:
    """The peer has the last segment twice, and there is no reduction to undo."""
    f = Flight(h, 3)
    f.ack(2)
    f.wait(500_000)
    f.ack(3, (2, 3))


def sacked_bit_by_bit(h: Host) -> None:
    """Three neighbours arrive one by one."""
    f = Flight(h)
    for end in (3, 4, 5):
        f.ack(0, (2, end))


def reneges(h: Host) -> None:
    """What was selectively acknowledged is not acknowledged when its turn comes."""
    f = Flight(h)
    f.ack(0, (1, 3))
    f.ack(1)
    f.wait(1_000_000)


def old_dsack(h: Host) -> None:
    """A D-SACK for what was acknowledged before the present recovery began."""
    f = last_probe_and_recovery(h)
    f.ack(12, (0, 1))


def last_probe_and_recovery(h: Host) -> Flight:
    """Something was repeated once, later another recovery begins."""
    f = Flight(h, 10)
    f.ack(0, (1, 4))
    f.ack(10)
    f.write(10)
    f.ack(12, (13, 16))
    return f


TCP_EXT = {
    "SyncookiesSent": case(syn_queue_is_full),
    "SyncookiesRecv": case(cookie_comes_back(1)),
    "SyncookiesFailed": case(cookie_comes_back(2)),
    "EmbryonicRsts": case(half_open_says("R 1:1(0)")),
    "TW": case(time_wait),
    "TWRecycled": case(time_wait_gives_way, tcp_tw_reuse=1, ip_local_port_range=(4000, 4000)),
    "TWKilled": case(closes_and_hears_ack, tcp_fin_timeout_us=1 * SECOND),
    "PAWSActive": case(syn_ack_of_long_ago),
    "PAWSTimewait": case(time_wait_hears_from_the_past),
    "BusyPollRxPackets": case(polled, 2),
    "PAWSEstab": case(old_timestamps(1)),
    "TSEcrRejected": case(foreign_echo),
    "PAWSOldAck": case(overtaken_ack),
    "PruneCalled": case(too_many_holes, tcp_rmem=(4096, 16_384, 16_384)),
    "RcvPruned": case(too_many_holes, tcp_rmem=(4096, 16_384, 16_384)),
    "OfoPruned": case(far_holes_give_way, tcp_rmem=(4096, 16_384, 16_384)),
    "DelayedACKs": case(dialogue),
    "DelayedACKLost": case(says("P. 1:6(5) ack 1", "P. 1:6(5) ack 1", "P. 1:4(3) ack 1"), 2),
    "ListenOverflows": case(accept_queue_is_full),
    "ListenDrops": case(accept_queue_is_full),
    "TCPHPHits": case(says("P. 1:6(5) ack 1")),
    "TCPFastRetrans": case(fast_retransmit, 2),
    "TCPSlowStartRetrans": case(slow_start_again, 2),
    "TCPTimeouts": case(timeout),
    "TCPSACKReorder": case(reordered_sack),
    "TCPRenoReorder": case(reordered_reno, 2),
    "TCPTSReorder": case(part_arrives_late),
    "TCPFullUndo": case(original_arrives_late),
    "TCPPartialUndo": case(part_arrives_late),
    "TCPDSACKUndo": case(dsack_undoes),
    "TCPLossUndo": case(timeout_was_spurious),
    "TCPSpuriousRTOs": case(timeout_was_spurious),
    "TCPMD5NotFound": case(md5_says(KEY, None)),
    "TCPMD5Unexpected": case(md5_says(None, KEY)),
    "TCPMD5Failure": case(md5_says(KEY, b"another")),
    "TCPLostRetransmit": case(retransmission_is_lost),
    "TCPRenoFailures": case(silence_in_disorder(False)),
    "TCPSackFailures": case(silence_in_disorder(True), tcp_recovery=0),
    "TCPLossFailures": case(silence_again),
    "TCPLossProbes": case(last_is_lost),
    "TCPLossProbeRecovery": case(last_is_lost),
    "TCPRenoRecovery": case(silence_in_recovery(False)),
    "TCPSackRecovery": case(loses_the_first),
    "TCPRenoRecoveryFail": case(silence_in_recovery(False)),
    "TCPSackRecoveryFail": case(silence_in_recovery(True)),
    "TCPSACKReneging": case(reneges),
    "TCPSackMerged": case(sacked_bit_by_bit, 2),
    "TCPSACKDiscard": case(lambda h: Flight(h).ack(0, (50, 51))),
    "TCPDSACKRecv": case(dsack_undoes),
    "TCPDSACKRecvSegs": case(dsack_undoes),
    "TCPDSACKOfoRecv": case(lambda h: loses_the_first(h).ack(0, (1, 2), (1, 4))),
    "TCPDSACKIgnoredOld": case(old_dsack),
    "TCPDSACKIgnoredNoUndo": case(last_is_lost_twice),
    "TCPDSACKIgnoredDubious": case(lambda h: Flight(h).ack(2, (0, 1))),
    "TCPDSACKOldSent": case(says("P. 1:6(5) ack 1", "P. 1:6(5) ack 1", options=SACK)),
    "TCPDSACKOfoSent": case(says(". 11:16(5) ack 1", ". 11:16(5) ack 1", options=SACK)),
    "TCPAbortOnData": case(text_for_an_orphan),
    "TCPAbortOnClose": case(closes_unread),
    "TCPFastOpenActive": case(sends_with_the_syn(6), tcp_fastopen=5),
    "TCPFastOpenActiveFail": case(sends_with_the_syn(1), tcp_fastopen=5),
    "TCPFastOpenBlackhole": case(
        syn_data_is_swallowed, tcp_fastopen=5, tcp_fastopen_blackhole_timeout_us=SECOND
    ),
    "TCPAbortOnLinger": case(closes_without_lingering),
    "TCPMemoryPressures": case(runs_low_on_memory, tcp_mem=(4, 5, 1000)),
    "TCPMemoryPressuresChrono": case(runs_low_on_memory, 7, tcp_mem=(4, 5, 1000)),
    "TCPRcvCollapsed": case(holes_next_to_each_other, 63, tcp_rmem=(4096, 16_384, 16_384)),
    "TCPAbortOnMemory": case(closes, tcp_max_orphans=0),
    "TCPAbortOnTimeout": case(connect_times_out, tcp_syn_retries=0, tcp_syn_linear_timeouts=0),
    "TCPTimeWaitOverflow": case(time_wait, tcp_max_tw_buckets=0),
    "TCPReqQFullDrop": case(syn_queue_is_full, tcp_syncookies=0),
    "TCPReqQFullDoCookies": case(syn_queue_is_full),
    "TCPDeferAcceptDrop": case(defers_accept),
    "TCPRcvQDrop": case(text_without_memory),
    "TCPOFOQueue": case(says(". 11:16(5) ack 1", ". 11:16(5) ack 1"), 2),
    "TCPOFODrop": case(too_many_holes, tcp_rmem=(4096, 16_384, 16_384)),
    "TCPOFOMerge": case(says(". 11:16(5) ack 1", ". 11:16(5) ack 1")),
    "TCPChallengeACK": case(says("R 100:100(0)")),
    "TCPSYNChallenge": case(says("S 1:1(0)")),
    "TCPFromZeroWindowAdv": case(window_opens_again),
    "TCPToZeroWindowAdv": case(window_closes),
    "TCPWantZeroWindowAdv": case(window_cannot_close, tcp_rmem=(4096, 4096, 4096)),
    "TCPSynRetrans": case(silent_synack),
    "TCPFastOpenPassive": case(fast_open(b""), tcp_fastopen=0x203),
    "TCPFastOpenPassiveFail": case(fast_open(bytes(8)), tcp_fastopen=3),
    "TCPFastOpenListenOverflow": case(fast_open(b"", times=2, qlen=1), tcp_fastopen=0x203),
    "TCPFastOpenCookieReqd": case(fast_open(b"")),
    "TCPFastOpenPassiveAltKey": case(fast_open_by_the_old_key, tcp_fastopen=3),
    "TCPOrigDataSent": case(sends_three, 3),
    "TCPAutoCorking": case(small_write_behind_a_full_ring),
    "TCPHystartTrainDetect": case(ack_train),
    "TCPHystartTrainCwnd": case(ack_train, 31),
    "TCPHystartDelayDetect": case(rising_delay),
    "TCPHystartDelayCwnd": case(rising_delay, 48),
    "TCPACKSkippedSynRecv": case(half_open_says(*["S 0:0(0) <mss 1460>"] * 2)),
    "TCPACKSkippedPAWS": case(acks_with_old_timestamps),
    "TCPACKSkippedSeq": case(says(*[". 200000:200000(0) ack 1"] * 2)),
    "TCPACKSkippedFinWait2": case(fin_wait_2_hears_nonsense),
    "TCPACKSkippedTimeWait": case(time_wait_hears(*[". 1:1(0) ack 2"] * 2)),
    "TCPACKSkippedChallenge": case(says(*["S 1:1(0)"] * 2)),
    "TCPKeepAlive": case(kept_alive),
    "TCPWinProbe": case(probed),
    "TCPMTUPSuccess": case(probe_arrives, tcp_mtu_probing=2, tcp_timestamps=0),
    "TCPMTUPFail": case(probe_is_lost, tcp_mtu_probing=2, tcp_timestamps=0),
    "TCPDelivered": case(delivers_three, 3),
    "TCPZeroWindowDrop": case(byte_for_a_closed_window),
    "TCPAckCompressed": case(duplicate_acks_in_one),
    "BeyondWindow": case(ends_beyond_the_window),
}
USTACK = {
    "PAWSPassive": case(syn_of_long_ago, tcp_tw_recycle=True),
    "ConnectPortProbes": case(connects),
    "SockmapRedirects": case(sends_to_itself),
    "SockmapBytes": Case(sends_to_itself, times=5),
}
DROPS = {
    "NOT_SPECIFIED": case(by_broadcast),
    "NO_SOCKET": case(to_a_closed_port),
    "NOMEM": case(syn_without_memory),
    "IP_OUTNOROUTES": case(from_afar),
    "TCP_CSUM": case(wrong_checksum),
    "TCP_HDR": case(half_a_header),
    "TCP_FLAGS": case(to_a_listener("SF 0:0(0)")),
    "TCP_OVERWINDOW": case(just_beyond_the_window),
    "TCP_OLD_SEQUENCE": case(says("P. 1:6(5) ack 1", "P. 1:4(3) ack 1")),
    "TCP_INVALID_SEQUENCE": case(says("P. 400000:400010(10) ack 1")),
    "TCP_INVALID_END_SEQUENCE": case(ends_beyond_the_window),
    "TCP_RFC7323_PAWS": case(old_timestamps(1)),
    "TCP_RFC7323_PAWS_ACK": case(overtaken_ack),
    "TCP_TOO_OLD_ACK": case(says(". 1:1(0) ack 4294966796")),
    "TCP_ACK_UNSENT_DATA": case(says(". 1:1(0) ack 1001")),
    "TCP_INVALID_SYN": case(says("S 1:1(0)")),
    "TCP_INVALID_ACK_SEQUENCE": case(wrong_answer),
    "TCP_RESET": case(says("R 1:1(0)")),
    "TCP_NO_ACK": case(half_open_says("P 1:6(5)")),
    "TCP_ZEROWINDOW": Case(byte_for_a_closed_window, also=("PROTO_MEM",)),
    "TCP_OLD_DATA": case(says("P. 1:6(5) ack 1", "P. 1:6(5) ack 1")),
    "TCP_OFOMERGE": case(says(". 11:16(5) ack 1", ". 11:16(5) ack 1")),
    "PROTO_MEM": case(text_without_memory),
    "TCP_ABORT_ON_DATA": case(text_for_an_orphan),
    "TCP_LISTEN_OVERFLOW": case(accept_queue_is_full),
    "TCP_REQQ_FULL": case(syn_queue_is_full, tcp_syncookies=0),
    "TCP_DEFER_ACCEPT": case(defers_accept),
    "TCP_RFC7323_TSECR": case(foreign_echo),
    "TCP_TIMEWAIT": case(time_wait_hears(". 2:2(0) ack 2")),
    "TCP_LISTEN_NOT_SYN": case(to_a_listener("F 5:5(0)")),
    "TCP_AUTH_HDR": case(to_a_listener("S 0:0(0) <raw 19 4 0 0,md5,nop,nop>")),
    "TCP_MD5NOTFOUND": case(md5_says(KEY, None)),
    "TCP_MD5UNEXPECTED": case(md5_says(None, KEY)),
    "TCP_MD5FAILURE": case(md5_says(KEY, b"another")),
}


@pytest.mark.parametrize("name", TCP)
def test_a_script_raises_the_tcp_counter(name: str):
    one = TCP[name]
    assert getattr(one.host().stack.net.mib.tcp, name) == one.times


@pytest.mark.parametrize("name", TCP_EXT)
def test_a_script_raises_the_extended_tcp_counter(name: str):
    one = TCP_EXT[name]
    assert getattr(one.host().stack.net.mib.tcp_ext, name) == one.times


@pytest.mark.parametrize("name", USTACK)
def test_a_script_raises_our_own_counter(name: str):
    one = USTACK[name]
    assert getattr(one.host().stack.net.mib.ustack, name) == one.times


@pytest.mark.parametrize("name", DROPS)
def test_a_segment_is_dropped_for_the_reason(name: str):
    one = DROPS[name]
    dropped = one.host().stack.net.drops.nonzero()
    assert dropped.pop(name) == one.times
    assert tuple(dropped) == one.also


@pytest.mark.parametrize(
    ("row", "listed"),
    [
        (TcpMib, TCP.keys() | CONSTANT_TCP.keys()),
        (TcpExtMib, TCP_EXT.keys()),
        (UstackMib, USTACK.keys()),
    ],
)
def test_every_counter_of_tcp_is_listed(row: Any, listed: set[str]):
    assert {f.name for f in fields(row)} == listed


def test_every_reason_of_tcp_is_listed():
    assert {r.name for r in DropReason if r.name.startswith(("TCP_", "PROTO_"))} <= DROPS.keys()


def test_a_connection_that_is_over_is_not_counted_as_one():
    assert case(says("R 1:1(0)")).host().mib.CurrEstab == 0


def test_every_counter_of_an_idle_host_is_zero():
    tables = host(TEST_CONFIG).stack.net.mib.snapshot()
    for table in ("Tcp", "TcpExt"):
        raised = {name for name, value in tables[table].items() if value}
        assert raised <= CONSTANT_TCP.keys()
