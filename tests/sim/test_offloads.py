"""Every combination of MTU and offloads carries the same bytes, both ways, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from kit.budget import is_long_run
from kit.host import TEST_CONFIG, two_hosts
from kit.transfer import Transfer, connected
from ustack.config import CoreConfig, NicConfig

TOTAL = 20_000_000 if is_long_run() else 4_000_000
COMBINATIONS = [
    {"mtu": mtu, "tx_checksum": tx, "rx_checksum": rx, "tso": tso, "large_receive": lro}
    for mtu, tx, rx, tso, lro in product((1500, 9000, 65000), *[(True, False)] * 4)
]


def name(nic: dict) -> str:
    on = [key for key, value in nic.items() if value is True]
    return f"{nic['mtu']}-{'+'.join(on) or 'none'}"


@pytest.mark.parametrize("nic", COMBINATIONS, ids=name)
def test_every_byte_arrives_both_ways_at_once(nic):
    config = replace(
        TEST_CONFIG, nic=replace(NicConfig(), **nic), core=CoreConfig(arena_bytes=64 << 20)
    )
    a, b = two_hosts(config)
    near, far = connected(a, b)
    there = Transfer(near, far, TOTAL, seed=1, finish=False)
    back = Transfer(far, near, TOTAL, seed=2, finish=False)
    a.world.moving += [there, back]
    assert a.world.run_until(lambda: there.received == back.received == TOTAL)
    assert there.equal
    assert back.equal
    for host in (a, b):
        stats = host.adapter.ethtool_stats()
        assert stats["rx_missed_errors"] == stats["rx_queue_0_csum_err"] == 0
        assert stats["rx_long_length_errors"] == 0


@pytest.mark.parametrize(("tso", "least", "most"), [(True, 15, 300), (False, 1400, 1500)])
def test_descriptors_for_a_megabyte_with_and_without_tso(tso: bool, least: int, most: int):
    """Without, each of 725 segments has one for its headers and one for its payload."""
    a, b = two_hosts(nic=NicConfig(tso=tso, rx_ring=4096, tx_ring=4096))
    near, far = connected(a, b)
    before = a.adapter.ethtool_stats()["tx_queue_0_descriptors"]
    transfer = Transfer(near, far, 1 << 20)
    a.world.moving.append(transfer)
    assert a.world.run_until(lambda: transfer.finished) and transfer.equal
    used = a.adapter.ethtool_stats()["tx_queue_0_descriptors"] - before
    assert least < used < most, used
