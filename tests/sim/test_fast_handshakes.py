"""Connections come in alike whether C or Python opens them.

Seeded peers shake hands with a listener, in batches and mostly by the book, and do to it what
peers do; with net.ustack.tcp_fastpath 0 and 1 the answers are the same, byte for byte, and so are
queues, counters, and every field of the connections that are accepted.
"""

from __future__ import annotations

import random
from dataclasses import replace
from socket import (
    IP_TOS,
    IP_TTL,
    IPPROTO_IP,
    IPPROTO_TCP,
    SO_KEEPALIVE,
    SO_RCVBUF,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SO_SNDBUF,
    SOL_SOCKET,
    TCP_MAXSEG,
    TCP_NODELAY,
    TCP_NOTSENT_LOWAT,
    TCP_WINDOW_CLAMP,
)
from typing import Any

import pytest

from kit.c_fields import control_block
from kit.host import TEST_CONFIG, Host, host
from kit.peer import Peer
from kit.segment import build_ip
from ustack.config import CoreConfig, NicConfig, TcpConfig, UstackConfig

SYN_OPTIONS = (
    "mss 1460,sackOK,TS val 1000 ecr 0,nop,wscale 7",
    "mss 1460,nop,nop,sackOK,nop,wscale 8",
    "mss 1460",
    "mss 536,sackOK,TS val 77 ecr 0,nop,wscale 15",
    "",
)
PEERS = 14
Options = tuple[tuple[int, int, int], ...]


class Crossfire:
    """One run: peers, a listener and what has been seen of both."""

    def __init__(
        self, seed: int, fastpath: bool, parts: dict[str, Any], options: Options = ()
    ) -> None:
        self.rng = random.Random(seed)
        parts = {"ustack": UstackConfig(tcp_fastpath=fastpath), **parts}
        self.host: Host = host(TEST_CONFIG, **parts)
        assert self.host.net is not None
        self.net = self.host.net
        self.lsk = self.host.listen(80, backlog=self.rng.choice((4, 128, 128, 128)))
        for option in options:
            self.lsk.setsockopt(*option)
        self.peers: dict[int, Peer] = {}
        self.options: dict[int, str] = {}
        self.open: list[Any] = []
        self.seen: list[Any] = []

    def play(self, steps: int) -> None:
        for _ in range(steps):
            for _ in range(self.rng.randint(1, 6)):
                self.net.send_ip(self._segment(self.rng.randrange(PEERS)))
            self.host.settle()
            self._note()
            self._application()
            self.host.advance_us(self.rng.choice((0, 0, 50, 900, 40_000, 300_000, 1_100_000)))
            self._note()

    def _segment(self, number: int) -> bytes:
        """The next thing that a peer does, mostly the right one."""
        rng = self.rng
        peer = self.peers.get(number)
        if peer is None or rng.random() < 0.12:
            port = 30_000 + rng.randrange(400)
            peer = Peer(self.net, "10.0.0.1", port, 80, iss=rng.getrandbits(32))
            self.peers[number] = peer
            self.options[number] = rng.choice(SYN_OPTIONS)
        ts = "TS" in self.options[number]
        syn = f"S 0:0(0) win {rng.choice((65535, 1000))} <{self.options[number]}>"
        if peer.host_iss is None:
            return self._built(peer, syn if rng.random() < 0.95 else ". 1:1(0) win 5")
        val = rng.choice((1001, 1001, 1002, 5))
        ecr = rng.choice((peer.last_ts_val,) * 5 + (0, 99))
        tail = f" <nop,nop,TS val {val} ecr {ecr}>" if ts else ""
        window = rng.choice((502, 502, 29200, 65535, 0))
        line = rng.choice(
            (f". 1:1(0) ack 1 win {window}{tail}",) * 24
            + (f"P. 1:65(64) ack 1 win {window}{tail}",) * 12
            + (syn, "R 1:1(0)", f". 1:1(0) ack 2 win 9{tail}", f"F. 1:1(0) ack 1 win 502{tail}")
            + (f". 0:0(0) ack 1 win 502{tail}", f"F. 65:65(0) ack 1 win 502{tail}")
        )
        return self._built(peer, line)

    def _built(self, peer: Peer, line: str) -> bytes:
        return build_ip(peer.segment(line, tos=self.rng.choice((0, 0, 0, 0x10))))

    def _application(self) -> None:
        if self.rng.random() < 0.5:
            return
        for _ in range(self.rng.randrange(5)):
            try:
                sock = self.lsk.accept()
            except BlockingIOError:
                break
            self.open.append(sock)
            self.seen.append(control_block(sock._sk.tp))
        for sock in list(self.open):
            what = self.rng.random()
            try:
                if what < 0.3:
                    self.seen.append(bytes(sock.recv(4096)))
                elif what < 0.5:
                    self.seen.append(sock.send(bytes(200)))
            except OSError as error:
                self.seen.append(error.errno)
            if what > 0.8:
                self.open.remove(sock)
                sock.close()

    def _note(self) -> None:
        tcp = self.host.stack.tcp
        sent = []
        for peer in self.net.peers:
            while peer.inbox:
                sent.append((peer.port, peer.inbox.popleft()))
        queues = self.lsk._sk.listen
        self.seen.append((sorted(sent, key=lambda pair: pair[0]), len(self.net.other)))
        self.seen.append((len(queues.syn_queue), queues.qlen_young, len(queues.accept_queue)))
        self.seen.append((len(tcp.ehash), len(tcp.twhash), self.host.stack.next_deadline_us()))
        self.seen.append(self.host.stack.net.mib.snapshot())


CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "offloads": {"nic": NicConfig(rx_usecs=0)},
    "no options": {"tcp": TcpConfig(tcp_timestamps=0, tcp_sack=False, tcp_window_scaling=False)},
    "no cookies": {"tcp": TcpConfig(tcp_syncookies=0, tcp_max_syn_backlog=8)},
    "reno": {"tcp": TcpConfig(tcp_congestion_control="reno", tcp_timestamps=2)},
    "no metrics": {"tcp": TcpConfig(tcp_no_metrics_save=True, tcp_app_win=0)},
    "thresholds": {"tcp": TcpConfig(tcp_no_ssthresh_metrics_save=False, tcp_min_snd_mss=1000)},
    "overflow": {"tcp": TcpConfig(tcp_abort_on_overflow=True)},
}


OPTIONS: dict[str, Options] = {
    "sizes": (
        (SOL_SOCKET, SO_SNDBUF, 30_000),
        (SOL_SOCKET, SO_RCVBUF, 20_000),
        (IPPROTO_TCP, TCP_MAXSEG, 500),
        (IPPROTO_TCP, TCP_NOTSENT_LOWAT, 4000),
        (IPPROTO_TCP, TCP_NODELAY, 1),
    ),
    "header": ((IPPROTO_IP, IP_TOS, 0x10), (IPPROTO_IP, IP_TTL, 9)),
    "window": ((IPPROTO_TCP, TCP_WINDOW_CLAMP, 5000),),
}


@pytest.mark.parametrize("options", OPTIONS)
def test_a_listeners_options_are_its_childrens_whoever_makes_them(options):
    slow, fast = (Crossfire(5, on, {}, OPTIONS[options]) for on in (False, True))
    for one in (slow, fast):
        one.play(40)
    assert slow.seen == fast.seen


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("seed", range(3))
def test_nobody_can_tell_who_opened_a_connection(seed, config):
    slow, fast = (Crossfire(seed, on, CONFIGS[config]) for on in (False, True))
    for one in (slow, fast):
        one.play(80)
    for number, (expected, got) in enumerate(zip(slow.seen, fast.seen, strict=True)):
        assert expected == got, f"note {number}"
    assert fast.host.stack.tcp.fast.ptr.mib.fast_rx > 0


def test_the_first_connection_shows_c_how_the_next_are_made():
    h = host(TEST_CONFIG)
    lsk = h.listen(80)
    h.peer().handshake("mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7", ts="nop,nop,TS val 2 ecr 0")
    counted = h.stack.tcp.fast.ptr.mib
    taken, left = counted.fast_rx, counted.punted
    h.peer().handshake("mss 1460,nop,wscale 7")
    assert (counted.fast_rx - taken, counted.punted - left) == (2, 0)
    assert len(h.stack.tcp.socks) == 2  # the listener's object, and the first connection's
    for _ in range(2):
        lsk.accept().send(b"hello")


def test_an_option_of_the_listener_holds_for_the_next_connection():
    h = host(TEST_CONFIG)
    lsk = h.listen(80)
    for keepalive in (0, 0, 1, 0):
        lsk.setsockopt(SOL_SOCKET, SO_KEEPALIVE, keepalive)
        h.peer().handshake()
        h.peer().handshake()
        got = [lsk.accept().getsockopt(SOL_SOCKET, SO_KEEPALIVE) for _ in range(2)]
        assert got == [keepalive] * 2


def test_a_nearer_listener_gets_what_was_everybodys():
    h = host(TEST_CONFIG)
    anywhere = h.listen(80)
    anywhere.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
    anywhere.close()
    anywhere, nearer = h.socket(), h.socket()
    for lsk, addr in ((anywhere, 0), (nearer, h.addr)):
        lsk.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        lsk.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
        lsk.bind(addr, 80)
        lsk.listen(8)
        h.peer().handshake()
        h.peer().handshake()
        for _ in range(2):
            lsk.accept()


def test_a_flood_of_syns_leaves_no_memory_behind():
    core = CoreConfig(arena_bytes=8 << 20)
    h = host(replace(TEST_CONFIG, core=core), tcp=TcpConfig(tcp_syncookies=0))
    lsk = h.listen(80, backlog=4000)
    h.peer().handshake()
    first = lsk.accept()
    h.net.peers.clear()
    before = {name: info.active_objs for name, info in h.stack.memory_info().items()}
    for port in range(3000):
        peer = Peer(h.net, "10.0.0.1", 1024 + port, 80, iss=port)
        h.net.send_ip(build_ip(peer.segment("S 0:0(0) win 9 <mss 1460>")))
        h.net.peers.clear()
        if port % 50 == 0:
            h.settle()
    h.settle()
    assert len(lsk._sk.listen.syn_queue) > 100 and h.stack.tcp.fast.ptr.mib.fast_rx > 100
    h.advance_us(200_000_000)
    assert {name: info.active_objs for name, info in h.stack.memory_info().items()} == before
    assert not lsk._sk.listen.syn_queue and not first.closed
