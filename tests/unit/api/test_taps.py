"""The application's own protocols and taps: register_protocol and dev_add_pack."""

from __future__ import annotations

import pytest

from kit.host import Host, host
from kit.netbed import OTHER_MAC, PEER, PEER_MAC
from ustack.core.netdevice import NetDevice
from ustack.core.skb import Skb, skb_bytes
from ustack.wire.ethernet import build_ethernet
from ustack.wire.ipv4 import build_ipv4

OURS = 0x0A000002
OSPF = 89


def packet(one: Host, proto: int, payload: bytes, *, mac: bytes | None = None) -> bytes:
    """Return an IPv4 packet to the host in its frame."""
    ip = build_ipv4(PEER, OURS, proto, len(payload)) + payload
    return build_ethernet(mac or one.mac, PEER_MAC, 0x0800) + ip


def deliver(one: Host, frame: bytes) -> None:
    assert one.net is not None
    one.net.wire.send_frame(bytes(10) + frame)
    one.settle()


def answers(one: Host) -> list[bytes]:
    """Return the ICMP messages that the host has sent."""
    assert one.net is not None
    frames = [capture.frame for capture in one.net.other]
    return [f[34:] for f in frames if f[12:14] == b"\x08\0" and f[23] == 1]


def test_a_protocol_of_ones_own_gets_its_packets_and_nobody_is_told_it_is_unreachable():
    one = host()
    one.stack.arp.table.set_permanent(one.adapter, PEER, PEER_MAC)
    got: list[bytes] = []
    one.stack.register_protocol(
        OSPF, lambda skb: got.append(bytes(skb.data[skb.transport_offset :]))
    )
    deliver(one, packet(one, OSPF, b"hello"))
    assert got == [b"hello"] and answers(one) == []
    one.stack.unregister_protocol(OSPF)
    deliver(one, packet(one, OSPF, b"again"))
    assert got == [b"hello"]
    assert [message[:2] for message in answers(one)] == [b"\3\2"]  # protocol unreachable
    assert one.mib.InUnknownProtos == 1


def test_what_is_taken_or_makes_no_sense_is_refused():
    stack = host().stack
    for proto in (1, 6, 17):
        with pytest.raises(KeyError):
            stack.register_protocol(proto, print)
        with pytest.raises(KeyError):
            stack.unregister_protocol(proto)
    for proto in (-1, 256):
        with pytest.raises(ValueError):
            stack.register_protocol(proto, print)
    with pytest.raises(KeyError):
        stack.unregister_protocol(OSPF)
    for ethertype in (0x05FF, 0x10000, 0):
        with pytest.raises(ValueError):
            stack.dev_add_pack(ethertype, print)


def test_a_receive_tap_sees_what_the_protocol_then_refuses():
    one = host()
    seen: list[tuple[bool, int]] = []
    one.stack.dev_add_pack(None, lambda skb, dev, outgoing: seen.append((outgoing, len(skb))))
    broken = bytearray(packet(one, OSPF, b"x" * 30))
    broken[24] ^= 1  # the header checksum
    deliver(one, bytes(broken))
    deliver(one, packet(one, OSPF, b"x" * 30, mac=OTHER_MAC))
    assert seen == [(False, 64), (False, 64)]
    assert one.stack.net.drops.nonzero() == {"IP_CSUM": 1, "OTHERHOST": 1}


def test_a_transmit_tap_sees_the_frame_as_the_driver_gets_it():
    one = host()
    sk, peer = one.established()
    seen: list[bytes] = []

    def tap(skb: Skb, dev: NetDevice, outgoing: bool) -> None:
        if outgoing:
            seen.append(skb_bytes(one.stack.net, skb))

    one.stack.dev_add_pack(None, tap)
    sk.send(b"data on its way")
    one.settle()
    (frame,) = seen
    assert frame.endswith(b"data on its way")
    assert frame[:6] != bytes(6) and frame[12:14] == b"\x08\0"  # neighbour and all
    peer.expect("P. 1:16(15) ack 1")


def test_a_frame_that_is_never_sent_is_not_tapped():
    one = host()
    seen: list[int] = []
    one.stack.dev_add_pack(None, lambda skb, dev, outgoing: seen.append(outgoing))
    one.stack.net.dev_close(one.adapter)
    sk = one.socket()
    with pytest.raises(OSError):
        sk.connect(PEER, 80)
    assert seen == []


def test_the_processs_stack_has_the_same_calls(stack, pair):
    handle = stack
    seen: list[bool] = []

    def tap(skb: Skb, dev: NetDevice, outgoing: bool) -> None:
        seen.append(outgoing)

    handle.dev_add_pack(None, tap)
    client, server = pair
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    handle.dev_remove_pack(None, tap)
    assert {True, False} == set(seen)
    handle.register_protocol(OSPF, print)
    with pytest.raises(KeyError):
        handle.register_protocol(OSPF, print)
    handle.unregister_protocol(OSPF)
