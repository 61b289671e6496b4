"""MD5 signatures: who signs, what is not taken, and what has no room beside them (RFC 2385)."""

from __future__ import annotations

import contextlib
import errno
import struct
from dataclasses import replace

import pytest

from kit.host import PLAIN_NIC, TEST_CONFIG, Host, host, two_hosts
from kit.md5 import tcp_md5sig
from kit.peer import Peer
from kit.segment import pattern
from ustack.config import TcpConfig, UstackConfig
from ustack.tcp.md5 import TCP_MD5SIG, TCP_MD5SIG_EXT

TCP = 6
KEY = b"secret"
SYN_OPTIONS = "nop,nop,md5,mss 1460,nop,nop,sackOK,nop,wscale 7"
MD5 = "<nop,nop,md5>"


def set_key(sk, key: bytes = KEY, addr: str = "10.0.0.1") -> None:
    sk.setsockopt(TCP, TCP_MD5SIG, tcp_md5sig(addr, key))


def listen(h: Host, port: int = 80):
    """Return a listener whose peer at 10.0.0.1 must sign."""
    lsk = h.listen(port)
    set_key(lsk)
    return lsk


def signing_peer(h: Host, **where) -> Peer:
    peer = h.peer(**where)
    peer.md5_key = KEY
    return peer


def start(h: Host, options: str = SYN_OPTIONS):
    """Return an accepted socket and its peer; both have the key."""
    lsk = listen(h)
    peer = signing_peer(h)
    peer.handshake(options, ts="nop,nop,md5")
    return lsk.accept(), peer


@pytest.mark.rfc("2385", "2.0")
def test_the_syn_ack_is_signed_and_leaves_the_timestamps_out(server):
    listen(server)
    peer = signing_peer(server)
    peer.send("S 0:0(0) <nop,nop,md5,mss 1460,sackOK,TS val 7 ecr 0>")
    peer.expect("S. 0:0(0) ack 1 <nop,nop,md5,mss 1460,nop,nop,sackOK>")


@pytest.mark.linux("tcp_synack_options: tstamp_ok &= !sack_ok")
def test_without_sack_the_syn_ack_keeps_the_timestamps(server):
    listen(server)
    peer = signing_peer(server)
    peer.send("S 0:0(0) <nop,nop,md5,mss 1460,TS val 7 ecr 0,nop,nop>")
    peer.expect("S. 0:0(0) ack 1 <nop,nop,md5,mss 1460,nop,nop,TS val * ecr 7>")


@pytest.mark.linux("tcp_syn_options")
def test_our_syn_is_signed_and_has_no_timestamps(server):
    peer = signing_peer(server, port=179, to=None)
    sk = server.socket()
    set_key(sk)
    with pytest.raises(BlockingIOError):
        sk.connect(peer.addr, 179)
    peer.expect("S 0:0(0) <nop,nop,md5,mss 1460,nop,nop,sackOK,nop,wscale *>")
    peer.send(f"S. 0:0(0) ack 1 <{SYN_OPTIONS}>")
    peer.expect(f". 1:1(0) ack 1 {MD5}")
    sk.send(b"x" * 3000)
    assert [len(seg.payload) for seg in peer.drain()] == [1440, 1440, 120]


@pytest.mark.rfc("2385", "2.0")
def test_text_acks_and_fins_are_signed(server):
    sk, peer = start(server)
    peer.send(f"P. 1:11(10) ack 1 {MD5}")
    peer.expect(f". 1:1(0) ack 11 {MD5}")
    assert sk.recv(100) == pattern(0, 10)
    sk.send(b"hello")
    peer.expect(f"P. 1:6(5) ack 11 {MD5}")
    sk.close()
    peer.expect(f"F. 6:6(0) ack 11 {MD5}")


def test_a_repeated_segment_is_signed_anew(server):
    sk, peer = start(server)
    sk.send(pattern(0, 2000))
    peer.expect(f". 1:1441(1440) ack 1 {MD5}")
    peer.expect(f"P. 1441:2001(560) ack 1 {MD5}")
    peer.expect(f"P. 1441:2001(560) ack 1 {MD5}", within_us=500_000)  # a tail loss probe


