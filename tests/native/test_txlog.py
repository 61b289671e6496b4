"""The log of transmissions in flight: compared with a plain list."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ustack.native.lib import ffi, lib
from ustack.native.mem import PAGE_SIZE, Mem

MASK = 0xFFFFFFFF
steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(1, 40), st.integers(1, 3000), st.integers(0, 9)),
        st.tuples(st.just("push"), st.integers(1, 3), st.integers(1, 1500), st.integers(1, 9)),
        st.tuples(st.just("ack"), st.integers(1, 60_000)),
        st.tuples(st.just("many"), st.integers(200, 600)),
    ),
    max_size=40,
)


class Log:
    """One connection's log and a list beside it: [start, end, pcount, mss, sent]."""

    def __init__(self, start: int, pages: int = 64) -> None:
        self.mem = Mem(pages * PAGE_SIZE)
        self.free = self.mem.free_pages
        self.tp = ffi.new("struct us_tcp_sock *")
        self.una = self.nxt = start
        self.plain: list[list[int]] = []
        self.now = 1

    def push(self, pcount: int, length: int, mss: int, sent: int) -> None:
        end = self.nxt + length & MASK
        psh = lib.US_TX_PSH if length & 1 else 0
        assert lib.us_tcp_tx_push(self.mem.ptr, self.tp, end, pcount | psh, mss, sent) == 0
        self.plain.append([self.nxt, end, pcount, mss, sent, psh])
        self.nxt = end

    def ack(self, ack: int) -> tuple[int, int, int, bool]:
        out = ffi.new("struct us_tx_acked *")
        pkts = lib.us_tcp_tx_ack(self.mem.ptr, self.tp, self.una, ack, out)
        assert pkts == out.pkts
        self.una = ack
        return pkts, out.first_us, out.last_us, bool(out.ambiguous)

    def plain_ack(self, ack: int) -> tuple[int, int, int, bool]:
        distance = ack - self.una & MASK
        pkts, times, ambiguous = 0, [], False
        while self.plain and (self.plain[0][1] - self.una & MASK) <= distance:
            rec = self.plain.pop(0)
            pkts += rec[2]
            times += [rec[4]] if rec[4] else []
            ambiguous = ambiguous or not rec[4]
        if self.plain:
            rec = self.plain[0]
            start = max(rec[0] - self.una & MASK, 0) if rec[0] != self.una else 0
            start = 0 if start > 1 << 31 else start
            left = -(-(rec[1] - ack & MASK) // rec[3])
            if start < distance and rec[2] > 1 and left < rec[2]:
                pkts += rec[2] - left
                rec[2] = left
                times += [rec[4]] if rec[4] else []
                ambiguous = ambiguous or not rec[4]
        return pkts, times[0] if times else 0, times[-1] if times else 0, ambiguous

    def check(self) -> None:
        count = self.tp.txlog.len
        assert count == len(self.plain)
        raw = ffi.new("struct us_tx_rec[]", count + 1)
        assert lib.us_tcp_tx_copy(self.mem.ptr, self.tp, raw, count + 1) == count
        psh = lib.US_TX_PSH
        got = [[r.end_seq, r.pcount & ~psh, r.mss, r.sent_us, r.pcount & psh] for r in raw[0:count]]
        assert got == [rec[1:] for rec in self.plain]
        assert self.tp.packets_out == sum(rec[2] for rec in self.plain)
        if count < 2:
            assert self.mem.free_pages == self.free


@settings(deadline=None)
@given(steps, st.sampled_from([1, 0xFFFFFF00, 0x7FFFFFFF]))
def test_any_order_of_sending_and_acknowledging(script, start):
    log = Log(start)
    for step in script:
        match step:
            case ("push", pcount, mss, sent):
                log.push(pcount, pcount * mss - (mss // 2), mss, sent)
            case ("many", count):
                for i in range(count):
                    log.push(1, 100, 100, 10 + i)
            case ("ack", distance):
                ack = log.una + min(distance, log.nxt - log.una & MASK) & MASK
                if ack != log.una:
                    want = log.plain_ack(ack)
                    assert log.ack(ack) == want
        log.check()


def test_one_transmission_in_flight_needs_no_page():
    log = Log(1)
    for i in range(5):
        log.push(1, 10, 1448, 7 + i)
        assert log.mem.free_pages == log.free
        log.ack(log.nxt)


def test_without_memory_the_newest_grows():
    log = Log(1, pages=16)
    while log.mem.free_pages:
        log.mem.alloc_pages(0)
    assert lib.us_tcp_tx_push(log.mem.ptr, log.tp, 101, 1, 100, 5) == 0
    assert lib.us_tcp_tx_push(log.mem.ptr, log.tp, 201, 1, 100, 6) == 0
    assert (log.tp.txlog.len, log.tp.txlog.first_pcount, log.tp.packets_out) == (1, 2, 2)
    assert lib.us_tcp_tx_push(log.mem.ptr, log.tp, 301, 32_767, 100, 7) == -1
    assert log.tp.packets_out == 2


def test_purging_gives_the_ring_back():
    log = Log(1)
    for _ in range(1000):
        log.push(1, 10, 10, 5)
    lib.us_tcp_tx_purge(log.mem.ptr, log.tp)
    assert log.mem.free_pages == log.free
    assert log.tp.txlog.len == 0
