"""The path MTU found without ICMP: RFC 4821 as Linux has it (tcp_mtu_probe, tcp_mtu_probing)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, host
from kit.icmp import frag_needed
from kit.peer import Peer
from kit.segment import MASK, pattern
from ustack.config import TcpConfig, UstackConfig

SECOND = 1_000_000
BASE = 1024
HALF_WAY = 1242
"""Between a packet of 1024 + 40 bytes and one of 1500, less headers."""
ALWAYS = TcpConfig(tcp_mtu_probing=2, tcp_timestamps=0, tcp_congestion_control="reno")
AFTER_TIMEOUTS = replace(ALWAYS, tcp_mtu_probing=1, tcp_early_retrans=0)


class Path:
    """A connection of ours through a path that may drop what is too large."""

    def __init__(self, config: TcpConfig = ALWAYS, options: str = "mss 1460", **parts: Any) -> None:
        self.host: Host = host(TEST_CONFIG, tcp=config, **parts)
        self.peer: Peer = self.host.peer(port=80, to=None)
        self.sk = self.host.connect()
        self.peer.answer_syn(options)
        self.written = 0
        self.acked = 1

    @property
    def tp(self) -> Any:
        return self.sk._sk.tp

    @property
    def mtup(self) -> Any:
        return self.sk._sk.mtup

    @property
    def mib(self) -> Any:
        return self.host.mib

    def write(self, length: int) -> None:
        """Let the application write as many bytes more."""
        self.sk.setsockopt(1, 7, 200_000)
        assert self.sk.send(pattern(self.written, length)) == length
        self.written += length

    def out(self) -> list[int]:
        """Return the sizes of the segments that have come since the last look."""
        return [len(seg.payload) for seg in self.peer.drain() if seg.payload]

    def ack(self, up_to: int | None = None, win: int = 65535) -> None:
        """Acknowledge all that was sent, or the bytes below ``up_to``."""
        if up_to is None:
            up_to = (self.tp.snd_nxt - self.tp.iss) & MASK
        self.acked = up_to
        self.peer.send(f". 1:1(0) ack {up_to} win {win}")

    def window_of_eleven(self) -> None:
        """Send and acknowledge what lets cwnd grow enough for a probe."""
        self.write(10 * BASE)
        assert self.out() == [BASE] * 10
        self.host.advance_us(10_000)
        self.ack()

    def probe(self) -> int:
        """Have a probe sent with enough behind it; return its size."""
        self.write(30_000)
        return self.out()[0]

    def finish(self) -> list[int]:
        """Acknowledge all that comes until nothing is out; return the sizes of all of it."""
        sizes = self.out()
        while self.tp.snd_una != self.tp.snd_nxt:
            self.ack()
            sizes += self.out()
        return sizes

    def dup(self, times: int) -> None:
        """Acknowledge the same again and again."""
        for _ in range(times):
            self.peer.send(f". 1:1(0) ack {self.acked}")


# Where it begins.


def test_segments_of_a_search_begin_at_tcp_base_mss():
    path = Path()
    path.write(3000)
    assert path.out() == [BASE, BASE, 3000 - 2 * BASE]


@pytest.mark.parametrize("mode", [0, 1])
def test_without_a_search_they_are_as_large_as_the_route_takes(mode):
    path = Path(replace(ALWAYS, tcp_mtu_probing=mode))
    path.write(3000)
    assert path.out() == [1460, 1460, 80]
    assert path.mtup is None


@pytest.mark.parametrize("base", [200, 512, 1400])
def test_tcp_base_mss_says_where(base):
    path = Path(replace(ALWAYS, tcp_base_mss=base))
    path.write(3000)
    assert path.out()[0] == base


def test_a_peer_with_a_small_mss_is_not_sent_more():
    path = Path(options="mss 536")
    path.write(3000)
    assert max(path.out()) == 536


def test_a_base_above_the_path_does_no_harm():
    path = Path(replace(ALWAYS, tcp_base_mss=9000))
    path.write(3000)
    assert path.out() == [1460, 1460, 80]


def test_an_accepted_connection_begins_small_when_the_peers_window_has_grown():
    """Linux makes the segment size of a child before its search begins."""
    one = host(tcp=ALWAYS)
    sk, peer = one.established("mss 1460", win=30_000)
    sk.send(pattern(0, 2920))
    assert [len(s.payload) for s in peer.drain()] == [1460, 1460]
    peer.send(". 1:1(0) ack 2921 win 60000")
    sk.send(pattern(2920, 2048))
    assert [len(s.payload) for s in peer.drain()] == [BASE, BASE]


# Probes.


@pytest.mark.rfc("4821", "7.3")
def test_a_probe_is_half_way_to_what_the_route_takes():
    path = Path()
    path.window_of_eleven()
    assert path.probe() == HALF_WAY


@pytest.mark.rfc("4821", "7.3")
def test_only_one_segment_is_larger():
    path = Path()
    path.window_of_eleven()
    path.write(30_000)
    sizes = path.out()
    assert sizes[0] == HALF_WAY
    assert set(sizes[1:]) == {BASE}


def test_a_probe_costs_two_segments_of_cwnd():
    path = Path()
    path.window_of_eleven()
    cwnd = path.tp.snd_cwnd
    path.probe()
    assert path.tp.snd_cwnd == cwnd - 1


@pytest.mark.rfc("4821", "7.4")
def test_no_second_probe_while_one_is_out():
    path = Path()
    path.window_of_eleven()
    path.probe()
    path.write(30_000)
    assert HALF_WAY not in path.out()


@pytest.mark.parametrize("fastpath", [False, True])
def test_an_acknowledged_probe_is_the_new_segment_size(fastpath):
    path = Path(ustack=UstackConfig(tcp_fastpath=fastpath))
    path.window_of_eleven()
    path.probe()
    path.ack()
    assert path.mib.TCPMTUPSuccess == 1
    path.write(5000)
    assert path.tp.mss_cache == HALF_WAY


def test_a_part_of_the_probe_acknowledged_is_no_success():
    path = Path()
    path.window_of_eleven()
    path.probe()
    path.ack(path.acked + HALF_WAY - 1)
    assert path.mib.TCPMTUPSuccess == 0
    path.ack(path.acked + 1)
    assert path.mib.TCPMTUPSuccess == 1


def test_the_window_in_bytes_stays_the_same_when_segments_grow():
    path = Path()
    path.window_of_eleven()
    cwnd = path.tp.snd_cwnd
    path.probe()
    path.ack(path.acked + HALF_WAY)
    assert path.tp.snd_cwnd == (cwnd - 1) * (BASE + 40) // (HALF_WAY + 40) + 1  # slow start


@pytest.mark.rfc("4821", "7.3")
def test_the_search_ends_within_tcp_probe_threshold_of_the_route():
    path = Path()
    path.window_of_eleven()
    sizes = []
    for _ in range(12):
        path.write(30_000)
        path.finish()
        if path.tp.mss_cache not in sizes:
            sizes.append(path.tp.mss_cache)
    assert sizes[-1] == 1453
    assert set(sizes) <= {1242, 1351, 1405, 1432, 1446, 1453}
    assert path.mib.TCPMTUPSuccess == 6


def test_tcp_probe_threshold_says_when():
    path = Path(replace(ALWAYS, tcp_probe_threshold=1500 - 1064 + 1))
    path.window_of_eleven()
    assert path.probe() == BASE


def test_timestamps_are_taken_off_a_probe():
    path = Path(replace(ALWAYS, tcp_timestamps=1), "mss 1460,nop,nop,TS val 1 ecr *")
    path.write(10 * BASE)
    path.out()
    up_to = 10 * BASE + 1
    path.peer.send(f". 1:1(0) ack {up_to} <nop,nop,TS val 2 ecr *>")
    assert path.probe() == ((1500 + BASE + 52) >> 1) - 52


# When there is none.


@pytest.mark.rfc("4821", "7.3")
def test_no_probe_with_less_data_than_shows_its_loss():
    path = Path()
    path.window_of_eleven()
    path.write(HALF_WAY + 4 * BASE - 1)
    assert HALF_WAY not in path.out()
    path.ack()
    path.write(HALF_WAY + 4 * BASE)
    assert path.out()[0] == HALF_WAY


def test_no_probe_with_a_small_cwnd():
    path = Path()
    path.write(5 * BASE)
    path.out()
    path.ack()
    assert path.tp.snd_cwnd == 10
    assert path.probe() == BASE


def test_no_probe_into_a_small_window():
    path = Path()
    path.write(10 * BASE)
    path.out()
    path.ack(win=HALF_WAY + 4 * BASE - 1)
    assert path.probe() == BASE


def test_when_the_peers_window_is_nearly_used_a_probe_is_waited_for():
    path = Path()
    path.write(10 * BASE)
    path.out()
    path.ack(win=12_000)
    path.write(6 * BASE)
    assert path.out() == [HALF_WAY] + [BASE] * 4 + [6 * BASE - HALF_WAY - 4 * BASE]
    path.ack(path.acked + HALF_WAY, win=11_000)
    path.write(20_000)
    path.peer.expect_nothing()
    path.ack(win=12_000)
    assert path.out()[0] == 1351


def test_with_cwnd_nearly_used_a_probe_is_waited_for():
    path = Path()
    path.window_of_eleven()
    path.write(19 * BASE)
    path.mtup.probe_size = 1  # none goes yet
    path.out()
    path.mtup.probe_size = 0
    path.tp.snd_cwnd = path.tp.packets_out + 1
    path.write(20_000)
    path.peer.expect_nothing()


def test_no_probe_while_a_loss_is_repaired():
    path = Path()
    path.window_of_eleven()
    path.mtup.probe_size = 1
    path.write(12 * BASE)
    path.mtup.probe_size = 0
    path.out()
    path.dup(3)
    path.write(30_000)
    assert path.tp.ca_state == 3
    assert max(path.out()) == BASE


def test_no_probe_while_sack_blocks_make_headers_longer():
    path = Path(options="mss 1460,nop,nop,sackOK")
    path.window_of_eleven()
    path.peer.send("P. 101:201(100) ack 10241")
    path.write(30_000)
    assert max(path.out()) <= BASE


# A probe that is lost.


@pytest.mark.rfc("4821", "7.6.2")
def test_a_lost_probe_lowers_what_is_tried_next_and_leaves_cwnd_alone():
    path = Path()
    path.window_of_eleven()
    cwnd = path.tp.snd_cwnd
    path.probe()
    path.dup(3)
    assert path.mib.TCPMTUPFail == 1
    assert path.tp.snd_cwnd == cwnd
    assert path.tp.snd_ssthresh > cwnd // 2
    assert path.mtup.search_high == HALF_WAY + 39
    path.write(30_000)
    assert (BASE + 40 + HALF_WAY + 39 >> 1) - 40 in path.finish()


def test_a_lost_probe_is_repeated_in_small_segments():
    path = Path()
    path.window_of_eleven()
    path.probe()
    path.dup(3)
    sizes = path.out()
    assert sizes[sizes.index(HALF_WAY - BASE) - 1] == BASE


def test_a_lost_probe_is_no_loss_of_the_congestion_control():
    path = Path()
    path.window_of_eleven()
    path.probe()
    path.dup(3)
    assert path.mib.TCPRenoRecovery == 0


def test_a_loss_behind_the_probe_is_one():
    path = Path()
    path.window_of_eleven()
    path.probe()
    path.ack(path.acked + HALF_WAY)
    path.dup(3)
    assert (path.mib.TCPMTUPSuccess, path.mib.TCPMTUPFail) == (1, 0)
    assert path.mib.TCPRenoRecovery == 1


def test_a_probe_that_is_repeated_by_a_timeout_tells_nothing():
    path = Path(replace(ALWAYS, tcp_early_retrans=0))
    path.window_of_eleven()
    path.probe()
    path.host.advance_us(300_000)
    assert path.mib.TCPTimeouts == 1
    assert path.mtup.probe_size == 0
    path.ack()
    assert (path.mib.TCPMTUPSuccess, path.mib.TCPMTUPFail) == (0, 0)


@pytest.mark.linux("tcp_enter_loss")
@pytest.mark.parametrize("probed", [False, True])
def test_a_timeout_with_a_probe_in_flight_is_not_doubted(probed):
    """F-RTO would take the probe's loss for congestion that was not there."""
    path = Path(replace(ALWAYS, tcp_early_retrans=0))
    path.window_of_eleven()
    path.write(30_000 if probed else 3 * BASE)
    path.host.advance_us(300_000)
    assert path.mib.TCPTimeouts == 1
    assert path.sk._sk.recovery.frto is not probed


