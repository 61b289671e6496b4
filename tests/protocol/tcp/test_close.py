"""E-CLOSE: a connection's end from either side: RFC 9293 §3.6, TIME_WAIT, orphans, half close."""

from __future__ import annotations

import pytest

from kit.host import TEST_CONFIG, host
from ustack.config import TcpConfig
from ustack.sock.wait import WaitEntry
from ustack.tcp.diag import tcp_diag

SECOND = 1_000_000
EPOLLHUP = 0x10
SHUT_RD, SHUT_WR, SHUT_RDWR = 0, 1, 2


def states(server) -> list[str]:
    """Return the states of everything but listeners, as ss prints them."""
    rows = [str(row["state"]) for row in tcp_diag(server.stack.tcp)]
    return sorted(s for s in rows if s != "LISTEN")


@pytest.mark.rfc("9293", "3.6")
def test_we_close_first_and_stay_a_minute_in_time_wait(server):
    sk, peer = server.established()
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    assert states(server) == ["FIN-WAIT-1"]
    peer.send(". 1:1(0) ack 2")
    assert states(server) == ["FIN-WAIT-2"]
    peer.send("F. 1:1(0) ack 2")
    peer.expect(". 2:2(0) ack 2")
    assert states(server) == ["TIME-WAIT"]
    server.advance_us(59 * SECOND)
    assert states(server) == ["TIME-WAIT"]
    server.advance_us(2 * SECOND)
    assert states(server) == []
    peer.expect_nothing()


@pytest.mark.rfc("9293", "3.6")
def test_the_peer_closes_first(server):
    sk, peer = server.established()
    peer.send("F. 1:1(0) ack 1")
    peer.expect(". 1:1(0) ack 2", within_us=SECOND)
    assert sk.recv(10) == b""
    assert states(server) == ["CLOSE-WAIT"]
    sk.close()
    peer.expect("F. 1:1(0) ack 2")
    assert states(server) == ["LAST-ACK"]
    peer.send(". 2:2(0) ack 2")
    assert states(server) == []


@pytest.mark.linux("tcp_done: sk_state_change")
def test_who_waits_is_woken_when_last_ack_ends(server):
    sk, peer = server.established()
    peer.send("F. 1:1(0) ack 1")
    sk.shutdown(SHUT_WR)
    assert states(server) == ["LAST-ACK"]
    events: list[int] = []
    sk.wq.add(WaitEntry(lambda mask: events.append(mask) is None))
    peer.send(". 2:2(0) ack 2")
    assert events and sk.poll() & EPOLLHUP


@pytest.mark.rfc("9293", "3.6")
def test_both_close_at_once(server):
    sk, peer = server.established()
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send("F. 1:1(0) ack 1")
    peer.expect(". 2:2(0) ack 2")
    assert states(server) == ["CLOSING"]
    peer.send(". 2:2(0) ack 2")
    assert states(server) == ["TIME-WAIT"]


def test_fin_and_its_ack_in_one_segment(server):
    sk, peer = server.established()
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send("F. 1:1(0) ack 2")
    peer.expect(". 2:2(0) ack 2")
    assert states(server) == ["TIME-WAIT"]


@pytest.mark.rfc("9293", "3.6")
def test_half_close_we_send_no_more_but_still_receive(server):
    sk, peer = server.established()
    sk.shutdown(SHUT_WR)
    peer.expect("F. 1:1(0) ack 1")
    peer.send(". 1:1(0) ack 2")
    peer.send("P. 1:6(5) ack 2", data=b"hello")
    peer.expect(". 2:2(0) ack 6", within_us=SECOND)
    assert sk.recv(10) == b"hello"
    with pytest.raises(BrokenPipeError):
        sk.send(b"x")
    peer.send("F. 6:6(0) ack 2")
    peer.expect(". 2:2(0) ack 7", within_us=SECOND)
    assert sk.recv(10) == b""


@pytest.mark.rfc("9293", "3.6")
def test_half_close_the_peer_sends_no_more_but_still_receives(server):
    sk, peer = server.established()
    peer.send("F. 1:1(0) ack 1")
    peer.expect(". 1:1(0) ack 2", within_us=SECOND)
    sk.send(b"later")
    peer.expect("P. 1:6(5) ack 2")
    peer.send(". 2:2(0) ack 6")
    sk.close()
    peer.expect("F. 6:6(0) ack 2")


@pytest.mark.linux("tcp_close: data unread")
def test_close_with_unread_data_resets(server):
    sk, peer = server.established()
    peer.send("P. 1:6(5) ack 1")
    peer.expect(". 1:1(0) ack 6", within_us=SECOND)
    sk.close()
    peer.expect("R. 1:1(0) ack 6")
    assert states(server) == []
    assert server.mib.TCPAbortOnClose == 1


