"""Numbers that only an attacker, a long sleep or a long life produce: none may raise."""

from __future__ import annotations

import struct

import pytest

from kit.host import TEST_CONFIG, host
from kit.segment import Segment, build_ip
from ustack.config import TcpConfig
from ustack.tcp.diag import tcp_diag

SECOND = 1_000_000
TS = "mss 1460,sackOK,TS val 1000 ecr 0,nop,wscale 7"


def _timestamped(server, val=1000):
    lsk = server.listen()
    peer = server.peer()
    peer.handshake(TS, ts=f"nop,nop,TS val {val} ecr *")
    return lsk.accept(), peer


def _frag_needed(server, peer, seq, mtu):
    """An ICMP fragmentation-needed about the host's segment at ``seq``."""
    seg = Segment(server.addr, peer.addr, peer.to, peer.port, seq, 0, 2, 100)
    quoted = build_ip(seg)[:28]
    icmp = struct.pack(">BBHHH", 3, 4, 0, 0, mtu) + quoted
    total = sum(struct.unpack(f">{len(icmp) // 2}H", icmp))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    icmp = icmp[:2] + struct.pack(">H", ~total & 0xFFFF) + icmp[4:]
    header = build_ip(Segment(peer.addr, server.addr, 0, 0, 0, 0, 0, 0, bytes(len(icmp) - 20)))
    ip = bytearray(header[:20])
    ip[9] = 1
    ip[10:12] = b"\0\0"
    total = sum(struct.unpack(">10H", bytes(ip)))
    total = (total & 0xFFFF) + (total >> 16)
    ip[10:12] = struct.pack(">H", ~total & 0xFFFF)
    server.net.send_ip(bytes(ip) + icmp)
    server.settle()


@pytest.mark.parametrize("age_ms", [600_000, 990_000, 2_000_000])
def test_an_echo_of_an_ancient_timestamp_is_no_measurement_to_trip_over(server, age_ms):
    sk, peer = _timestamped(server)
    sk.send(b"x")
    peer.expect("P. 1:2(1) ack 1")
    server.advance_us(300_000)
    peer.drain()  # repeated: from now on only the timestamp measures
    old = peer.last_ts_val - age_ms & 0xFFFFFFFF
    peer.send(f"P. 1:1401(1400) ack 2 <nop,nop,TS val 1001 ecr {old}>")
    assert len(sk.recv(2000)) == 1400


def test_an_answer_after_a_long_sleep_of_the_machine_is_taken(server):
    sk, peer = server.established()
    sk.send(b"x")
    peer.expect("P. 1:2(1) ack 1")
    server.world.now_us += 1200 * SECOND  # nothing ran in between
    peer.send(". 1:1(0) ack 2")
    assert sk.send(b"y") == 1


def test_a_window_that_took_a_quarter_of_an_hour_to_fill_is_no_overflow(server):
    sk, peer = server.established()
    at = 1
    for _ in range(60):
        peer.send(f"P. {at}:{at + 1460}(1460) ack 1")
        at += 1460
        assert len(sk.recv(2000)) == 1460
        server.advance_us(20 * SECOND)
    assert sk.send(b"alive") == 5


def test_a_connection_outlives_four_thousand_million_segments(server):
    sk, peer = server.established()
    sk._sk.tp.segs_in = sk._sk.tp.segs_out = 0xFFFFFFFF
    peer.send("P. 1:6(5) ack 1", data=b"hello")
    assert sk.recv(10) == b"hello"
    assert sk.send(b"world") == 5


def test_four_gigabytes_later_the_send_queue_is_still_in_step(server):
    """SND.UNA comes back to the initial sequence number; only once it was our SYN."""
    sk, peer = server.established()
    sk.send(b"0123456789")
    peer.expect("P. 1:11(10) ack 1")
    peer.send(". 1:1(0) ack 11")
    sk._sk.tp.iss = sk._sk.tp.snd_una  # as after 2**32 bytes
    sk.send(b"abcdefghij")
    peer.expect("P. 11:21(10) ack 1")
    peer.send(". 1:1(0) ack 21")
    assert sk._sk.tp.write_queue.len == 0
    sk.send(b"next")
    assert peer.expect("P. 21:25(4) ack 1").payload == b"next"


def test_a_packet_too_big_about_a_syn_is_no_reason_to_send_data(server):
    peer = server.peer(port=80, to=None)
    server.connect()
    syn = peer.expect("S 0:0(0)")
    _frag_needed(server, peer, syn.seq, 600)
    peer.expect_nothing()
    peer.send("S. 0:0(0) ack 1 <mss 1460>")
    peer.expect(". 1:1(0) ack 1")


def test_a_closed_simultaneous_open_repeats_its_syn_ack(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    peer.expect("S 0:0(0)")
    peer.send("S 0:0(0) win 65535 <mss 1460>")
    peer.expect("S. 0:0(0) ack 1")
    sk.close()
    peer.drain()
    server.advance_us(5 * SECOND)
    again = peer.drain()
    assert again and all(seg.flags & 2 for seg in again if seg.seq == peer.host_iss)
    server.advance_us(600 * SECOND)
    assert list(tcp_diag(server.stack.tcp)) == []


@pytest.mark.linux("tcp_try_rmem_schedule: sk_rmem_alloc > sk_rcvbuf")
def test_a_peer_that_creeps_into_the_rounded_window_finds_an_end(server):
    """A scaled window is rounded up; a byte at a time must not grow the queue without end."""
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_rmem=(4096, 16_384, 16_384)))
    sk, peer = server.established("mss 1460,nop,wscale 7")
    seq, edge = 1, 1 + 8192
    for _ in range(400):
        length = min(max(edge - seq - 1, 1), 1000)
        peer.send(f"P. {seq}:{seq + length}(length) ack 1".replace("length", str(length)))
        server.advance_us(50_000)
        for answer in peer.drain():
            seq = answer.ack - peer.iss & 0xFFFFFFFF
            edge = seq + (answer.window << 7)
    assert sk._sk.tp.receive_queue.len <= sk._sk.tp.sk_rcvbuf + 1000
    assert server.mib.BeyondWindow > 0