def test_with_sack_a_lost_probe_is_found_as_well():
    path = Path(options="mss 1460,nop,nop,sackOK")
    path.window_of_eleven()
    path.probe()
    end = path.acked + HALF_WAY
    path.host.advance_us(10_000)
    path.peer.send(f". 1:1(0) ack {path.acked} <nop,nop,sack {end}:{end + 4 * BASE}>")
    assert path.mib.TCPMTUPFail == 1
    assert path.mib.TCPSackRecovery == 0
    assert BASE in path.out()


# Black holes.


@pytest.mark.rfc("4821", "7.7")
def test_timeouts_make_segments_smaller_and_smaller():
    path = Path(AFTER_TIMEOUTS)
    path.write(5000)
    path.out()
    sizes = []
    for _ in range(120):
        path.host.advance_us(SECOND)
        sizes += path.out()
    assert list(dict.fromkeys(sizes)) == [1460, 1024, 512, 256, 128, 64]


def test_only_after_tcp_retries1():
    path = Path(replace(AFTER_TIMEOUTS, tcp_retries1=1))
    path.write(5000)
    path.out()
    path.host.advance_us(2 * SECOND)
    assert path.out() == [1460, 1460, 1024]


@pytest.mark.parametrize("knob", ["tcp_mtu_probe_floor", "tcp_min_snd_mss"])
def test_the_floor_holds(knob):
    path = Path(replace(AFTER_TIMEOUTS, tcp_base_mss=600, **{knob: 400}))
    path.write(5000)
    path.out()
    path.host.advance_us(60 * SECOND)
    assert list(dict.fromkeys(path.out())) == [1460, 600, 400]


