"""Echo requests of our own: replies, errors, silence, and what is refused."""

from __future__ import annotations

import errno
import struct

import pytest

from kit.fragments import fragment, join
from kit.netbed import OTHER, OURS, PEER, Bed, icmp_packet
from ustack.ipv4.ping import ECHOES_MAX, Echo
from ustack.ipv4.route import ip_route_output
from ustack.lib.addresses import parse_ipv4
from ustack.wire.icmp import ICMP_DEST_UNREACH, ICMP_ECHOREPLY, ICMP_TIME_EXCEEDED
from ustack.wire.ipv4 import build_ipv4

SECOND_US = 1_000_000


def bed_with_peer() -> Bed:
    bed = Bed()
    bed.know_peer()
    return bed


def sent(bed: Bed) -> list[bytes]:
    return [frame[14:] for frame in bed.take_sent()]


def reply_to(request: bytes, payload: bytes | None = None, saddr: int = PEER) -> bytes:
    """The echo reply of ``saddr`` to an ICMP message that we sent."""
    info = struct.unpack_from("!I", request, 4)[0]
    return icmp_packet(ICMP_ECHOREPLY, 0, info, request[8:] if payload is None else payload,
                       saddr=saddr)  # fmt: skip


def test_a_reply_ends_the_request():
    bed = bed_with_peer()
    done: list[Echo] = []
    echo = bed.ip.icmp.ping.send_echo(PEER, ident=0x1234, seq=9, on_done=done.append)
    (packet,) = sent(bed)
    assert packet[20:22] == b"\x08\x00"
    assert struct.unpack_from("!HH", packet, 24) == (0x1234, 9)
    assert packet[28:] == bytes(range(56))
    assert not echo.done
    bed.advance_us(1234)
    bed.receive_ip(reply_to(packet[20:]))
    assert done == [echo]
    assert (echo.rtt_us, echo.ttl, echo.reply_bytes, echo.intact) == (1234, 64, 64, True)
    assert (echo.done, echo.error) == (True, None)
    bed.receive_ip(reply_to(packet[20:]))  # a second reply is nobody's
    assert bed.drops == {"NO_SOCKET": 1}
    mib = bed.net.mib.icmp
    assert (mib.OutEchos, mib.OutMsgs, mib.InEchoReps) == (1, 1, 2)
    assert len(bed.ip.icmp.ping) == 0


def test_a_request_of_65000_bytes_and_its_reply_travel_in_fragments():
    bed = bed_with_peer()
    echo = bed.ip.icmp.ping.send_echo(PEER, size=65_000)
    message = join(sent(bed))
    assert len(message) == 65_008
    for one in reversed(fragment(reply_to(message))):
        bed.receive_ip(one)
    assert (echo.reply_bytes, echo.intact) == (65_008, True)


def test_a_changed_payload_is_noticed():
    bed = bed_with_peer()
    echo = bed.ip.icmp.ping.send_echo(PEER, payload=b"abcd")
    bed.receive_ip(reply_to(sent(bed)[0][20:], b"abxd"))
    assert (echo.done, echo.intact) == (True, False)


def test_a_reply_of_somebody_else_is_none():
    bed = bed_with_peer()
    echo = bed.ip.icmp.ping.send_echo(PEER)
    bed.receive_ip(reply_to(sent(bed)[0][20:], saddr=OTHER))
    assert not echo.done
    assert bed.drops == {"NO_SOCKET": 1}


def test_without_a_reply_the_time_is_over():
    bed = bed_with_peer()
    done: list[Echo] = []
    for seq, timeout_s in ((1, 3), (2, 1), (3, 2)):
        bed.ip.icmp.ping.send_echo(
            PEER, seq=seq, timeout_us=timeout_s * SECOND_US, on_done=done.append
        )
    bed.advance_us(SECOND_US)
    assert [e.seq for e in done] == [2]
    bed.advance_us(2 * SECOND_US)
    assert [e.seq for e in done] == [2, 3, 1]
    assert {(e.done, e.rtt_us, e.error) for e in done} == {(True, None, None)}
    assert bed.net.timers.next_us() is None


def test_a_cancelled_request_calls_nobody():
    bed = bed_with_peer()
    done: list[Echo] = []
    ping = bed.ip.icmp.ping
    ping.cancel(ping.send_echo(PEER, on_done=done.append))
    bed.advance_us(20 * SECOND_US)
    assert done == []
    assert len(ping) == 0


