"""The life of a neighbour entry, in virtual time."""

from __future__ import annotations

import errno

import pytest

from kit.netbed import (
    OTHER_MAC,
    OUR_MAC,
    OURS,
    PEER,
    PEER_MAC,
    Bed,
    neigh_config,
)
from ustack.core.skb import Skb
from ustack.ipv4.output import ip_queue_xmit
from ustack.ipv4.route import Route, ip_route_output, neigh_confirm
from ustack.lib.addresses import ETH_BROADCAST, ETH_ZERO
from ustack.lib.drop_reason import DropReason
from ustack.wire.arp import ARPOP_REPLY, ARPOP_REQUEST, ArpPacket
from ustack.wire.ethernet import ETH_P_ARP, ETH_P_IP, parse_ethernet

REPLY = ArpPacket(ARPOP_REPLY, PEER_MAC, PEER, OUR_MAC, OURS)
SECOND_US = 1_000_000


def route(bed: Bed, daddr: int = PEER) -> Route:
    rt = ip_route_output(bed.ip, daddr)
    assert rt is not None
    return rt


def send(bed: Bed, payload: bytes = b"payload!", daddr: int = PEER) -> DropReason | None:
    result = ip_queue_xmit(bed.ip, Skb(payload), route(bed, daddr), OURS, daddr, 200)
    bed.settle()
    return result


def state(bed: Bed) -> str | None:
    return next((r.state for r in bed.arp.table.records() if r.addr == PEER), None)


def reachable(bed: Bed) -> None:
    send(bed)
    bed.receive_arp(REPLY)
    bed.take_sent()
    assert state(bed) == "REACHABLE"


def test_ten_packets_to_a_new_neighbour_cause_one_request_and_leave_in_order():
    bed = Bed()
    for n in range(10):
        assert send(bed, bytes([n]) * 8) is None
    (request,) = bed.take_arp()
    assert request == ArpPacket(ARPOP_REQUEST, OUR_MAC, OURS, ETH_ZERO, PEER)
    assert bed.arp.table.records()[0].queue_pkts == 10
    bed.receive_arp(REPLY)
    frames = bed.take_sent()
    assert [f[34] for f in frames] == list(range(10))
    assert {parse_ethernet(f).dest for f in frames} == {PEER_MAC}
    assert state(bed) == "REACHABLE"


def test_a_silent_neighbour_is_asked_three_times_and_given_up_after_three_seconds():
    bed = Bed()
    errors = []
    bed.ip.inet_add_protocol(200, lambda skb: None, lambda *args: errors.append(args))
    send(bed)
    send(bed)
    bed.advance_us(2_999_999)
    assert len(bed.take_arp()) == 3
    assert errors == []
    bed.advance_us(1)
    bed.settle()
    assert state(bed) == "FAILED"
    assert bed.drops == {"NEIGH_FAILED": 2}
    assert bed.arp.table.stats.res_failed == 1
    assert [e[:5] for e in errors] == [(3, 1, 0, OURS, PEER)] * 2
    assert bytes(errors[0][5]) == b"payload!"
    assert bed.lo.stats.rx_packets == 2
    assert bed.net.mib.icmp.InDestUnreachs == bed.net.mib.icmp.OutDestUnreachs == 2


def test_a_failed_neighbour_is_asked_again_for_a_later_packet():
    bed = Bed()
    send(bed)
    bed.advance_us(3 * SECOND_US)
    bed.take_sent()
    assert send(bed) is DropReason.NEIGH_FAILED
    assert bed.take_sent() == []
    bed.advance_us(1)
    send(bed)
    assert state(bed) == "INCOMPLETE"
    assert len(bed.take_arp()) == 1
    bed.receive_arp(REPLY)
    assert state(bed) == "REACHABLE"


def test_the_queue_of_an_unresolved_neighbour_holds_101_packets_of_1514_bytes():
    bed = Bed()
    bed.eth0.mtu = 1514
    for n in range(105):
        send(bed, bytes([n]) * 1494)
    assert bed.arp.table.records()[0].queue_pkts == 101
    assert bed.drops == {"NEIGH_QUEUEFULL": 4}
    assert bed.arp.table.stats.unres_discards == 4
    bed.take_sent()
    bed.receive_arp(REPLY)
    assert [f[34] for f in bed.take_sent()] == list(range(4, 105))


