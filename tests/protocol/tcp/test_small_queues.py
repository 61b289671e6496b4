"""A sender that outruns its device waits for it instead of overflowing the qdisc (TSQ)."""

from __future__ import annotations

import pytest

from kit.host import Impairment, two_hosts
from kit.transfer import Transfer, connected
from ustack.config import NicConfig
from ustack.lib.drop_reason import DropReason

SMALL = NicConfig(tx_ring=64, rx_ring=4096, tso=False, large_receive=False)


@pytest.mark.linux("tcp_small_queue_check")
def test_a_large_window_over_a_small_ring_drops_nothing():
    a, b = two_hosts(nic=SMALL, impair=Impairment(delay_us=10_000))
    near, far = connected(a, b)
    growing = Transfer(near, far, 16 << 20, finish=False)
    a.world.moving.append(growing)
    assert a.world.run_until(lambda: growing.received == growing.total)
    burst = Transfer(near, far, 4 << 20, chunk=4 << 20)
    a.world.moving[a.world.moving.index(growing)] = burst
    assert a.world.run_until(lambda: burst.finished)
    assert burst.equal
    assert a.adapter.ethtool_stats()["tx_queue_0_restart"] > 0  # the ring was full at times
    assert a.stack.net.drops[DropReason.QDISC_DROP] == 0
    assert a.mib.RetransSegs == 0
    assert not a.stack.tcp.tsq