@pytest.mark.linux("tcp_current_mss: header_len != tcp_header_len")
def test_segments_are_twenty_bytes_shorter(server):
    sk, peer = start(server)
    sk.send(pattern(0, 4000))
    assert [len(seg.payload) for seg in peer.expect_data(1, 4001)] == [1440, 1440, 1120]


@pytest.mark.linux("sk_gso_disable")
def test_there_are_no_super_frames():
    h = host(TEST_CONFIG, nic=replace(PLAIN_NIC, tso=True, tx_checksum=True))
    sk, peer = start(h)
    sk.send(pattern(0, 6000))
    sizes = [len(seg.payload) for seg in peer.expect_data(1, 6001)]
    assert sizes == [1440, 1440, 1440, 1440, 240]


@pytest.mark.linux("tcp_established_options: two SACK blocks beside a signature")
def test_two_sack_blocks_have_room_beside_a_signature(server):
    _, peer = start(server)
    for at in (101, 301, 501):
        peer.send(f". {at}:{at + 100}(100) ack 1 {MD5}")
    acks = peer.drain()
    assert peer.format(acks[-1]).endswith("<nop,nop,md5,nop,nop,sack 501:601 301:401>")


@pytest.mark.linux("tcp_established_options: remaining < TCPOLEN_SACK_BASE_ALIGNED + PERBLOCK")
def test_no_sack_block_has_room_beside_a_signature_and_timestamps(server):
    """Both are there if the key comes once timestamps are in use."""
    sk, peer = server.established("mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7")
    set_key(sk)
    peer.md5_key = KEY
    peer.send(". 101:201(100) ack 1 <nop,nop,md5,nop,nop,TS val 5 ecr *>")
    peer.expect(". 1:1(0) ack 1 <nop,nop,md5,nop,nop,TS val * ecr *>")
    sk.send(pattern(0, 3000))
    assert [len(seg.payload) for seg in peer.drain()] == [1428, 1428, 144]


# What is not taken.


@pytest.mark.rfc("2385", "2.0")
def test_an_unsigned_syn_is_not_answered(server):
    listen(server)
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460>")
    peer.expect_nothing()
    assert server.mib.TCPMD5NotFound == 1


@pytest.mark.rfc("2385", "2.0")
def test_a_syn_signed_with_another_key_is_not_answered(server):
    listen(server)
    peer = server.peer()
    peer.md5_key = b"Secret"
    peer.send(f"S 0:0(0) <{SYN_OPTIONS}>")
    peer.expect_nothing()
    assert server.mib.TCPMD5Failure == 1


@pytest.mark.linux("tcp_inbound_md5_hash: TCPMD5UNEXPECTED")
def test_a_signature_that_nobody_asked_for_is_not_taken(server):
    server.listen()
    peer = signing_peer(server)
    peer.send(f"S 0:0(0) <{SYN_OPTIONS}>")
    peer.expect_nothing()
    assert server.mib.TCPMD5Unexpected == 1


@pytest.mark.parametrize("fastpath", [False, True])
def test_unsigned_text_and_resets_do_nothing_to_a_connection(fastpath):
    h = host(TEST_CONFIG, ustack=UstackConfig(tcp_fastpath=fastpath))
    sk, peer = start(h)
    peer.send("P. 1:11(10) ack 1")
    peer.send("R 1:1(0)")
    peer.expect_nothing()
    with pytest.raises(BlockingIOError):
        sk.recv(10)
    assert h.mib.TCPMD5NotFound == 2


def test_text_changed_on_the_way_is_not_taken(server):
    sk, peer = start(server)
    good = peer.segment(f"P. 1:11(10) ack 1 {MD5}")
    peer.md5_key = None
    peer.send(f"P. 1:11(10) ack 1 {MD5}", options=good.options, payload=b"0123456789")
    peer.expect_nothing()
    assert server.mib.TCPMD5Failure == 1
    with pytest.raises(BlockingIOError):
        sk.recv(10)