@pytest.mark.linux("tcp_rcv_state_process: TCPAbortOnData")
@pytest.mark.parametrize("orphan", [True, False])
def test_data_that_nobody_will_read_is_reset(server, orphan):
    """In FIN_WAIT1; and not for an orphan only: SHUT_RDWR says as much."""
    sk, peer = server.established()
    if orphan:
        sk.close()
    else:
        sk.shutdown(SHUT_RDWR)
    peer.expect("F. 1:1(0) ack 1")
    peer.send("P. 1:6(5) ack 1")
    peer.expect("R 1:1(0)")
    assert states(server) == []
    assert server.mib.TCPAbortOnData == 1


@pytest.mark.linux("tcp_timewait_state_process: the mini-socket counts nothing")
@pytest.mark.parametrize("line", ["P. 1:6(5) ack 2", "F. 1:6(5) ack 2", "S 1:1(0)"])
def test_an_orphan_in_fin_wait_2_answers_data_with_a_reset(server, line):
    sk, peer = server.established()
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send(". 1:1(0) ack 2")
    peer.send(line)
    (rst,) = peer.drain()
    assert rst.flags & 4
    assert states(server) == []
    assert server.mib.TCPAbortOnData == 0


@pytest.mark.rfc("1337", "3")
def test_a_syn_does_not_end_time_wait_where_nobody_listens(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    peer.answer_syn()
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send("F. 1:1(0) ack 2")
    peer.expect(". 2:2(0) ack 2")
    peer.send("S 100000:100000(0) <mss 1460>")
    peer.expect(". 2:2(0) ack 2")
    assert states(server) == ["TIME-WAIT"]


@pytest.mark.linux("tcp_fin: FIN_WAIT1 sends its ACK at once")
def test_the_ack_of_a_crossing_fin_is_not_delayed(server):
    sk, peer = server.established()
    for at in range(1, 400, 10):
        peer.send(f"P. {at}:{at + 10}(10) ack 1")
    sk.recv(1000)
    sk.send(b"reply")  # ping-pong: data would wait for an answer to carry its ACK
    peer.drain()
    peer.send(". 401:401(0) ack 6")
    sk.shutdown(SHUT_WR)
    peer.expect("F. 6:6(0) ack 401")
    peer.send("F. 401:401(0) ack 6")
    peer.expect(". 7:7(0) ack 402")


@pytest.mark.linux("tcp_set_state: EstabResets")
def test_our_own_reset_counts_as_one_of_an_established_connection(server):
    sk, peer = server.established()
    peer.send("P. 1:6(5) ack 1")
    sk.close()
    assert server.mib.EstabResets == 1


@pytest.mark.linux("tcp_rcv_state_process: TCPAbortOnData")
def test_data_to_an_orphan_whose_fin_is_unacknowledged_is_reset(server):
    sk, peer = server.established()
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send("P. 1:6(5) ack 1")
    (rst,) = peer.drain()
    assert rst.flags & 4
    assert server.mib.TCPAbortOnData == 1
    assert states(server) == []


def test_close_sends_what_is_queued_before_the_fin(server):
    sk, peer = server.established(win=2000)
    assert sk.send(bytes(range(250)) * 20) == 5000
    sk.close()
    got = b"".join(s.payload for s in peer.drain())
    peer.send(f". 1:1(0) ack {len(got) + 1} win 65535")
    for seg in peer.drain():
        got += seg.payload
        last = seg
    assert got == bytes(range(250)) * 20
    assert last.flags & 1


@pytest.mark.linux("net.ipv4.tcp_fin_timeout")
def test_an_orphan_waits_a_minute_for_the_peers_fin(server):
    sk, peer = server.established()
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send(". 1:1(0) ack 2")
    server.advance_us(58 * SECOND)
    assert states(server) == ["FIN-WAIT-2"]
    server.advance_us(3 * SECOND)
    assert states(server) == []


def test_a_socket_that_is_not_closed_stays_in_fin_wait_2(server):
    sk, peer = server.established()
    sk.shutdown(SHUT_WR)
    peer.expect("F. 1:1(0) ack 1")
    peer.send(". 1:1(0) ack 2")
    server.advance_us(300 * SECOND)
    assert states(server) == ["FIN-WAIT-2"]


@pytest.mark.rfc("9293", "3.10.7.4")
def test_a_repeated_fin_in_time_wait_is_acknowledged_again(server):
    sk, peer = server.established()
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send("F. 1:1(0) ack 2")
    peer.expect(". 2:2(0) ack 2")
    server.advance_us(30 * SECOND)
    peer.send("F. 1:1(0) ack 2")
    peer.expect(". 2:2(0) ack 2")
    server.advance_us(45 * SECOND)  # the minute began anew
    assert states(server) == ["TIME-WAIT"]


@pytest.mark.rfc("1337", "3")
def test_time_wait_goes_early_only_by_a_new_connection(server):
    sk, peer = server.established()
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send("F. 1:1(0) ack 2")
    peer.expect(". 2:2(0) ack 2")
    peer.send("S 100000:100000(0) <mss 1460>")
    seg = peer.expect("S. 0:0(0) ack 100001")
    assert seg.flags == 0x12
    assert "TIME-WAIT" not in states(server)


def test_the_fin_is_repeated_until_it_is_acknowledged(server):
    sk, peer = server.established()
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.expect("F. 1:1(0) ack 1", within_us=2 * SECOND)
    peer.expect("F. 1:1(0) ack 1", within_us=4 * SECOND)


def test_an_orphan_with_a_silent_peer_is_given_up(server):
    sk, peer = server.established()
    sk.close()
    server.advance_us(600 * SECOND)
    assert states(server) == []
    assert 5 <= len(peer.drain()) <= 12


@pytest.mark.linux("tcp_disconnect, SO_LINGER 0")
def test_linger_zero_resets_at_once(server):
    import socket
    import struct

    sk, peer = server.established()
    sk.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sk.close()
    server.settle()
    peer.expect("R. 1:1(0) ack 1")
    assert states(server) == []


def test_shut_rd_reads_the_end_but_the_peer_notices_nothing(server):
    sk, peer = server.established()
    sk.shutdown(SHUT_RD)
    assert sk.recv(10) == b""
    peer.expect_nothing()
    peer.send("P. 1:6(5) ack 1", data=b"still")
    peer.expect(". 1:1(0) ack 6", within_us=SECOND)


def test_time_wait_is_bounded():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_max_tw_buckets=3))
    lsk = server.listen()
    for _ in range(6):
        peer = server.peer()
        peer.handshake()
        lsk.accept().close()
        peer.expect("F. 1:1(0) ack 1")
        peer.send("F. 1:1(0) ack 2")
    assert states(server).count("TIME-WAIT") <= 3
    assert server.mib.TCPTimeWaitOverflow == 3


