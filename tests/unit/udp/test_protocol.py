"""UDP input where nobody listens: checks, counters and port unreachable."""

from __future__ import annotations

import dpkt
import pytest

from kit.netbed import OURS, PEER, Bed, udp_packet
from ustack.core.skb import CHECKSUM_UNNECESSARY
from ustack.lib.addresses import ETH_BROADCAST
from ustack.wire.ethernet import build_ethernet
from ustack.wire.ipv4 import build_ipv4


def bed() -> Bed:
    one = Bed()
    one.know_peer()
    return one


@pytest.mark.rfc("1122", "4.1.3.1")
@pytest.mark.parametrize("csum", [None, 0], ids=["with checksum", "without"])
def test_a_datagram_for_a_port_nobody_has_is_answered_with_port_unreachable(csum):
    one = bed()
    data = udp_packet(b"hi", csum=csum)
    one.receive_ip(data)
    (frame,) = one.take_sent()
    message = dpkt.ip.IP(frame[14:]).data
    assert (message.type, message.code) == (3, 3)
    assert bytes(message)[8:] == data
    assert one.net.mib.udp.NoPorts == 1
    assert one.drops == {"NO_SOCKET": 1}


def test_a_wrong_checksum_is_counted_and_not_answered():
    one = bed()
    one.receive_ip(udp_packet(b"hi", csum=0x1234))
    assert one.take_sent() == []
    assert (one.net.mib.udp.InCsumErrors, one.net.mib.udp.InErrors) == (1, 1)
    assert one.drops == {"UDP_CSUM": 1}


def test_a_checksum_that_the_device_has_verified_is_believed():
    one = bed()
    frame = build_ethernet(one.eth0.dev_addr, bytes(6), 0x0800) + udp_packet(b"hi", csum=0x1234)
    one.receive(frame, ip_summed=CHECKSUM_UNNECESSARY)
    assert one.net.mib.udp.NoPorts == 1


@pytest.mark.parametrize(
    "datagram", [b"\0\1\0\2\0\7\0\0", b"\0\1\0\2\0\x10\0\0", b"\0\1\0\2"], ids=str
)
def test_a_truncated_datagram_is_counted(datagram):
    one = bed()
    one.receive_ip(build_ipv4(PEER, OURS, 17, len(datagram)) + datagram)
    assert one.net.mib.udp.InErrors == 1
    assert one.drops == {"PKT_TOO_SMALL": 1}


def test_a_broadcast_datagram_is_not_answered():
    one = bed()
    one.receive_ip(udp_packet(b"hi", daddr=0xFFFFFFFF), dest=ETH_BROADCAST)
    assert one.take_sent() == []
    assert one.net.mib.udp.IgnoredMulti == 1