def test_without_tcp_mtu_probing_the_size_stays():
    path = Path(replace(AFTER_TIMEOUTS, tcp_mtu_probing=0))
    path.write(5000)
    path.out()
    path.host.advance_us(60 * SECOND)
    assert set(path.out()) == {1460}


def test_a_transfer_gets_through_a_black_hole_and_finds_its_size():
    """A router with an MTU of 1300 drops what is longer and says nothing."""
    path = Path(AFTER_TIMEOUTS, "mss 1460,nop,nop,sackOK")
    total, held, largest = 300_000, {}, 0
    path.sk.setsockopt(1, 7, 200_000)
    data = pattern(0, total)
    for _ in range(20_000):
        if path.acked > total:
            break
        try:
            path.written += path.sk.send(data[path.written : path.written + 20_000])
        except BlockingIOError:
            pass
        for seg in path.peer.drain():
            size = len(seg.payload)
            if size and size <= 1260:
                held[(seg.seq - path.peer.host_iss) & MASK] = size
                largest = max(largest, size)
        path.host.advance_us(20_000)
        while path.acked in held:
            path.acked += held.pop(path.acked)
        later = sorted((at, at + n) for at, n in held.items() if at > path.acked)
        sack = f" <nop,nop,sack {later[0][0]}:{later[0][1]}>" if later else ""
        path.peer.send(f". 1:1(0) ack {path.acked}{sack}")
    assert path.acked > total
    assert path.mib.TCPMTUPSuccess >= 2
    assert path.mib.TCPMTUPFail >= 1
    assert 1240 <= largest <= 1260