def test_an_unsigned_third_ack_makes_no_connection(server):
    lsk = listen(server)
    peer = signing_peer(server)
    peer.send(f"S 0:0(0) <{SYN_OPTIONS}>")
    peer.expect("S. 0:0(0) ack 1")
    peer.send(". 1:1(0) ack 1")
    peer.expect_nothing()
    with pytest.raises(BlockingIOError):
        lsk.accept()
    peer.send(f". 1:1(0) ack 1 {MD5}")
    assert lsk.accept()


@pytest.mark.linux("tcp_parse_auth_options: -EEXIST, -EINVAL")
@pytest.mark.parametrize(
    "options",
    [
        "md5,nop,nop,md5",
        "raw 19 3 0,md5,nop",
        "raw 7 60,md5,nop,nop",
        "raw 29 4 1 1,raw 254 16 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
        "raw 29 16 1 1 0 0 0 0 0 0 0 0 0 0 0 0,md5,nop,nop",
        "md5,raw 29 16 1 1 0 0 0 0 0 0 0 0 0 0 0 0,nop,nop,nop",
    ],
)
def test_options_that_leave_it_open_what_was_signed_are_refused(server, options: str):
    server.listen()
    peer = server.peer()
    peer.send(f"S 0:0(0) <{options}>")
    peer.expect_nothing()
    assert server.stack.net.drops.nonzero() == {"TCP_AUTH_HDR": 1}


@pytest.mark.linux("tcp_inbound_hash without CONFIG_TCP_AO")
def test_a_signature_of_tcp_ao_is_an_unknown_option(server):
    lsk = server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460,raw 29 16 1 1 0 0 0 0 0 0 0 0 0 0 0 0>")
    peer.expect("S. 0:0(0) ack 1")
    peer.send(". 1:1(0) ack 1")
    assert lsk.accept()


@pytest.mark.linux("tcp_parse_auth_options: length >= TCPOLEN_MD5SIG")
def test_a_bad_option_where_no_signature_has_room_does_no_harm(server):
    server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460,raw 7 60 0 0>")
    peer.expect("S. 0:0(0) ack 1")


# Resets and other answers that no connection gives.


@pytest.mark.linux("tcp_v4_send_reset: key of the listener")
def test_a_listener_signs_its_reset(server):
    listen(server)
    peer = signing_peer(server)
    peer.host_iss = 0
    peer.send(f". 5:5(0) ack 9 {MD5}")
    peer.expect(f"R 9:9(0) {MD5}")


@pytest.mark.linux("tcp_v4_send_reset: key of the connection")
def test_a_connection_signs_the_reset_for_text_that_nobody_will_read(server):
    sk, peer = start(server)
    sk.close()
    peer.expect(f"F. 1:1(0) ack 1 {MD5}")
    peer.send(f". 1:11(10) ack 2 {MD5}")
    assert peer.expect("R 2:2(0)").option("md5") == ()


@pytest.mark.linux("tcp_v4_send_reset: listener on the source port")
def test_a_lost_connection_is_reset_with_the_key_of_a_listener_on_the_peers_port(server):
    """Two routers, both listening on 179, one of which has restarted."""
    listen(server, 179)
    peer = signing_peer(server, port=179, to=40000)
    peer.host_iss = 0
    peer.send(f". 5:5(0) ack 9 {MD5}")
    peer.expect(f"R 9:9(0) {MD5}")
    peer.md5_key = b"another"
    peer.send(f". 5:5(0) ack 9 {MD5}")
    peer.expect_nothing()


def test_a_signed_segment_for_nobody_is_not_answered_without_a_key(server):
    peer = signing_peer(server, to=4711)
    peer.host_iss = 0
    peer.send(f". 5:5(0) ack 9 {MD5}")
    peer.expect_nothing()
    peer.send(". 5:5(0) ack 9")
    peer.expect("R 9:9(0) <>")
    peer.send(". 5:5(0) ack 9 <md5,nop,nop,md5>")
    peer.expect_nothing()


