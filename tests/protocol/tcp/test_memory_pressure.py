"""tcp_mem: what counts, when pressure begins and ends, who is refused what, who gives way."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, host
from kit.peer import Peer
from kit.segment import RST, pattern
from ustack.config import LINUX_6, LINUX_310, TcpConfig
from ustack.core.sysctl import sysctl_read, with_profile
from ustack.lib.drop_reason import DropReason
from ustack.sock.wait import EPOLLOUT, WaitEntry

PAGE = 4096
NO_LIMIT = 1 << 20
WIDE = "mss 1460,sackOK,nop,wscale 7"


def with_limits(low: int, pressure: int, most: int, **tcp: Any) -> Host:
    """A host whose TCP may hold so many pages."""
    return host(tcp=TcpConfig(tcp_mem=(low, pressure, most), **tcp))


def pages(h: Host) -> int:
    return h.stack.tcp.pressure.allocated


def is_under_pressure(h: Host) -> bool:
    return bool(h.stack.tcp.pressure.since_us)


def set_limits(h: Host, low: int, pressure: int, most: int) -> None:
    """sysctl -w net.ipv4.tcp_mem="low pressure most"."""
    config = h.stack.config
    h.stack.set_config(replace(config, tcp=replace(config.tcp, tcp_mem=(low, pressure, most))))


def tell(peer: Peer, start: int, length: int, step: int = 1000) -> None:
    """Have the peer send text from ``start`` on."""
    for at in range(start, start + length, step):
        peer.send(f"P. {at}:{at + step}({step}) ack 1")


def fill(sk: Any, chunk: int = 60_000) -> int:
    """Write until it would wait; return how many bytes were taken."""
    taken = 0
    try:
        while True:
            taken += sk.send(bytes(chunk))
    except BlockingIOError:
        return taken


def others_hold(h: Host, count: int) -> None:
    """Let somebody else have ``count`` pages."""
    h.stack.tcp.fast.ptr.ofo_pages += count


def others_give_back(h: Host, count: int) -> None:
    h.stack.tcp.fast.ptr.ofo_pages -= count


# What counts.


@pytest.mark.linux("tcp_init_mem")
def test_the_limits_follow_from_the_arena_unless_they_are_set():
    assert sysctl_read(host().stack.config, "net.ipv4.tcp_mem") == "3072\t4096\t6144"
    assert sysctl_read(with_limits(1, 2, 3).stack.config, "net.ipv4.tcp_mem") == "1\t2\t3"


def test_what_is_written_counts_until_it_is_acknowledged(server):
    sk, peer = server.established("mss 1460")
    assert sk.send(bytes(10_000)) == 10_000
    assert pages(server) == sk._sk.tp.write_queue.truesize // PAGE >= 3
    peer.send(". 1:1(0) ack 10001")
    assert pages(server) == 0


def test_what_is_to_be_read_counts_until_it_is_read(server):
    sk, peer = server.established("mss 1460")
    tell(peer, 1, 10_000)
    assert pages(server) >= 3
    assert len(sk.recv(9_999)) == 9_999 and 1 <= pages(server) < 3
    sk.recv(1)
    assert pages(server) == 0


def test_what_is_out_of_order_counts_until_the_hole_is_filled_or_all_is_over(server):
    sk, peer = server.established(WIDE)
    tell(peer, 2001, 10_000)
    assert pages(server) == 3
    tell(peer, 1, 2_000)
    assert len(sk.recv(20_000)) == 12_000 and pages(server) == 0
    tell(peer, 20_001, 9_000)
    assert pages(server) == 3
    sk.close()
    peer.send("R 12001:12001(0)")
    assert pages(server) == 0


# Pressure.


@pytest.mark.linux("tcp_enter_memory_pressure")
def test_pressure_begins_above_the_second_limit_and_ends_below_the_first():
    h = with_limits(4, 8, NO_LIMIT)
    _, peer = h.established(WIDE)
    others_hold(h, 7)
    tell(peer, 1, 1_000)
    assert not is_under_pressure(h)
    others_hold(h, 1)
    tell(peer, 1_001, 1_000)
    assert is_under_pressure(h) and h.mib.TCPMemoryPressures == 1
    h.advance_us(3_000_000)
    others_give_back(h, 3)
    tell(peer, 2_001, 1_000)
    assert is_under_pressure(h) and pages(h) == 6
    others_give_back(h, 3)
    h.settle()
    assert not is_under_pressure(h)
    assert (h.mib.TCPMemoryPressures, h.mib.TCPMemoryPressuresChrono) == (1, 3000)


def test_a_connection_that_ends_may_end_the_pressure():
    h = with_limits(2, 3, NO_LIMIT)
    _, peer = h.established(WIDE)
    tell(peer, 1, 20_000)
    assert is_under_pressure(h)
    peer.send("R. 20001:20001(0) ack 1")
    h.stack.tcp.socks.clear()
    assert pages(h) >= 2  # the reader may still have it
    set_limits(h, 100, 200, 300)
    h.settle()
    assert not is_under_pressure(h)


@pytest.mark.linux("us_tcp_memory_abounds: C stands aside")
def test_under_pressure_every_segment_is_pythons():
    h = with_limits(2, 3, NO_LIMIT)
    sk, peer = h.established(WIDE)
    tell(peer, 1, 30_000)
    assert is_under_pressure(h)
    taken = h.stack.tcp.fast.ptr.mib.fast_rx
    tell(peer, 30_001, 3_000)
    assert h.stack.tcp.fast.ptr.mib.fast_rx == taken
    assert sk.recv(40_000) == pattern(0, 33_000)
    tell(peer, 33_001, 3_000)
    assert h.stack.tcp.fast.ptr.mib.fast_rx == taken + 3


# Windows and buffers.


@pytest.mark.linux("tcp_grow_window")
def test_under_pressure_the_window_does_not_grow():
    grown = []
    for limits in ((NO_LIMIT, NO_LIMIT, NO_LIMIT), (1, 1, NO_LIMIT)):
        h = with_limits(*limits)
        sk, peer = h.established(WIDE)
        others_hold(h, 2)
        before = sk._sk.tp.rcv_ssthresh
        for at in range(1, 60_000, 1460):
            peer.send(f". {at}:{at + 1460}(1460) ack 1")
            sk.recv(2000)
        grown.append(sk._sk.tp.rcv_ssthresh - before)
    assert grown[0] > 0 > grown[1]


@pytest.mark.linux("__tcp_select_window")
def test_under_pressure_four_segments_are_offered_once_half_the_buffer_is_full():
    h = with_limits(NO_LIMIT, NO_LIMIT, NO_LIMIT)
    sk, peer = h.established(WIDE)
    tp = sk._sk.tp
    tell(peer, 1, 20_000)
    others_hold(h, 2 * NO_LIMIT)
    tell(peer, 20_001, 20_000)
    assert is_under_pressure(h)
    assert tp.rcv_ssthresh <= 4 * tp.advmss
    peer.drain()
    sk.recv(40_000)
    h.advance_us(1_000_000)
    tell(peer, 40_001, 6_000)
    assert peer.drain()[-1].window << tp.rcv_wscale <= 65_535


@pytest.mark.linux("tcp_clamp_window")
def test_a_receive_buffer_grows_beyond_its_size_only_while_memory_is_plenty():
    sizes = []
    for low in (NO_LIMIT, 1):
        h = with_limits(
            low, NO_LIMIT, NO_LIMIT, tcp_rmem=(4096, 16_384, 65_536), tcp_moderate_rcvbuf=False
        )
        sk, peer = h.established(WIDE)
        for at in range(3, 200, 2):
            peer.send(f". {at}:{at + 1}(1) ack 1")
        sizes.append(sk._sk.tp.sk_rcvbuf)
    assert sizes[0] > sizes[1] == 16_384


@pytest.mark.linux("tcp_should_expand_sndbuf")
def test_a_send_buffer_grows_only_while_memory_is_plenty():
    sizes = []
    for low in (NO_LIMIT, 1):
        h = with_limits(low, NO_LIMIT, NO_LIMIT)
        sk, peer = h.established(WIDE)
        at = 1
        for _ in range(4):
            fill(sk, 20_000)
            for seg in peer.drain():
                at += len(seg.payload)
                peer.send(f". 1:1(0) ack {at}")
        sizes.append(sk.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
    assert sizes[0] > sizes[1] == 87_040


# Receivers.


@pytest.mark.linux("tcp_data_queue: sk_forced_mem_schedule")
def test_above_the_third_limit_who_has_nothing_to_read_still_gets_text():
    h = with_limits(1, 2, 3)
    sk, peer = h.established(WIDE)
    others_hold(h, 10)
    peer.drain()
    tell(peer, 1, 1_000)
    assert peer.drain()[-1].window == 0  # there is no more where that came from
    assert h.mib.TCPRcvQDrop == 0
    assert sk.recv(2_000) == pattern(0, 1_000)


@pytest.mark.linux("tcp_data_queue: TCPRcvQDrop")
def test_above_the_third_limit_who_has_something_to_read_gets_no_more():
    h = with_limits(NO_LIMIT, NO_LIMIT, NO_LIMIT)
    sk, peer = h.established(WIDE)
    tell(peer, 1, 1_000)
    set_limits(h, 1, 1, 1)
    others_hold(h, 1)
    tell(peer, 1_001, 1_000)
    answer = peer.drain()[-1]
    assert (answer.ack - peer.iss & 0xFFFFFFFF, answer.window) == (1_001, 0)
    assert h.mib.TCPRcvQDrop == h.stack.net.drops[DropReason.PROTO_MEM] == 1
    assert h.mib.PruneCalled == 1
    set_limits(h, NO_LIMIT, NO_LIMIT, NO_LIMIT)
    assert sk.recv(2_000) == pattern(0, 1_000)
    tell(peer, 1_001, 1_000)
    assert sk.recv(2_000) == pattern(1_000, 1_000)


@pytest.mark.rfc("7323", "2.4")
def test_an_ack_from_beyond_a_window_that_was_taken_back_counts():
    h = with_limits(NO_LIMIT, NO_LIMIT, NO_LIMIT)
    sk, peer = h.established(WIDE)
    sk.send(bytes(1_000))
    tell(peer, 1, 1_000)
    set_limits(h, 1, 1, 1)
    others_hold(h, 1)
    tell(peer, 1_001, 1_000)
    peer.drain()
    peer.send(". 20001:20001(0) ack 1001")
    assert sk._sk.tp.snd_una == sk._sk.tp.snd_nxt
    assert sk._sk.rcv_mwnd_seq is not None
    set_limits(h, NO_LIMIT, NO_LIMIT, NO_LIMIT)
    assert len(sk.recv(2_000)) == 1_000
    for at in range(1_001, 60_001, 1_000):
        tell(peer, at, 1_000)
        sk.recv(1_000)
    assert sk._sk.rcv_mwnd_seq is None and not sk._sk.tp.slow  # all of it is offered again
    peer.send(". 400001:400001(0) ack 1001")
    assert h.mib.BeyondWindow == 1


@pytest.mark.linux("tcp_data_queue_ofo: TCPOFODrop")
def test_above_the_third_limit_nothing_beyond_a_hole_is_kept():
    h = with_limits(1, 2, 3)
    _, peer = h.established(WIDE)
    others_hold(h, 10)
    tell(peer, 2_001, 1_000)
    assert h.mib.TCPOFODrop == 1
    assert pages(h) == 10


@pytest.mark.linux("tcp_prune_ofo_queue")
def test_what_fills_the_hole_is_worth_what_lies_far_beyond_it():
    h = with_limits(NO_LIMIT, NO_LIMIT, NO_LIMIT)
    sk, peer = h.established(WIDE)
    tell(peer, 1, 1_000)
    tell(peer, 10_001, 8_000)
    held = pages(h)
    set_limits(h, held - 2, held, held)
    tell(peer, 1_001, 1_000)
    assert h.mib.OfoPruned == 1
    assert sk.recv(3_000) == pattern(0, 2_000)


@pytest.mark.linux("tcp_prune_ofo_queue, of a tree and of 3.10's list")
@pytest.mark.parametrize(("profile", "left"), [(LINUX_6, True), (LINUX_310, False)])
def test_of_what_lies_beyond_a_hole_the_last_goes_or_in_310_all(profile, left):
    h = host(with_profile(TEST_CONFIG, profile), tcp=TcpConfig(tcp_rmem=(4096, 16_384, 16_384)))
    sk, peer = h.established("mss 1460,sackOK")
    for at in range(1001, 1001 + 2 * (sk._sk.tp.sk_rcvbuf // 257), 2):
        peer.send(f". {at}:{at + 1}(1) ack 1")
    peer.send(". 1:701(700) ack 1")
    assert h.mib.OfoPruned == 1
    assert (sk._sk.ofo is not None) == left
    assert sk.recv(1000) == pattern(0, 700)


@pytest.mark.linux("__sk_mem_raise_allocated: sk_get_rmem0")
def test_under_pressure_nobody_is_refused_his_first_page():
    h = with_limits(1, 1, 1000)
    others_hold(h, 900)
    sk, peer = h.established(WIDE)
    tell(peer, 1, 4_000)
    assert h.mib.PruneCalled == 0
    assert sk.recv(5_000) == pattern(0, 4_000)


@pytest.mark.linux("__sk_mem_raise_allocated: sk_sockets_allocated_read_positive")
def test_under_pressure_who_holds_more_than_his_share_is_refused():
    h = with_limits(1, 1, 40)
    sk, peer = h.established(WIDE)
    shares = 40 // h.stack.memory_info()["TCP"].active_objs
    at = 1
    while not h.mib.PruneCalled:
        tell(peer, at, 1_000)
        at += 1_000
        assert at < 40 * PAGE
    assert sk._sk.tp.receive_queue.truesize // PAGE >= shares - 1


@pytest.mark.linux("tcp_collapse_ofo_queue")
def test_entries_that_touch_are_joined_before_anything_is_dropped():
    h = host(tcp=TcpConfig(tcp_rmem=(4096, 16_384, 16_384)))
    sk, peer = h.established("mss 1460,sackOK")
    for at in range(200, 2, -1):
        peer.send(f". {at}:{at + 1}(1) ack 1")
    assert h.mib.TCPRcvCollapsed > 50
    assert (h.mib.OfoPruned, h.mib.TCPOFODrop) == (0, 0)
    peer.send(". 1:3(2) ack 1")
    assert sk.recv(300) == pattern(0, 200)


# Writers.


@pytest.mark.linux("tcp_wmem_schedule")
def test_above_the_third_limit_a_writer_gets_a_page_and_then_waits():
    h = with_limits(1, 2, 3)
    sk, peer = h.established(WIDE)
    others_hold(h, 10)
    assert sk.send(bytes(1_000)) == 1_000
    assert sk.send(bytes(4_000)) > 0
    with pytest.raises(BlockingIOError) as full:
        while sk.send(bytes(1_000)):
            pass
    assert full.value.errno == errno.EAGAIN
    assert sk._sk.tp.write_queue.len <= 4_608 + 65_536  # one packet more than his buffer
    assert pages(h) < 10 + 2 * 17
    assert sum(len(seg.payload) for seg in peer.drain()) > 4_000  # and what he got is on its way


@pytest.mark.linux("sk_stream_moderate_sndbuf")
def test_who_is_refused_has_half_of_what_he_holds_as_his_buffer_unless_he_has_fixed_it():
    sizes = []
    for fixed in (False, True):
        h = with_limits(NO_LIMIT, NO_LIMIT, NO_LIMIT)
        sk, _ = h.established("mss 1460", win=1000)
        if fixed:
            sk.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 45_000)
        assert sk.send(bytes(30_000)) == 30_000
        set_limits(h, 1, 1, 1)
        with pytest.raises(BlockingIOError):
            while sk.send(bytes(1000)):
                pass
        sizes.append(sk.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
    assert sizes == [15_000, 90_000]


@pytest.mark.linux("sk_stream_wait_memory: vm_wait")
def test_a_writer_whom_no_acknowledgment_will_wake_is_woken_all_the_same():
    h = with_limits(1, 2, 3, tcp_wmem=(1, 16_384, 4_194_304))
    sk, _ = h.established(WIDE)
    others_hold(h, 10)
    assert sk.send(b"x") == 1
    with pytest.raises(BlockingIOError):
        sk.send(b"y" * 100)
    woken: list[int] = []
    sk.wq.add(WaitEntry(lambda events: bool(woken.append(events))))
    h.advance_us(300_000)
    assert any(events & EPOLLOUT for events in woken)
    others_give_back(h, 10)
    assert sk.send(b"y" * 100) == 100


def test_a_writer_that_waits_for_memory_may_be_closed():
    h = with_limits(1, 2, 3, tcp_wmem=(1, 16_384, 4_194_304))
    sk, peer = h.established(WIDE)
    others_hold(h, 10)
    sk.send(b"x")
    with pytest.raises(BlockingIOError):
        sk.send(b"y" * 100)
    peer.send("R. 1:1(0) ack 2")
    sk.close()
    h.advance_us(300_000)
    assert pages(h) == 10


# Orphans.


@pytest.mark.linux("tcp_check_oom")
@pytest.mark.parametrize("over", [False, True])
def test_an_orphan_with_data_is_reset_once_tcp_holds_too_much(over: bool):
    h = with_limits(NO_LIMIT, NO_LIMIT, NO_LIMIT)
    sk, peer = h.established("mss 1460", win=1000)
    sk.send(bytes(8_000))
    peer.drain()
    if over:
        set_limits(h, 1, 1, 1)
    sk.close()
    resets = [seg for seg in peer.drain() if seg.flags & RST]
    assert (len(resets), h.mib.TCPAbortOnMemory) == (over, over)
    assert pages(h) == (0 if over else 2)


@pytest.mark.linux("tcp_out_of_memory: SOCK_MIN_SNDBUF")
def test_an_orphan_with_little_data_is_none_to_blame():
    h = with_limits(NO_LIMIT, NO_LIMIT, NO_LIMIT)
    sk, _ = h.established("mss 1460", win=1000)
    sk.send(bytes(4_000))
    set_limits(h, 1, 1, 1)
    sk.close()
    assert h.mib.TCPAbortOnMemory == 0


@pytest.mark.linux("tcp_out_of_resources")
def test_an_orphan_is_looked_at_again_when_its_timer_expires():
    h = with_limits(NO_LIMIT, NO_LIMIT, NO_LIMIT)
    sk, peer = h.established("mss 1460", win=8000)
    sk.send(bytes(8_000))
    sk.close()
    peer.drain()
    set_limits(h, 1, 1, 1)
    h.advance_us(2_000_000)
    assert h.mib.TCPAbortOnMemory == 1
    assert pages(h) == 0


def test_the_limits_are_no_part_of_the_default_configuration():
    assert TEST_CONFIG.tcp.tcp_mem == (0, 0, 0)