@pytest.mark.parametrize("addr", [OURS, parse_ipv4("127.0.0.1"), parse_ipv4("127.9.9.9")])
def test_our_own_addresses_answer_over_lo(addr):
    bed = Bed()
    echo = bed.ip.icmp.ping.send_echo(addr, size=65_507)
    bed.settle()
    assert echo.intact
    assert bed.take_sent() == []
    assert bed.net.mib.icmp.OutEchoReps == 1


def test_the_time_over_lo_is_that_of_the_clock_itself():
    """Request and reply are in one poll, during which stack time stands still."""
    bed = Bed()
    now_us = iter(range(0, 1_000_000, 70))
    bed.net.clock.fine_us = lambda: next(now_us)
    echo = bed.ip.icmp.ping.send_echo(OURS)
    bed.settle()
    assert echo.rtt_us is not None and echo.rtt_us >= 70


def test_a_neighbour_that_is_not_there_is_reported_as_host_unreachable():
    bed = Bed()
    echo = bed.ip.icmp.ping.send_echo(PEER, size=10_000)
    bed.advance_us(3 * SECOND_US)
    bed.settle()
    assert echo.error == (3, 1)


@pytest.mark.parametrize(
    ("icmp_type", "code"),
    [(ICMP_DEST_UNREACH, 0), (ICMP_DEST_UNREACH, 13), (ICMP_TIME_EXCEEDED, 0)],
)
def test_an_error_about_the_request_ends_it(icmp_type, code):
    bed = bed_with_peer()
    echo = bed.ip.icmp.ping.send_echo(PEER, ttl=1)
    (packet,) = sent(bed)
    assert packet[8] == 1
    bed.receive_ip(icmp_packet(icmp_type, code, 0, packet[:28], saddr=OTHER))
    assert echo.error == (icmp_type, code)


@pytest.mark.rfc("1191", "4")
def test_a_narrower_path_is_learnt_from_an_error_about_a_request_and_from_no_other():
    bed = bed_with_peer()
    echo = bed.ip.icmp.ping.send_echo(PEER, size=1400, df=True)
    (packet,) = sent(bed)
    assert packet[6] == 0x40
    guess = build_ipv4(OURS, PEER, 1, 8) + b"\x08\x00\x00\x00\x12\x34\x56\x78"
    reply = build_ipv4(OURS, PEER, 1, 8) + b"\x00\x00\x00\x00" + packet[24:28]
    for wrong in (guess, reply):
        bed.receive_ip(icmp_packet(ICMP_DEST_UNREACH, 4, 1000, wrong))
    assert ip_route_output(bed.ip, PEER).mtu == 1500
    assert not echo.done
    bed.receive_ip(icmp_packet(ICMP_DEST_UNREACH, 4, 1000, packet[:28]))
    assert (echo.error, echo.mtu) == ((3, 4), 1000)
    with pytest.raises(OSError) as caught:
        bed.ip.icmp.ping.send_echo(PEER, size=1400, df=True)
    assert caught.value.errno == errno.EMSGSIZE
    bed.ip.icmp.ping.send_echo(PEER, size=1400)
    assert len(sent(bed)) == 2


@pytest.mark.parametrize(
    ("daddr", "fields", "code"),
    [
        (PEER, {"size": 65_508}, errno.EMSGSIZE),
        (PEER, {"size": 1473, "df": True}, errno.EMSGSIZE),
        (parse_ipv4("192.0.2.1"), {}, errno.ENETUNREACH),
        (PEER, {"saddr": OTHER}, errno.ENETUNREACH),
        (parse_ipv4("10.0.0.255"), {}, errno.EACCES),
        (PEER, {"seq": 5}, errno.EADDRINUSE),
    ],
)
def test_what_is_refused(daddr, fields, code):
    bed = bed_with_peer()
    bed.ip.icmp.ping.send_echo(PEER, seq=5)
    with pytest.raises(OSError) as caught:
        bed.ip.icmp.ping.send_echo(daddr, **fields)
    assert caught.value.errno == code
    assert len(bed.ip.icmp.ping) == 1


def test_no_more_requests_wait_than_there_is_room_for():
    bed = bed_with_peer()
    for seq in range(ECHOES_MAX):
        bed.ip.icmp.ping.send_echo(PEER, seq=seq)
    with pytest.raises(OSError) as caught:
        bed.ip.icmp.ping.send_echo(PEER, seq=ECHOES_MAX)
    assert caught.value.errno == errno.ENOBUFS