def test_everything_that_a_connection_held_is_given_back(server):
    free = server.stack.net.mem.free_pages
    lsk = server.listen()
    for _ in range(20):
        peer = server.peer()
        peer.handshake()
        sk = lsk.accept()
        peer.send("P. 1:1001(1000) ack 1")
        sk.send(bytes(5000))
        sk.recv(5000)
        end = 1 + sum(len(s.payload) for s in peer.drain())
        sk.close()
        peer.send(f"F. 1001:1001(0) ack {end}")
        peer.send(f". 1002:1002(0) ack {end + 1}")
        peer.drain()
    lsk.close()
    server.advance_us(70 * SECOND)
    assert states(server) == []
    assert free - server.stack.net.mem.free_pages <= 5  # slabs keep their pages


def test_an_ack_below_our_initial_number_is_challenged_while_our_fin_is_out(server):
    sk, peer = server.established()
    sk.shutdown(1)
    peer.expect("F. 1:1(0) ack 1")
    peer.send("P. 1:101(100) ack 0")
    peer.expect(". 2:2(0) ack 1")
    peer.send("P. 1:101(100) ack 0")
    peer.expect_nothing(for_us=100_000)


def test_an_old_ack_of_our_fins_number_is_taken_once_the_fin_is_acknowledged(server):
    sk, peer = server.established()
    sk.shutdown(1)
    peer.expect("F. 1:1(0) ack 1")
    peer.send(". 1:1(0) ack 2")
    peer.send("P. 1:101(100) ack 1")
    peer.expect(". 2:2(0) ack 101", within_us=300_000)


def test_a_fin_behind_old_bytes_is_acknowledged_like_data(server):
    _, peer = server.established()
    peer.send("F. 0:1(1) ack 1")
    peer.expect_nothing(for_us=30_000)
    peer.expect(". 1:1(0) ack 2", within_us=20_000)


@pytest.mark.linux("tcp_fin")
@pytest.mark.parametrize("ours", ["open", "shut", "crossing"])
def test_a_second_fin_right_behind_the_first_changes_no_state(server, ours):
    """A segment of old text whose FIN stands one beyond the FIN that has been taken."""
    sk, peer = server.established()
    if ours == "crossing":
        sk.shutdown(1)
    peer.send("FP. 1:6(5) ack 1")
    if ours == "shut":
        sk.shutdown(1)
    state = sk._sk.tp.state
    peer.drain()
    peer.send("FP. 1:7(6) ack 1")
    assert sk._sk.tp.state == state
    peer.drain()
    assert (len(sk.recv(10)), sk.recv(10)) == (5, b"")