def test_a_waiting_packet_keeps_its_pages_and_a_dropped_one_gives_them_back():
    bed = Bed()
    free = bed.mem.free_pages
    skb = Skb(b"header")
    skb.frags = [(bed.mem.alloc_pages(0), 10)]
    ip_queue_xmit(bed.ip, skb, route(bed), OURS, PEER, 200)
    assert bed.mem.free_pages == free - 1
    bed.advance_us(3 * SECOND_US)
    assert bed.mem.free_pages == free


def test_an_idle_reachable_neighbour_becomes_stale():
    bed = Bed()
    reachable(bed)
    bed.advance_us(bed.arp.table.reachable_time_us)
    assert state(bed) == "STALE"
    assert 15 * SECOND_US <= bed.arp.table.reachable_time_us < 45 * SECOND_US


def test_a_reachable_neighbour_that_was_used_lately_is_doubted_at_once():
    bed = Bed(neigh_config(base_reachable_time_us=2 * SECOND_US))
    reachable(bed)
    bed.advance_us(bed.arp.table.reachable_time_us)
    assert state(bed) == "DELAY"
    bed.advance_us(5 * SECOND_US)
    assert state(bed) == "PROBE"


def test_a_stale_neighbour_is_used_at_once_and_probed_by_unicast_after_five_seconds():
    bed = Bed(neigh_config(gc_stale_time_us=3600 * SECOND_US))
    reachable(bed)
    bed.advance_us(46 * SECOND_US)
    send(bed)
    assert state(bed) == "DELAY"
    assert [parse_ethernet(f).proto for f in bed.take_sent()] == [ETH_P_IP]
    bed.advance_us(5 * SECOND_US)
    assert state(bed) == "PROBE"
    (frame,) = bed.take_sent()
    assert (parse_ethernet(frame).proto, parse_ethernet(frame).dest) == (ETH_P_ARP, PEER_MAC)
    send(bed)
    assert [parse_ethernet(f).proto for f in bed.take_sent()] == [ETH_P_IP]
    bed.receive_arp(REPLY)
    assert state(bed) == "REACHABLE"


def test_probes_of_a_known_neighbour_end_after_three_too():
    bed = Bed(neigh_config(gc_stale_time_us=3600 * SECOND_US))
    reachable(bed)
    bed.advance_us(46 * SECOND_US)
    send(bed)
    bed.take_sent()
    bed.advance_us(5 * SECOND_US + 3 * SECOND_US)
    assert state(bed) == "FAILED"
    assert len(bed.take_arp()) == 3
    assert route(bed).neigh.hh is None


def test_progress_of_a_transport_confirms_without_a_probe():
    bed = Bed(neigh_config(gc_stale_time_us=3600 * SECOND_US))
    reachable(bed)
    bed.advance_us(46 * SECOND_US)
    send(bed)
    bed.advance_us(3 * SECOND_US)
    neigh_confirm(route(bed))
    neigh_confirm(None)
    bed.advance_us(2 * SECOND_US)
    assert state(bed) == "REACHABLE"
    assert [parse_ethernet(f).proto for f in bed.take_sent()] == [ETH_P_IP]


