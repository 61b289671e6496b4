"""When C may take segments and send them, and when everything goes through Python."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kit.host import Host, two_hosts
from kit.transfer import Transfer, connected
from ustack.config import LINUX_310, NicConfig, UstackConfig
from ustack.core.netdevice import NetDevice
from ustack.core.skb import Skb
from ustack.ipv4.route import ip_rt_update_pmtu
from ustack.lib.addresses import parse_ipv4

PEER = parse_ipv4("10.0.0.2")


@pytest.fixture
def pair() -> tuple[Host, Host, Any, Any]:
    a, b = two_hosts(nic=NicConfig())
    return a, b, *connected(a, b)


def send(pair: tuple[Host, Host, Any, Any], total: int = 200_000) -> tuple[int, int]:
    """Move bytes from the first host to the second; return frames taken and segments sent by C."""
    a, b, near, far = pair
    before = figures(a, b)
    transfer = Transfer(near, far, total, finish=False)
    a.world.moving.append(transfer)
    assert a.world.run_until(lambda: transfer.received == total)
    a.world.moving.remove(transfer)
    after = figures(a, b)
    return after[0] - before[0], after[1] - before[1]


def figures(a: Host, b: Host) -> tuple[int, int]:
    return b.stack.tcp.fast.ptr.mib.fast_rx, a.stack.tcp.fast.ptr.mib.fast_tx


def test_c_takes_the_bulk_of_a_transfer_and_sends_it(pair):
    taken, sent = send(pair)
    assert taken > 0
    assert sent > 0


def test_it_can_be_switched_off_and_on_while_connections_are_open(pair):
    a, b, _, _ = pair
    send(pair)
    for host in (a, b):
        config = host.stack.config
        host.stack.set_config(replace(config, ustack=UstackConfig(tcp_fastpath=False)))
    taken, sent = send(pair)
    assert taken == 0 and sent > 0  # as Python has decided
    for host in (a, b):
        host.stack.set_config(replace(host.stack.config, ustack=UstackConfig()))
    taken, sent = send(pair)
    assert taken > 0 and sent > 0


def test_whoever_taps_sees_every_packet(pair):
    a, b, _, _ = pair
    seen: list[int] = []

    def tap(skb: Skb, dev: NetDevice, outgoing: bool) -> None:
        del dev, outgoing
        seen.append(len(skb))

    a.stack.dev_add_pack(None, tap)
    b.stack.dev_add_pack(None, tap)
    assert send(pair) == (0, 0)
    assert sum(seen) > 400_000
    a.stack.dev_remove_pack(None, tap)
    b.stack.dev_remove_pack(None, tap)
    taken, sent = send(pair)
    assert taken > 0 and sent > 0


def test_the_older_kernels_rules_are_pythons():
    a, b = two_hosts(nic=NicConfig(), ustack=UstackConfig(profile=LINUX_310))
    taken, sent = send((a, b, *connected(a, b)))
    assert taken == 0 and sent > 0  # as Python has decided


def test_a_reader_who_asks_for_much_at_once_is_woken_by_python(pair):
    far = pair[3]
    far.setsockopt(1, 18, 1000)  # SO_RCVLOWAT
    assert send(pair)[0] == 0
    far.setsockopt(1, 18, 1)
    assert send(pair)[0] > 0


def test_c_leaves_a_route_that_does_not_hold_any_more(pair):
    a = pair[0]
    send(pair)
    route, old = pair[2]._sk.dst, pair[2]._sk.tp.dst
    ip_rt_update_pmtu(a.stack.ip, PEER, 600)
    send(pair)
    assert pair[2]._sk.dst is not route
    assert pair[2]._sk.tp.dst != old
    assert pair[2]._sk.tp.mss_cache == 600 - 52


def test_c_does_not_send_to_a_neighbour_that_is_gone(pair):
    a = pair[0]
    send(pair)
    (neigh,) = [n for n in a.stack.arp.table._entries.values() if n.addr == PEER]
    a.stack.arp.table.remove(neigh)
    assert not neigh.hh_cache.usable
    assert send(pair)[1] > 0  # it was asked for anew