@pytest.mark.linux("tcp_v4_reqsk_send_ack")
def test_a_request_signs_its_ack(server):
    listen(server)
    peer = signing_peer(server)
    peer.send(f"S 0:0(0) <{SYN_OPTIONS}>")
    peer.expect("S. 0:0(0) ack 1")
    peer.send(f". 90001:90001(0) ack 1 {MD5}")
    peer.expect(f". 1:1(0) ack 1 {MD5}")


@pytest.mark.linux("tcp_v4_timewait_ack, tcp_twsk_md5_key")
def test_time_wait_signs_its_acks(server):
    sk, peer = start(server)
    sk.close()
    peer.expect(f"F. 1:1(0) ack 1 {MD5}")
    peer.send(f"F. 1:1(0) ack 2 {MD5}")
    peer.expect(f". 2:2(0) ack 2 {MD5}")
    server.advance_us(1_000_000)
    peer.send(f"F. 1:1(0) ack 2 {MD5}")
    peer.expect(f". 2:2(0) ack 2 {MD5}")


def test_an_abort_is_signed(server):
    sk, peer = start(server)
    sk.setsockopt(1, 13, struct.pack("ii", 1, 0))
    sk.close()
    peer.expect(f"R. 1:1(0) ack 1 {MD5}")


def test_a_syn_cookie_is_signed():
    h = host(TEST_CONFIG, tcp=TcpConfig(tcp_syncookies=2))
    lsk = listen(h)
    peer = signing_peer(h)
    peer.send("S 0:0(0) <nop,nop,md5,mss 1460,sackOK,TS val 7 ecr 0,nop,wscale 7>")
    peer.expect("S. 0:0(0) ack 1 <nop,nop,md5,mss 1460,sackOK,TS val * ecr 7,nop,wscale *>")
    peer.send(". 1:1(0) ack 1 <nop,nop,md5,nop,nop,TS val 8 ecr *>")
    sk = lsk.accept()
    sk.send(b"x")
    peer.expect("P. 1:2(1) ack 1 <nop,nop,md5,nop,nop,TS val * ecr 8>")


# The keys.


@pytest.mark.linux("__tcp_md5_do_lookup, better_md5_match")
@pytest.mark.parametrize("order", [1, -1])
def test_the_longest_prefix_that_matches_has_the_key(server, order):
    lsk = server.listen()
    keys = (("10.0.0.0", 8, b"wide"), ("10.0.0.9", 24, b"near"), ("10.0.0.7", 32, KEY))
    for addr, bits, key in keys[::order]:
        lsk.setsockopt(TCP, TCP_MD5SIG_EXT, tcp_md5sig(addr, key, prefixlen=bits))
    for addr, key in (("10.0.0.7", KEY), ("10.0.0.8", b"near")):
        peer = server.peer(addr=addr)
        peer.md5_key = key
        peer.send(f"S 0:0(0) <{SYN_OPTIONS}>")
        assert peer.expect("S. 0:0(0) ack 1").option("md5") == ()


def test_a_peer_that_no_key_is_for_connects_unsigned(server):
    listen(server)
    peer = server.peer(addr="10.0.0.3")
    peer.send("S 0:0(0) <mss 1460>")
    peer.expect("S. 0:0(0) ack 1 <mss 1460>")


@pytest.mark.linux("tcp_v4_syn_recv_sock: tcp_md5_key_copy")
def test_a_child_keeps_its_key_when_the_listener_gets_another(server):
    lsk = listen(server)
    peer = signing_peer(server)
    peer.handshake(SYN_OPTIONS, ts="nop,nop,md5")
    sk = lsk.accept()
    set_key(lsk, b"new")
    sk.send(b"x")
    peer.expect(f"P. 1:2(1) ack 1 {MD5}")


def test_a_child_has_the_key_of_its_peer_alone(server):
    lsk = listen(server)
    set_key(lsk, addr="10.0.0.3")
    peer = signing_peer(server)
    peer.handshake(SYN_OPTIONS, ts="nop,nop,md5")
    sk = lsk.accept()
    with pytest.raises(FileNotFoundError):
        set_key(sk, b"", addr="10.0.0.3")
    set_key(sk, b"")
    sk.send(b"x")
    peer.expect("P. 1:2(1) ack 1 <>")