# What else tells about the path.


def test_the_search_begins_anew_after_tcp_probe_interval():
    path = Path(replace(ALWAYS, tcp_slow_start_after_idle=False))
    path.window_of_eleven()
    path.mtup.search_high = BASE + 40
    assert path.probe() == BASE
    path.finish()
    path.host.advance_us(600 * SECOND)
    assert path.mtup.search_high == BASE + 40
    path.write(10_000)  # notices that it is time
    path.finish()
    assert path.mtup.search_high == 1500
    assert path.probe() == HALF_WAY


def test_an_icmp_error_lowers_what_is_searched():
    path = Path()
    path.window_of_eleven()
    path.write(3 * BASE)
    first = path.peer.drain()[0]
    frag_needed(path.host, first, 1200)
    assert path.mtup.search_high == 1200
    assert path.out() == []  # all that is out fits
    path.ack()
    assert path.probe() == (1200 + BASE + 40 >> 1) - 40


def test_an_icmp_error_about_a_probe_repeats_it_at_once_and_decides_nothing():
    path = Path()
    path.window_of_eleven()
    path.write(30_000)
    probe = path.peer.drain()[0]
    assert len(probe.payload) == HALF_WAY
    frag_needed(path.host, probe, 1200)
    assert path.out() == [BASE]
    path.ack(path.acked + BASE)
    assert path.out()[0] == HALF_WAY - BASE
    assert (path.mib.TCPMTUPSuccess, path.mib.TCPMTUPFail) == (0, 0)
    assert path.mtup.search_high == 1200


# The other end's tricks.


@pytest.mark.linux("net.ipv4.tcp_min_snd_mss")
@pytest.mark.parametrize(("least", "size"), [(48, 48), (300, 300)])
def test_an_mss_too_small_to_be_honest_is_not_obeyed(least, size):
    one = host(tcp=TcpConfig(tcp_min_snd_mss=least, tcp_timestamps=0))
    sk, peer = one.established("mss 1")
    sk.send(pattern(0, 3 * size))
    assert [len(s.payload) for s in peer.drain()] == [size] * 3


def test_timestamps_are_part_of_tcp_min_snd_mss():
    one = host()
    sk, peer = one.established("mss 1,sackOK,TS val 1 ecr 0")
    peer.send(". 1:1(0) ack 1 <nop,nop,TS val 1 ecr *>")
    sk.send(pattern(0, 72))
    assert [len(s.payload) for s in peer.drain()] == [36, 36]


def test_a_window_too_small_to_be_honest_makes_no_smaller_segments_than_an_mtu_of_68():
    one = host()
    sk, peer = one.established("mss 1000", win=20)
    sk.send(pattern(0, 200))
    assert sk.getsockopt(6, 2) == 48
    peer.send(". 1:1(0) ack 1 win 50")
    assert sk.getsockopt(6, 2) == 48 or sk.getsockopt(6, 2) == 50
