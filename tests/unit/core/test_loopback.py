"""lo turns packets round through the backlog, whole and unsummed."""

from __future__ import annotations

from kit.netbed import OURS, Bed, core_config, icmp_packet
from ustack.core.skb import CHECKSUM_PARTIAL, CHECKSUM_UNNECESSARY, PACKET_HOST, Skb
from ustack.core.transmit import dev_queue_xmit
from ustack.ipv4.output import ip_queue_xmit
from ustack.ipv4.route import ip_route_output
from ustack.lib.addresses import INADDR_LOOPBACK
from ustack.wire.ipv4 import IPPROTO_ICMP


def test_what_is_sent_is_received_in_the_next_softirq():
    bed = Bed()
    got: list[Skb] = []
    bed.ip.inet_add_protocol(200, got.append, None)
    rt = ip_route_output(bed.ip, INADDR_LOOPBACK)
    page = bed.mem.alloc_pages(0)
    bed.mem.view[page : page + 4] = b"tail"
    skb = Skb(b"head")
    skb.frags = [(page, 4)]
    skb.ip_summed = CHECKSUM_PARTIAL
    free = bed.mem.free_pages
    ip_queue_xmit(bed.ip, skb, rt, INADDR_LOOPBACK, INADDR_LOOPBACK, 200)
    assert got == []
    bed.settle()
    (received,) = got
    assert bytes(received.data[received.transport_offset :]) == b"headtail"
    assert received.ip_summed == CHECKSUM_UNNECESSARY
    assert received.pkt_type == PACKET_HOST
    assert bed.mem.free_pages == free + 1


def test_the_packet_is_handed_over_not_copied():
    bed = Bed()
    got: list[Skb] = []
    bed.net.ptype_base[0x0800] = got.append
    page = bed.mem.alloc_pages(0)
    free = bed.mem.free_pages
    skb = Skb(bytes(12) + b"\x08\x00" + bytes(20), bed.lo)
    skb.frags = [(page, 4096)]
    data = skb.data
    dev_queue_xmit(bed.net, skb)
    bed.settle()
    assert got == [skb]
    assert skb.data is data and skb.frags == [(page, 4096)]
    assert bed.mem.free_pages == free
    assert bed.lo.stats.rx_bytes == 34 + 4096


def test_what_the_backlog_has_no_room_for_gives_its_pages_back():
    bed = Bed(core_config(netdev_max_backlog=0))
    free = bed.mem.free_pages
    for _ in range(2):
        skb = Skb(bytes(12) + b"\x12\x34" + bytes(20), bed.lo)
        skb.frags = [(bed.mem.alloc_pages(0), 100)]
        dev_queue_xmit(bed.net, skb)
    bed.settle()
    assert bed.drops == {"CPU_BACKLOG": 1, "UNHANDLED_PROTO": 1}
    assert bed.mem.free_pages == free


def test_lo_counts_both_directions():
    bed = Bed()
    skb = Skb(bytes(12) + b"\x08\x00" + icmp_packet(0, saddr=OURS), bed.lo)
    dev_queue_xmit(bed.net, skb)
    stats = bed.lo.stats
    assert (stats.tx_packets, stats.rx_packets, stats.tx_bytes, stats.rx_bytes) == (1, 1, 42, 42)


def test_lo_carries_a_super_frame_of_64_kib_whole():
    bed = Bed()
    got: list[Skb] = []
    bed.ip.inet_add_protocol(200, got.append, None)
    rt = ip_route_output(bed.ip, OURS)
    assert rt.dev is bed.lo
    ip_queue_xmit(bed.ip, Skb(bytes(65515)), rt, OURS, OURS, 200)
    bed.settle()
    assert len(got[0].data) == 14 + 65535


def test_an_own_address_is_pinged_through_lo():
    bed = Bed()
    bed.lo.stats.rx_packets = 0
    rt = ip_route_output(bed.ip, OURS)
    message = icmp_packet(8, info=7, payload=b"ping", saddr=OURS)[20:]
    ip_queue_xmit(bed.ip, Skb(message), rt, OURS, OURS, IPPROTO_ICMP)
    bed.settle()
    assert bed.lo.stats.rx_packets == 2
    assert bed.net.mib.icmp.InEchoReps == 1
    assert bed.take_sent() == []
