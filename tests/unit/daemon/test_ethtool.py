"""The daemon's side of ethtool, of ip link set and of smp_affinity."""

from __future__ import annotations

import random

import pytest

from ustack.config import CoreConfig, NicConfig, StackConfig
from ustack.daemon.ethtool import ETHTOOL_VIEWS, ethtool_rows, ethtool_set
from ustack.daemon.irq import read_affinity, write_affinity
from ustack.daemon.messages import EthtoolRequest, EthtoolSetRequest
from ustack.nic.pair import wire_pair
from ustack.stack import Stack


@pytest.fixture
def stack() -> Stack:
    config = StackConfig(nic=NicConfig(queues=2), core=CoreConfig(nr_cpus=2, arena_bytes=64 << 20))
    stack = Stack(config, rng=random.Random(1))
    stack.add_igb(wire_pair()[0])
    return stack


def view(stack: Stack, name: str) -> dict[str, object]:
    return {row.name: row.value for row in ethtool_rows(stack, EthtoolRequest("eth0", name))}


@pytest.mark.parametrize(
    ("setting", "values", "shown"),
    [
        ("ring", {"rx": 512}, {"rx_pending": 512, "tx_pending": 256}),
        ("channels", {"combined": 4}, {"combined_count": 4}),
        ("coalesce", {"rx_usecs": 50}, {"rx_coalesce_usecs": 50, "use_adaptive_rx": False}),
        ("pause", {"rx": False}, {"rx_pause": False, "tx_pause": False}),
        ("features", {"tso": False}, {"tcp-segmentation-offload": False}),
        ("rxfh", {"equal": 1}, {"indirection": " ".join(["0"] * 128)}),
        ("rxfh", {"key": ":".join(["5a"] * 40)}, {"key": ":".join(["5a"] * 40)}),
    ],
)
def test_what_is_set_is_shown(stack: Stack, setting, values, shown):
    ethtool_set(stack, EthtoolSetRequest("eth0", setting, values))
    assert shown.items() <= view(stack, setting).items()


def test_a_new_mtu_makes_routes_new(stack: Stack):
    before = stack.ip.fib.genid
    ethtool_set(stack, EthtoolSetRequest("eth0", "mtu", {"mtu": 9000}))
    assert stack.net.devices["eth0"].mtu == 9000
    assert stack.ip.fib.genid != before


@pytest.mark.parametrize(
    ("device", "setting", "values", "text"),
    [
        ("eth9", "ring", {"rx": 512}, "no device matches name"),
        ("lo", "ring", {"rx": 512}, "Operation not supported"),
        ("eth0", "nonsense", {}, "Operation not supported"),
        ("eth0", "ring", {"rx": 9999}, "Invalid argument"),
        ("eth0", "ring", {"rx": "many"}, "Invalid argument"),
        ("eth0", "ring", {"jumbo": 5}, "Invalid argument"),
        ("eth0", "rxfh", {"key": "zz"}, "Invalid argument"),
        ("eth0", "features", {"ntuple": True}, "Operation not supported"),
        ("eth0", "mtu", {"mtu": 5}, "Invalid argument"),
    ],
)
def test_a_refusal_is_linuxs_text(stack: Stack, device, setting, values, text):
    with pytest.raises(LookupError, match=text):
        ethtool_set(stack, EthtoolSetRequest(device, setting, values))


def test_every_view_of_a_nic_has_something(stack: Stack):
    assert all(view(stack, name) for name in ETHTOOL_VIEWS)


def test_an_interrupts_affinity_is_read_and_written(stack: Stack):
    assert [read_affinity(stack, irq) for irq in (24, 25)] == ["1", "2"]
    write_affinity(stack, 25, "1")
    assert read_affinity(stack, 25) == "1"
    for irq, mask in ((25, "0"), (25, "4"), (25, "x"), (26, "1"), (23, "1")):
        with pytest.raises(LookupError):
            write_affinity(stack, irq, mask)
