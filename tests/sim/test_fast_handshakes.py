"""Connections come in alike whether C or Python opens them.

Seeded peers shake hands with a listener, in batches and mostly by the book, and do to it what
peers do; with net.ustack.tcp_fastpath 0 and 1 the answers are the same, byte for byte, and so are
queues, counters, and every field of the connections that are accepted.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, host
from kit.peer import Peer
from kit.segment import build_ip
from ustack.config import CoreConfig, NicConfig, TcpConfig, UstackConfig
from ustack.native.lib import ffi

SYN_OPTIONS = (
    "mss 1460,sackOK,TS val 1000 ecr 0,nop,wscale 7",
    "mss 1460,nop,nop,sackOK,nop,wscale 8",
    "mss 1460",
    "mss 536,sackOK,TS val 77 ecr 0,nop,wscale 15",
    "",
)
PEERS = 14
OWN = ("place", "event", "punt_batch", "generation", "sockopts")
"""Fields that say where a control block is, not what its connection is like."""


class Crossfire:
    """One run: peers, a listener and what has been seen of both."""

    def __init__(self, seed: int, fastpath: bool, parts: dict[str, Any]) -> None:
        self.rng = random.Random(seed)
        parts = {"ustack": UstackConfig(tcp_fastpath=fastpath), **parts}
        self.host: Host = host(TEST_CONFIG, **parts)
        self.lsk = self.host.listen(80, backlog=self.rng.choice((2, 8, 128)))
        self.peers: dict[int, Peer] = {}
        self.options: dict[int, str] = {}
        self.open: list[Any] = []
        self.seen: list[Any] = []

    def play(self, steps: int) -> None:
        for _ in range(steps):
            frames = [self._segment(self.rng.randrange(PEERS)) for _ in range(self.rng.randint(1, 6))]
            for frame in frames:
                if frame is not None:
                    self.host.net.send_ip(frame)
            self.host.settle()
            self._note()
            self._application()
            self.host.advance_us(self.rng.choice((0, 0, 50, 900, 40_000, 300_000, 1_100_000)))
            self._note()

    def _segment(self, number: int) -> bytes | None:
        """The next thing that a peer does, mostly the right one."""
        rng = self.rng
        peer = self.peers.get(number)
        if peer is None or rng.random() < 0.12:
            port = 30_000 + rng.randrange(400)
            peer = self.peers[number] = Peer(self.host.net, "10.0.0.1", port, 80, rng.getrandbits(32))
            self.options[number] = rng.choice(SYN_OPTIONS)
        ts = "TS" in self.options[number]
        syn = f"S 0:0(0) win {rng.choice((65535, 1000))} <{self.options[number]}>"
        if peer.host_iss is None:
            return self._built(peer, syn if rng.random() < 0.95 else ". 1:1(0) win 5")
        val = rng.choice((1001, 1001, 1002, 5))
        tail = f" <nop,nop,TS val {val} ecr {rng.choice((peer.last_ts_val,) * 5 + (0, 99))}>" if ts else ""
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
            self.seen.append(fields(sock._sk.tp))
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
        for peer in self.host.net.peers:
            while peer.inbox:
                sent.append((peer.port, peer.inbox.popleft()))
        queues = self.lsk._sk.listen
        self.seen.append((sorted(sent, key=lambda pair: pair[0]), len(self.host.net.other)))
        self.seen.append((len(queues.syn_queue), queues.qlen_young, len(queues.accept_queue)))
        self.seen.append((len(tcp.ehash), len(tcp.twhash), self.host.stack.next_deadline_us()))
        self.seen.append(self.host.stack.net.mib.snapshot())


def fields(tp: Any) -> dict[str, Any]:
    """What a control block says of its connection."""
    return {
        name: getattr(tp, name)
        for name, field in ffi.typeof("struct us_tcp_sock").fields
        if field.type.kind == "primitive" and name not in OWN
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "offloads": {"nic": NicConfig(rx_usecs=0)},
    "no options": {"tcp": TcpConfig(tcp_timestamps=0, tcp_sack=False, tcp_window_scaling=False)},
    "no cookies": {"tcp": TcpConfig(tcp_syncookies=0, tcp_max_syn_backlog=8)},
    "reno": {"tcp": TcpConfig(tcp_congestion_control="reno", tcp_timestamps=2)},
    "no metrics": {"tcp": TcpConfig(tcp_no_metrics_save=True, tcp_app_win=0)},
    "overflow": {"tcp": TcpConfig(tcp_abort_on_overflow=True)},
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("seed", range(3))
def test_nobody_can_tell_who_opened_a_connection(seed, config):
    slow, fast = (Crossfire(seed, on, CONFIGS[config]) for on in (False, True))
    for one in (slow, fast):
        one.play(60)
    for number, (expected, got) in enumerate(zip(slow.seen, fast.seen, strict=True)):
        assert expected == got, f"note {number}"
    assert fast.host.stack.tcp.fast.ptr.mib.fast_rx > 50