def test_a_confirmation_during_the_probes_ends_them():
    bed = Bed(neigh_config(gc_stale_time_us=3600 * SECOND_US))
    reachable(bed)
    bed.advance_us(46 * SECOND_US)
    send(bed)
    bed.advance_us(5 * SECOND_US)
    assert state(bed) == "PROBE"
    bed.advance_us(SECOND_US // 2)
    neigh_confirm(route(bed))
    bed.advance_us(SECOND_US)
    assert state(bed) == "REACHABLE"


def test_confirmations_keep_a_neighbour_reachable():
    bed = Bed()
    reachable(bed)
    for _ in range(20):
        bed.advance_us(10 * SECOND_US)
        neigh_confirm(route(bed))
    assert state(bed) == "REACHABLE"
    assert bed.take_arp() == []


def test_an_unused_entry_is_forgotten_and_then_no_timer_runs():
    bed = Bed(neigh_config(gc_thresh1=1))
    reachable(bed)
    bed.advance_us(200 * SECOND_US)
    assert bed.arp.table.records() == []
    assert bed.arp.table.stats.destroys == 1
    assert bed.arp.table.stats.periodic_gc_runs > 0
    assert bed.net.timers.next_us() is None


def test_a_small_table_forgets_nobody_and_needs_no_timer():
    bed = Bed(neigh_config(gc_thresh1=2))
    reachable(bed)
    bed.advance_us(1000 * SECOND_US)
    assert state(bed) == "STALE"
    assert bed.arp.table.stats.periodic_gc_runs == 0
    assert bed.net.timers.next_us() is None


def test_a_route_that_remembers_a_forgotten_neighbour_looks_up_again():
    bed = Bed(neigh_config(gc_thresh1=0))
    reachable(bed)
    rt = route(bed)
    old = rt.neigh
    bed.advance_us(200 * SECOND_US)
    assert old.dead
    assert send(bed) is None
    assert rt.neigh is not old
    assert len(bed.take_arp()) == 1


def test_a_dead_neighbour_takes_no_packet():
    bed = Bed()
    reachable(bed)
    neigh = route(bed).neigh
    bed.arp.table.remove(neigh)
    bed.arp.table.remove(neigh)
    result = bed.arp.table.neigh_resolve_output(neigh, Skb(bytes(20), bed.eth0))
    assert result is DropReason.NEIGH_DEAD
    assert bed.drops == {"NEIGH_DEAD": 1}


def test_a_permanent_neighbour_is_neither_aged_nor_overwritten():
    bed = Bed(neigh_config(gc_thresh1=0))
    bed.know_peer()
    rival = ArpPacket(ARPOP_REQUEST, OTHER_MAC, PEER, ETH_ZERO, PEER)
    bed.receive_arp(rival, dest=ETH_BROADCAST)
    bed.advance_us(1000 * SECOND_US)
    (record,) = bed.arp.table.records()
    assert (record.state, record.lladdr, record.dev) == ("PERMANENT", PEER_MAC, "eth0")


def test_entering_a_neighbour_by_hand_releases_what_waits_for_it():
    bed = Bed()
    send(bed)
    bed.take_sent()
    bed.know_peer()
    assert len(bed.take_sent()) == 1


def test_a_full_table_forgets_failed_entries_and_refuses_if_it_has_none():
    bed = Bed(neigh_config(gc_thresh3=2))
    for host in (10, 11):
        send(bed, daddr=0x0A000000 + host)
    assert send(bed, daddr=0x0A00000C) is DropReason.NEIGH_CREATEFAIL
    assert bed.drops == {"NEIGH_CREATEFAIL": 1}
    stats = bed.arp.table.stats
    assert (stats.table_fulls, stats.forced_gc_runs) == (1, 1)
    assert bed.net.mib.ip.OutDiscards == 1
    bed.advance_us(3_100_000)  # both have failed
    assert send(bed, daddr=0x0A00000C) is None
    assert bed.arp.table.lookup(bed.eth0, 0x0A00000C) is not None
    assert len(bed.arp.table) <= 2


def hear(bed: Bed, host: int) -> None:
    """Let 10.0.0.``host`` ask for us: it becomes STALE."""
    asker = ArpPacket(ARPOP_REQUEST, OTHER_MAC, 0x0A000000 + host, ETH_ZERO, OURS)
    bed.receive_arp(asker, dest=ETH_BROADCAST)


def test_above_the_second_threshold_old_entries_make_room_every_five_seconds():
    bed = Bed(neigh_config(gc_thresh1=0, gc_thresh2=4, gc_thresh3=100, gc_stale_time_us=10**12))
    for host in range(10, 16):
        hear(bed, host)
    assert len(bed.arp.table) == 6
    bed.advance_us(5 * SECOND_US)
    send(bed, daddr=0x0A000014)  # being resolved: stays
    bed.advance_us(1)
    hear(bed, 30)
    hear(bed, 31)
    # 10, 11 and 12 went for 30: seven entries were three more than four
    hosts = [r.addr & 255 for r in bed.arp.table.records()]
    assert bed.arp.table.stats.forced_gc_runs == 1
    assert hosts == [12, 13, 14, 15, 20, 30, 31]
    assert bed.arp.table.stats.table_fulls == 0


def test_static_entries_are_added_replaced_and_deleted():
    bed = Bed()
    table = bed.arp.table
    table.neigh_add(bed.eth0, PEER, OTHER_MAC)
    with pytest.raises(FileExistsError):
        table.neigh_add(bed.eth0, PEER, PEER_MAC)
    table.neigh_add(bed.eth0, PEER, PEER_MAC, replace=True)
    send(bed)
    (frame,) = bed.take_sent()
    assert parse_ethernet(frame).dest == PEER_MAC
    assert state(bed) == "PERMANENT"
    table.neigh_delete(bed.eth0, PEER)
    with pytest.raises(FileNotFoundError):
        table.neigh_delete(bed.eth0, PEER)
    send(bed)
    assert state(bed) == "INCOMPLETE"


@pytest.mark.parametrize(
    ("addr", "mac"),
    [
        (0, PEER_MAC),
        (0x7F000001, PEER_MAC),
        (0xE0000001, PEER_MAC),
        (0xFFFFFFFF, PEER_MAC),
        (PEER, ETH_BROADCAST),
        (PEER, ETH_ZERO),
        (PEER, b"short"),
    ],
)
def test_a_static_entry_is_for_a_host(addr, mac):
    bed = Bed()
    with pytest.raises(OSError) as caught:
        bed.arp.table.neigh_add(bed.eth0, addr, mac)
    assert caught.value.errno == errno.EINVAL


def test_a_static_entry_needs_a_device_that_is_up():
    bed = Bed(up=False)
    with pytest.raises(OSError) as caught:
        bed.arp.table.neigh_add(bed.eth0, PEER, PEER_MAC)
    assert caught.value.errno == errno.ENETDOWN


def test_static_entries_neither_fill_the_table_nor_are_refused_by_a_full_one():
    bed = Bed(neigh_config(gc_thresh3=2))
    for host in range(10, 20):
        bed.arp.table.neigh_add(bed.eth0, 0x0A000000 + host, PEER_MAC)
    hear(bed, 30)
    hear(bed, 31)
    hear(bed, 32)
    assert len(bed.arp.table) == 12
    assert bed.arp.table.stats.table_fulls == 1
    bed.arp.table.neigh_add(bed.eth0, 0x0A000032, PEER_MAC)
    assert len(bed.arp.table) == 13


def test_static_entries_that_are_gone_leave_no_room_for_more_others():
    bed = Bed(neigh_config(gc_thresh3=2))
    for host in range(10, 20):
        bed.arp.table.neigh_add(bed.eth0, 0x0A000000 + host, PEER_MAC)
    for host in range(10, 20):
        bed.arp.table.neigh_delete(bed.eth0, 0x0A000000 + host)
    for host in range(30, 40):
        hear(bed, host)
    assert len(bed.arp.table) == 2


def test_a_full_table_spares_who_is_reachable():
    bed = Bed(neigh_config(gc_thresh3=2))
    reachable(bed)
    hear(bed, 30)
    bed.advance_us(6 * SECOND_US)
    hear(bed, 31)
    assert [r.addr & 255 for r in bed.arp.table.records()] == [PEER & 255, 31]


def test_the_reachable_time_is_drawn_anew_every_five_minutes():
    bed = Bed()
    reachable(bed)
    first = bed.arp.table.reachable_time_us
    bed.advance_us(301 * SECOND_US)
    send(bed)
    bed.advance_us(6 * SECOND_US)
    bed.receive_arp(REPLY)
    second = bed.arp.table.reachable_time_us
    assert second != first
    assert 15 * SECOND_US <= second < 45 * SECOND_US


def test_a_flood_of_askers_fills_the_table_and_no_more():
    bed = Bed(neigh_config(gc_thresh3=50))
    for n in range(3, 203):
        asker = ArpPacket(ARPOP_REQUEST, OTHER_MAC, 0x0A000000 + n, ETH_ZERO, OURS)
        bed.receive_arp(asker, dest=ETH_BROADCAST)
        bed.advance_us(1000)
    stats = bed.arp.table.stats
    assert len(bed.arp.table) == 50
    assert stats.table_fulls == 150
    assert stats.forced_gc_runs < 5
    assert len(bed.take_arp()) == 200  # they are answered all the same
    bed.advance_us(5 * SECOND_US)
    assert send(bed) is None


def test_a_device_that_goes_down_forgets_its_neighbours():
    bed = Bed()
    send(bed)
    bed.net.dev_close(bed.eth0)
    assert bed.arp.table.records() == []
    assert bed.drops == {"NEIGH_DEAD": 1}


def test_broadcast_and_loopback_need_no_resolution():
    bed = Bed()
    send(bed, daddr=0x0A0000FF)
    (frame,) = bed.take_sent()
    assert parse_ethernet(frame).dest == ETH_BROADCAST
    assert bed.net.mib.ip_ext.OutBcastPkts == 1
    assert bed.arp.table.records()[0].state == "NOARP"
