"""What is left of a connection after close(): its control block alone, until the peer has the FIN.

Most orphans end in C (``tcp_close.c``); whatever else happens to one makes its object again, and
it must know then what it was.
"""

from __future__ import annotations

import pytest

from kit.host import TEST_CONFIG, Host, host
from kit.segment import RST
from kit.tcp_invariants import leftovers
from ustack.config import TcpConfig
from ustack.native.lib import ffi

SECOND = 1_000_000
PEER = 0x0A000001
SOL_TCP, TCP_LINGER2 = 6, 8


def objects(h: Host) -> int:
    """Python objects for connections: the listener's is not one."""
    return len(h.stack.tcp.socks) - 1


def states(h: Host) -> list[str]:
    return sorted(row["state"] for row in h.stack.tcp.diag() if row["state"] != "LISTEN")


def closed(h: Host, *, passive: bool = False):
    """A connection whose FIN is out, perhaps behind the peer's."""
    sk, peer = h.established()
    if passive:
        peer.send("F. 1:1(0) ack 1")
        peer.expect(". 1:1(0) ack 2")
    sk.close()
    peer.expect("F. 1:1(0) ack 2" if passive else "F. 1:1(0) ack 1")
    return peer


def test_an_orphan_has_no_object_and_counts(server):
    closed(server)
    assert objects(server) == 0
    assert server.stack.tcp.orphan_count == 1
    assert server.mib.CurrEstab == 0


def test_the_ack_of_our_fin_ends_last_ack(server):
    peer = closed(server, passive=True)
    peer.send(". 2:2(0) ack 2")
    assert states(server) == [] and server.stack.tcp.orphan_count == 0
    assert server.stack.tcp.tcp_cache.info().active_objs == 1  # the listener's
    peer.send(". 2:2(0) ack 2")
    peer.expect("R 2:2(0)")  # nobody knows of it any more


def test_the_peers_fin_makes_a_time_wait_of_fin_wait2_without_any_object(server):
    peer = closed(server)
    peer.send(". 1:1(0) ack 2")
    assert states(server) == ["FIN-WAIT-2"]
    peer.send("F. 1:1(0) ack 2")
    peer.expect(". 2:2(0) ack 2")
    assert states(server) == ["TIME-WAIT"]
    assert objects(server) == 0 and server.stack.tcp.orphan_count == 0
    server.advance_us(61 * SECOND)
    assert states(server) == []


def test_a_fin_that_acknowledges_ours_is_acknowledged(server):
    peer = closed(server)
    peer.send("F. 1:1(0) ack 2")
    peer.expect(". 2:2(0) ack 2")
    assert states(server) == ["TIME-WAIT"]
    peer.send("F. 1:1(0) ack 2")  # our ACK was lost
    peer.expect(". 2:2(0) ack 2")


@pytest.mark.parametrize("passive", [False, True])
def test_our_fin_is_repeated_until_it_is_acknowledged(server, passive):
    peer = closed(server, passive=passive)
    fin = "F. 1:1(0) ack 2" if passive else "F. 1:1(0) ack 1"
    server.advance_us(3 * SECOND)
    peer.expect(fin)
    peer.drain()
    at = 2 if passive else 1
    peer.send(f". {at}:{at}(0) ack 2")
    assert states(server) == ([] if passive else ["FIN-WAIT-2"])


def test_a_peer_that_is_silent_for_too_long_is_given_up(server):
    closed(server, passive=True)
    server.advance_us(1000 * SECOND)
    assert leftovers(server.stack, listening=True) == {}
    assert server.mib.TCPAbortOnTimeout == 1


def test_text_for_an_orphan_is_answered_with_a_reset(server):
    peer = closed(server)
    peer.send("P. 1:11(10) ack 1")
    assert peer.drain()[-1].flags & RST
    assert states(server) == [] and server.mib.TCPAbortOnData == 1


def test_both_ends_at_once_meet_in_closing(server):
    peer = closed(server)
    peer.send("F. 1:1(0) ack 1")
    peer.expect(". 2:2(0) ack 2")
    assert states(server) == ["CLOSING"]
    peer.send(". 2:2(0) ack 2")
    assert states(server) == ["TIME-WAIT"]


def test_a_reset_ends_an_orphan(server):
    peer = closed(server)
    peer.send("R. 1:1(0) ack 2")
    assert states(server) == [] and server.stack.tcp.orphan_count == 0


def test_its_own_time_in_fin_wait2_is_kept(server):
    sk, peer = server.established()
    sk.setsockopt(SOL_TCP, TCP_LINGER2, 5)
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send(". 1:1(0) ack 2")
    assert states(server) == ["FIN-WAIT-2"]
    server.advance_us(6 * SECOND)
    assert states(server) == []


def test_too_many_orphans_are_reset():
    h = host(TEST_CONFIG, tcp=TcpConfig(tcp_max_orphans=1))
    lsk = h.listen()
    for _ in range(2):
        peer = h.peer()
        peer.handshake()
        lsk.accept().close()
    peer.expect("F. 1:1(0) ack 1")
    assert peer.drain()[-1].flags & RST
    assert h.stack.tcp.orphan_count == 1 and h.mib.TCPAbortOnMemory == 1


@pytest.mark.linux("tcp_out_of_resources: shift")
@pytest.mark.parametrize(("limit", "aborted"), [(3, 1), (4, 0)])
def test_an_orphan_that_is_silent_counts_twice(limit, aborted):
    """Silent for twice the largest RTO, a second here: two are four then, until one is gone."""
    tcp = TcpConfig(tcp_max_orphans=limit, tcp_orphan_retries=20, tcp_rto_max_us=SECOND)
    h = host(TEST_CONFIG, tcp=tcp)
    lsk = h.listen()
    for _ in range(2):
        h.peer().handshake()
        lsk.accept().close()
    h.advance_us(10 * SECOND)
    assert h.mib.TCPAbortOnMemory == aborted


@pytest.mark.linux("tcp_orphan_retries: sk_err_soft")
def test_an_orphan_at_the_largest_rto_is_given_up_unless_the_sysctl_says_how_often():
    for retries, repeated in ((0, 3), (4, 5)):
        tcp = TcpConfig(tcp_orphan_retries=retries, tcp_rto_max_us=SECOND)
        h = host(TEST_CONFIG, tcp=tcp)
        peer = closed(h)
        h.advance_us(20 * SECOND)
        assert len(peer.drain()) == repeated
        assert states(h) == []


def test_a_mini_socket_takes_no_more_than_128_bytes():
    assert ffi.sizeof("struct us_timewait_sock") <= 104  # its places in slab and hash beside it


def test_what_a_connection_has_taught_is_remembered(server):
    lsk = server.listen()
    for _ in range(2):
        peer = server.peer()
        peer.handshake()
        sk = lsk.accept()
        sk.send(b"x")
        peer.expect("P. 1:2(1) ack 1")
        server.advance_us(30_000)
        peer.send("F. 1:1(0) ack 2")
        peer.expect(". 2:2(0) ack 2")
        sk.close()
        peer.expect("F. 2:2(0) ack 2")
        peer.send(". 2:2(0) ack 3")
        assert states(server) == []
    block = server.stack.tcp.metrics.lookup(server.addr, PEER)
    assert block is not None and block.c.rtt and block.c.cwnd
