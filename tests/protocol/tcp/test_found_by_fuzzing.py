"""Cases that the fuzzer has found, as short as they get."""

from __future__ import annotations

import pytest

from kit.segment import pattern
from kit.tcp_invariants import leftovers
from ustack.tcp.cong.ops import TCP_CA_DISORDER, TCP_CA_LOSS


def test_a_second_fin_behind_the_first_is_acknowledged_and_changes_nothing(server):
    """Old text with a FIN that stands one behind the peer's own, in CLOSE_WAIT."""
    sk, peer = server.established()
    peer.send(". 1:101(100) ack 1")
    peer.send("F. 101:101(0) ack 1")
    peer.drain()
    peer.send("F. 2:102(100) ack 1")
    peer.expect(". 1:1(0) ack 102")
    assert len(sk.recv(200)) == 100 and sk.recv(1) == b""
    sk.close()
    peer.expect("F. 1:1(0) ack 102")


@pytest.mark.parametrize("shut", [False, True])
def test_the_same_after_our_own_fin(server, shut):
    sk, peer = server.established()
    peer.send("FP. 1:11(10) ack 1")
    peer.drain()
    if shut:
        sk.shutdown(1)
        peer.expect("F. 1:1(0) ack 12")
    peer.send("F. 2:12(10) ack 1")
    assert peer.drain()[-1].ack == peer.iss + 12 & 0xFFFFFFFF


def test_a_window_that_a_lack_of_memory_closed_opens_again(server):
    sk, peer = server.established()
    mem = server.stack.net.mem
    hoard = []
    while mem.free_pages:
        hoard.append(mem.alloc_pages(0))
    peer.send("P. 1:1001(1000) ack 1")
    peer.expect(". 1:1(0) ack 1 win 0")
    for page in hoard:
        mem.put_page(page)
    peer.send("P. 1:2(1) ack 1")  # nobody told the peer: it probes
    assert peer.expect_next().window > 0
    peer.send("P. 1:1001(1000) ack 1")
    assert len(sk.recv(2000)) == 1000


def test_a_segment_that_joins_one_and_covers_another_leaves_no_trace_of_that(server):
    """The receive window counts how far the last segment beyond the hole reaches."""
    sk, peer = server.established()
    peer.send(". 4345:4346(1) ack 1")
    peer.send("P. 3001:4001(1000) ack 1")
    peer.send("P. 4001:5001(1000) ack 1")
    assert sk._sk.ofo.end_after(sk._sk.tp.rcv_nxt) == 5000
    assert (len(sk._sk.ofo), sk._sk.ofo.nbytes) == (1, 2000)
    for start in (1, 1001, 2001):
        peer.send(f"P. {start}:{start + 1000}(1000) ack 1")
    assert sk.recv(9000) == pattern(0, 5000)
    assert sk._sk.ofo is None


def test_what_was_repeated_before_an_undo_is_not_counted_twice_in_flight(server):
    """The timeout was spurious (RFC 5682), its repetition is in flight still; then another."""
    sk, peer = server.established("mss 1460,nop,nop,sackOK,nop,wscale 7")
    sk.send(bytes(20_000))
    server.advance_us(300_000)
    tp = sk._sk.tp
    assert (tp.retrans_out, tp.ca_state) == (1, TCP_CA_LOSS)
    peer.send(". 1:1(0) ack 1 win 5000 <nop,nop,sack 1461:2921>")
    assert (tp.retrans_out, tp.ca_state) == (1, TCP_CA_DISORDER)
    server.advance_us(1_000_000)
    assert (tp.retrans_out, tp.ca_state) == (1, TCP_CA_LOSS)
    peer.drain()
    peer.send(f". 1:1(0) ack {tp.snd_nxt - tp.iss & 0xFFFFFFFF} win 5000")
    assert tp.retrans_out == 0


def test_a_connection_closed_before_it_was_open_leaves_no_memory_of_congestion(server):
    """Closed in SYN_RECV, it goes to FIN_WAIT1 without its congestion control being begun."""
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    peer.expect("S 0:0(0)")
    peer.send("S 0:0(0) win 65535 <mss 1460>")
    sk.close()
    peer.drain()
    peer.send(". 1:1(0) ack 1")
    peer.send("F. 1:1(0) ack 2")
    server.advance_us(61_000_000)
    assert leftovers(server.stack) == {}