@pytest.mark.parametrize("fastpath", [False, True])
def test_a_key_can_come_and_go_while_connected(fastpath):
    h = host(TEST_CONFIG, ustack=UstackConfig(tcp_fastpath=fastpath))
    sk, peer = h.established()
    sk.send(b"a")
    peer.expect("P. 1:2(1) ack 1 <>")
    peer.send(". 1:1(0) ack 2")
    peer.md5_key = KEY
    set_key(sk)
    sk.send(b"b")
    peer.expect(f"P. 2:3(1) ack 1 {MD5}")
    peer.send(f". 1:1(0) ack 3 {MD5}")
    set_key(sk, b"")
    sk.send(b"c")
    peer.expect("P. 3:4(1) ack 1 <>")


def test_the_key_survives_a_connect_that_was_refused(server):
    peer = signing_peer(server, port=179, to=None)
    sk = server.socket()
    set_key(sk)
    with pytest.raises(BlockingIOError):
        sk.connect(peer.addr, 179)
    peer.expect("S 0:0(0)")
    peer.send(f"R. 0:0(0) ack 1 {MD5}")
    with pytest.raises(ConnectionRefusedError):
        sk.connect(peer.addr, 179)
    peer.to = None
    with pytest.raises(BlockingIOError):
        sk.connect(peer.addr, 179)
    assert peer.expect("S 0:0(0)").option("md5") == ()


BAD = {
    "too short": tcp_md5sig("10.0.0.1", KEY)[:-1],
    "not IPv4": b"\x0a" + tcp_md5sig("10.0.0.1", KEY)[1:],
    "a prefix of 33 bits": tcp_md5sig("10.0.0.1", KEY, prefixlen=33),
    "a key of 81 bytes": tcp_md5sig("10.0.0.1", bytes(81)),
    "an interface": tcp_md5sig("10.0.0.1", KEY)[:128] + struct.pack("=BBHi80s", 2, 0, 6, 1, KEY),
    "a number": 5,
}


@pytest.mark.linux("tcp_v4_parse_md5_keys: -EINVAL")
@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_what_is_no_key_is_refused(server, value):
    with pytest.raises(OSError) as error:
        server.socket().setsockopt(TCP, TCP_MD5SIG_EXT, value)
    assert error.value.errno == errno.EINVAL


@pytest.mark.linux("tcp_md5_do_del: -ENOENT")
def test_a_key_that_is_not_there_cannot_go(server):
    sk = server.socket()
    set_key(sk)
    with pytest.raises(OSError) as error:
        set_key(sk, b"", addr="10.0.0.2")
    assert error.value.errno == errno.ENOENT


@pytest.mark.linux("do_tcp_getsockopt: ENOPROTOOPT")
def test_keys_are_not_told(server):
    sk = server.socket()
    set_key(sk)
    with pytest.raises(OSError) as error:
        sk.getsockopt(TCP, TCP_MD5SIG, 216)
    assert error.value.errno == errno.ENOPROTOOPT


def test_two_stacks_move_a_megabyte_with_their_keys():
    near, far = two_hosts()
    lsk = far.listen(80)
    set_key(lsk)
    sk = near.socket()
    set_key(sk, addr="10.0.0.2")
    with pytest.raises(BlockingIOError):
        sk.connect(far.addr, 80)
    near.settle()
    other = lsk.accept()
    data, got, at = pattern(0, 1 << 20), bytearray(), 0
    while len(got) < len(data):
        with contextlib.suppress(BlockingIOError):
            at += sk.send(data[at : at + 65536]) if at < len(data) else 0
        near.advance_us(1000)
        with contextlib.suppress(BlockingIOError):
            got += other.recv(1 << 20)
    assert bytes(got) == data
    assert near.mib.RetransSegs == far.mib.TCPMD5Failure == 0
