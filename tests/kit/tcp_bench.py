"""A host against a hostile peer, played step by step, the invariants looked at after each.

A step is a tuple: the name of a ``do_`` method and its arguments (tests/fuzz draws them).
Data is a pattern by position, so that a byte that is lost, doubled or from elsewhere shows.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

from kit.host import Host
from kit.segment import ACK, FIN, MASK, PSH, RST, SYN, URG, Segment, build_ip, pattern
from kit.tcp_invariants import check_stack, connection_at, connections, leftovers
from ustack.lib.seqnum import seq_add, seq_diff
from ustack.tcp.states import TCP_SYN_SENT

PEER = 0x0A000001
SO_OOBINLINE = 10


def _progress(sk: Any) -> tuple[Any, ...]:
    """What only the peer may change."""
    tp = sk.tp
    beyond = sk.ofo.nbytes if sk.ofo is not None else 0
    return tp.state, tp.rcv_nxt, tp.snd_una, tp.receive_queue.len, beyond, sk.done


class Bench:
    """One host, three places a peer talks from, and whatever sockets the application has."""

    def __init__(self, server: Host, distance: int) -> None:
        self.server = server
        self.stack = server.stack
        self.tcp = server.stack.tcp
        server.peer(port=1)  # answers ARP
        self._near_the_wrap(distance)
        self.irs = [seq_add(0, -distance - 1), seq_add(0, -3 - distance // 4), 0x7FFFFF00]
        self._listen(2)
        self.sockets: list[Any] = []
        self.written: dict[int, int] = {}
        self.read: dict[int, int] = {}
        self.hoard: list[int] = []
        self.iss: dict[tuple[int, int], int] = {}
        self.peer_isn: dict[tuple[int, int], int] = {}
        self.edges: dict[int, int] = {}
        self.outgoing = 9000
        self.urgent = 0

    def _near_the_wrap(self, distance: int) -> None:
        """Wait until initial sequence numbers towards the first peer are just below 2**32."""
        isn = self.tcp.secure_tcp_seq(self.server.addr, PEER, 80, 40_000)
        self.server.advance_us(((-isn - distance) & MASK) * 64 // 1000)

    def _listen(self, backlog: int) -> None:
        self.lsk = self.server.socket()
        self.lsk.setsockopt(1, 2, 1)
        self.lsk.bind(0, 80)
        self.lsk.listen(backlog)

    def run(self, step: tuple[Any, ...]) -> None:
        getattr(self, f"do_{step[0]}")(*step[1:])
        self.server.settle()
        self.watch()
        check_stack(self.stack, self.edges)

    def watch(self) -> None:
        """Every byte that leaves is the application's byte of that place."""
        for capture in self.server.net.other:
            frame = capture.frame
            if frame[12:14] != b"\x08\x00" or frame[23] != 6:
                continue
            sport, dport, seq, _, off = struct.unpack(">HHIIB", frame[34:47])
            key = (sport, dport)
            if frame[47] & SYN:
                self.iss[key] = seq
            data = frame[34 + (off >> 4) * 4 : 14 + int.from_bytes(frame[16:18], "big")]
            if data:
                at = seq - self.iss[key] - 1 & MASK
                assert data == pattern(at, len(data)), f"foreign bytes at {at}"
        self.server.net.other.clear()

    # The peer.

    def ports(self, which: int) -> tuple[int, int]:
        """The host's port and the peer's: two of the listener, one of the latest connect()."""
        if which < 2:
            return 80, 40_000 + which
        for _, sport, _, dport in reversed([sk.key for sk in connections(self.tcp)]):
            if dport >= 9000 and sport != 80:
                return sport, dport
        return 80, 40_002

    def do_segment(
        self, which: int, flags: int, seq: int, ack: tuple[str, int], length: int, window: int,
        options: str, pointer: int = 0,
    ) -> None:  # fmt: skip
        dport, sport = self.ports(which)
        key = (self.server.addr, dport, PEER, sport)
        rcv_nxt, una, nxt, tsval = self._numbers(key, which)
        at = rcv_nxt + seq & MASK
        isn = self.peer_isn.setdefault((dport, sport), self.irs[which])
        if flags & SYN and key not in self.tcp.ehash and key not in self.tcp.twhash:
            at = self.irs[which]
            self.peer_isn[dport, sport] = isn = at
        elif flags & SYN and (sk := connection_at(self.tcp, key)) and sk.tp.state == TCP_SYN_SENT:
            self.peer_isn[dport, sport] = isn = at  # this is where its stream begins
        data = pattern(seq_diff(at, isn) - (not flags & SYN), length)
        acked = (una if ack[0] == "una" else nxt) + ack[1] & MASK
        self.server.net.send_ip(build_ip(Segment(
            PEER, self.server.addr, sport, dport, at, acked, flags, window, data, pointer,
            options=self._options(options, tsval, at),
        )))  # fmt: skip
        self.server.settle()
        self.urgent += bool(flags & URG)
        if flags & RST:
            assert not any(
                c.frame[12:14] == b"\x08\x00" and c.frame[47] & RST for c in self.server.net.other
            ), "a reset was answered with a reset"

    def _numbers(self, key: tuple[int, int, int, int], which: int) -> tuple[int, int, int, int]:
        sk = connection_at(self.tcp, key)
        if sk is not None:
            tp = sk.tp
            return tp.rcv_nxt, tp.snd_una, tp.snd_nxt, tp.ts_recent
        tw = self.tcp.twhash.get(key)
        if tw is not None:
            return tw.tw.rcv_nxt, tw.tw.snd_nxt, tw.tw.snd_nxt, tw.tw.ts_recent
        request = None
        if self.lsk is not None and self.lsk._sk.listen is not None:
            request = self.lsk._sk.listen.syn_queue.get(key)
        if request is not None:
            req = request.req
            return req.rcv_nxt, req.snt_isn + 1, req.snt_isn + 1, req.ts_recent
        return self.irs[which], 0, 0, 0

    def _options(self, which: str, tsval: int, at: int) -> tuple[Any, ...]:
        ts = self.stack.clock.now_us // 1000 & MASK
        return {
            "none": (),
            "ts": (("nop", ()), ("nop", ()), ("TS", (seq_add(tsval, 1), ts))),
            "old ts": (("nop", ()), ("nop", ()), ("TS", (seq_add(tsval, -5), 1))),
            "odd ts": (("TS", (seq_add(tsval, 1 << 30), seq_add(ts, 1 << 20))),),
            "odd sack": (("sack", (at, seq_add(at, 100), 5, 1)),),
            "syn": (("mss", (100,)), ("sackOK", ()), ("wscale", (14,))),
            "raw": (("raw", (8, 10, 1)),),
        }[which]

    def do_open(self, which: int, kind: str) -> None:
        """A handshake as it should be."""
        if which == 2:
            self.do_connect()
        dport, sport = self.ports(which)
        key = (self.server.addr, dport, PEER, sport)
        options: tuple[Any, ...] = (("mss", (1460,)),)
        if kind != "plain":
            options += (("sackOK", ()), ("TS", (1000, 0)), ("nop", ()), ("wscale", (7,)))
        if kind == "all":
            options = options[:2] + options[3:]
        if which < 2 and (key in self.tcp.ehash or key in self.tcp.twhash):
            return
        sk = connection_at(self.tcp, key)
        self.peer_isn[dport, sport] = self.irs[which]
        kind_flags, ack = (SYN, 0) if sk is None else (SYN | ACK, sk.tp.snd_nxt)
        self._peer_sends(sport, dport, self.irs[which], ack, kind_flags, options)
        _, una, _, _ = self._numbers(key, which)
        ts = (("TS", (1001, 0)),) if kind == "ts" else ()
        self._peer_sends(sport, dport, self.irs[which] + 1, una, ACK, ts)

    def _peer_sends(
        self, sport: int, dport: int, seq: int, ack: int, flags: int, options: tuple[Any, ...]
    ) -> None:
        self.server.net.send_ip(build_ip(Segment(
            PEER, self.server.addr, sport, dport, seq & MASK, ack, flags, 5000, options=options
        )))  # fmt: skip
        self.server.settle()

    def do_data(self, which: int, count: int, lost: int) -> None:
        """Segments in order, one of them lost."""
        self._stream(which, [n for n in range(count) if n != lost])

    def _stream(self, which: int, places: list[int]) -> None:
        for place in places:
            self.do_segment(which, ACK | PSH, 1000 * place, ("una", 0), 1000, 5000, "ts")

    def do_ack(self, which: int, window: int) -> None:
        """All that is in flight has come."""
        self.do_segment(which, ACK, 0, ("nxt", 0), 0, window, "ts")

    def do_dupacks(self, which: int, count: int) -> None:
        """Something of it is missing."""
        for _ in range(count):
            self.do_segment(which, ACK, 0, ("una", 0), 0, 5000, "ts")

    def do_sacks(self, which: int, acked: int, edges: list[tuple[int, int, int]]) -> None:
        """Some of what is in flight has come: SACKs, D-SACKs, partial and old ACKs."""
        dport, sport = self.ports(which)
        key = (self.server.addr, dport, PEER, sport)
        rcv_nxt, una, nxt, tsval = self._numbers(key, which)
        blocks: list[int] = []
        for start, length, odd in edges:
            blocks += [una + 536 * start + odd & MASK, una + 536 * (start + length) & MASK]
        ack = una + 536 * acked & MASK
        options = (("TS", (tsval, self.stack.clock.now_us // 1000 & MASK)),) if acked & 1 else ()
        self.server.net.send_ip(build_ip(Segment(
            PEER, self.server.addr, sport, dport, rcv_nxt,
            ack if seq_diff(nxt, ack) >= 0 else nxt, ACK, 5000, b"",
            options=(*options, ("sack", tuple(blocks[: 6 if options else 8]))),
        )))  # fmt: skip
        self.server.settle()

    def do_overlap(self, which: int, pieces: list[tuple[int, int]]) -> None:
        """Pieces of the stream in any order, which cover each other in part."""
        dport, sport = self.ports(which)
        key = (self.server.addr, dport, PEER, sport)
        first = self._numbers(key, which)[0]
        for start, length in pieces:
            seq = 10 * start - seq_diff(self._numbers(key, which)[0], first)
            self.do_segment(which, ACK, seq, ("una", 0), 10 * length, 5000, "none")

    def do_urgent(self, which: int, seq: int, length: int, pointer: int) -> None:
        """Text with a mark in it, behind it or far from it."""
        self.do_segment(which, ACK | URG, seq, ("una", 0), length, 5000, "none", pointer)

    def do_stranger(self, which: int, flags: int, seq: int, ack: int, length: int) -> None:
        """Somebody who knows the addresses and not the numbers: nothing moves (RFC 5961)."""
        dport, sport = self.ports(which)
        sk = self.tcp.ehash.get((self.server.addr, dport, PEER, sport))
        if sk is None or sk.tp.state == TCP_SYN_SENT:
            return
        before = _progress(sk)
        self.do_segment(which, flags, seq, ("una", ack), length, 5000, "none")
        assert sk.tp is not None and _progress(sk) == before, "a stranger was believed"

    def do_fin(self, which: int) -> None:
        """The peer has no more to say."""
        self.do_segment(which, ACK | FIN, 0, ("nxt", 0), 0, 5000, "ts")

    def do_icmp(self, which: int, code: int) -> None:
        """An ICMP unreachable about the oldest segment in flight."""
        dport, sport = self.ports(which)
        sk = connection_at(self.tcp, (self.server.addr, dport, PEER, sport))
        seq = sk.tp.snd_una if sk is not None else 0
        quoted = struct.pack(">HHI", dport, sport, seq)
        _, err = self.stack.ip.inet_protos[6]
        assert err is not None
        err(3, code, 600, self.server.addr, PEER, quoted)

    # The application.

    def do_accept(self) -> None:
        try:
            self.sockets.append(self.lsk.accept())
        except OSError:
            return

    def do_connect(self) -> None:
        self.outgoing += 1
        self.sockets.append(self.server.connect(PEER, self.outgoing))

    def do_relisten(self) -> None:
        self.lsk.close()
        self.server.settle()
        self._listen(1)

    def do_wait(self, delta_us: int) -> None:
        self.server.advance_us(delta_us)

    def do_starve(self, left: int) -> None:
        """Take all memory but a few pages."""
        mem = self.stack.net.mem
        while mem.free_pages > left:
            try:
                self.hoard.append(mem.alloc_pages(0))
            except MemoryError:
                break

    def do_squeeze(self, pages: int) -> None:
        """Let TCP have only so many pages (tcp_mem)."""
        config = self.stack.config
        tcp = replace(config.tcp, tcp_mem=(max(pages // 2, 1), pages, 2 * pages))
        self.stack.set_config(replace(config, tcp=tcp))

    def do_relieve(self) -> None:
        for addr in self.hoard:
            self.stack.net.mem.put_page(addr)
        self.hoard.clear()
        self.do_squeeze(1 << 20)

    def do_call(self, which: int, what: str) -> None:
        live = [s for s in self.sockets if not s.closed]
        if not live:
            return
        sk = live[which % len(live)]
        verb, *args = what.split()
        number = int(args[0]) if args else 0
        try:
            self._call(sk, verb, number)
        except OSError:
            return

    def _call(self, sk: Any, verb: str, number: int) -> None:
        one = struct.pack("i", 1)
        match verb:
            case "send" | "more":
                at = self.written.get(id(sk), 0)
                count = sk.send(pattern(at, number or 100), 0x8000 if verb == "more" else 0)
                self.written[id(sk)] = at + count
            case "recv":
                got = sk.recv(number)
                if got:
                    self._read(sk, got)
            case "drain":
                while sk.recv(4096, 0x20):
                    self.read[id(sk)] = self._position(sk)
            case "oob":
                got = sk.recv(1, 1)
                assert len(got) <= 1
            case "inline":
                sk.setsockopt(1, SO_OOBINLINE, one)
            case "peek":
                sk.recv(100, 2)
            case "shutdown":
                sk.shutdown(number)
            case "close":
                sk.close()
            case "nodelay":
                sk.setsockopt(6, 1, 1)
            case "cork" | "uncork":
                sk.setsockopt(6, 3, int(verb == "cork"))
            case "keepalive":
                sk.setsockopt(1, 9, one)
            case "linger":
                sk.setsockopt(1, 13, struct.pack("ii", 1, 0))
            case "rcvbuf":
                sk.setsockopt(1, 8, 3000)
            case "lowat":
                sk.setsockopt(1, 18, 5000)
            case "connect":
                sk.connect(PEER, 9100)
            case "poll":
                sk.poll()

    @staticmethod
    def _position(sk: Any) -> int:
        """Where in the stream the application reads next."""
        tp = sk._sk.tp
        return tp.copied_seq - tp.irs - 1 & MASK

    def _read(self, sk: Any, got: bytes) -> None:
        """Each byte is the peer's of that place; only urgent ones may have been stepped over."""
        here = self._position(sk)
        at = here - len(got)
        assert got == pattern(at, len(got)), "the stream is not what the peer sent"
        assert 0 <= at - self.read.get(id(sk), 0) <= self.urgent, "bytes are lost"
        self.read[id(sk)] = here


def finish(bench: Bench, free_blocks: list[int]) -> None:
    """Close everything, let every timer run out, and look for what is left.

    Args:
        free_blocks: the arena's, by order, before there was any socket.
    """
    bench.do_relieve()
    bench.lsk.close()
    for sk in bench.sockets:
        sk.close()
    bench.server.settle()
    bench.watch()
    bench.server.advance_us(3_000_000_000)
    assert leftovers(bench.stack) == {}
    bench.stack.drop_slab()
    assert bench.stack.net.mem.buddyinfo() == free_blocks
