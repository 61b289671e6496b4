"""rps_cpus and xps_cpus under their names in /sys."""

from __future__ import annotations

import random

import pytest

from unit.daemon.test_views import rows
from ustack.config import CoreConfig, NicConfig, StackConfig
from ustack.daemon.messages import CatRequest, LineRow, SysctlRequest, SysctlWriteRequest, ValueRow
from ustack.daemon.sysfs import sysfs_read, sysfs_write
from ustack.nic.pair import wire_pair
from ustack.stack import Stack

QUEUES = "/sys/class/net/eth0/queues"


@pytest.fixture
def stack() -> Stack:
    config = StackConfig(
        core=CoreConfig(arena_bytes=64 << 20, nr_cpus=8),
        nic=NicConfig(queues=2, large_receive=False),
    )
    stack = Stack(config, rng=random.Random(1))
    stack.add_igb(wire_pair()[0])
    return stack


@pytest.mark.parametrize("name", ["rx-1/rps_cpus", "tx-0/xps_cpus"])
@pytest.mark.parametrize(
    ("written", "read"), [("3", "03"), ("f0\n", "f0"), ("", "00"), ("0,1", "01")]
)
def test_a_mask_is_read_as_it_was_written(stack: Stack, name: str, written: str, read: str):
    assert sysfs_read(stack, f"{QUEUES}/{name}") == "00"
    sysfs_write(stack, f"{QUEUES}/{name}", written)
    assert sysfs_read(stack, f"{QUEUES}/{name}") == read


@pytest.mark.parametrize(
    ("path", "mask", "why"),
    [
        (f"{QUEUES}/rx-0/rps_cpus", "zz", "Invalid argument"),
        (f"{QUEUES}/rx-0/rps_cpus", "100", "Value too large for defined data type"),
        (f"{QUEUES}/rx-2/rps_cpus", "1", "No such file or directory"),
        (f"{QUEUES}/tx-2/xps_cpus", "1", "No such file or directory"),
        (f"{QUEUES}/rx-0/xps_cpus", "1", "No such file or directory"),
        ("/sys/class/net/eth9/queues/rx-0/rps_cpus", "1", "No such file or directory"),
        ("/sys/class/net/lo/queues/tx-0/xps_cpus", "1", "No such file or directory"),
        ("/sys/kernel", "1", "No such file or directory"),
    ],
)
def test_a_refusal_says_why(stack: Stack, path: str, mask: str, why: str):
    with pytest.raises(LookupError, match=f"{path}: {why}"):
        sysfs_write(stack, path, mask)


def test_sysctl_and_cat_know_the_names(stack: Stack):
    path = f"{QUEUES}/rx-0/rps_cpus"
    assert rows(stack, SysctlWriteRequest(path, "c"), ValueRow) == [ValueRow(path, "0c")]
    assert rows(stack, SysctlRequest(path), ValueRow) == [ValueRow(path, "0c")]
    assert rows(stack, CatRequest(path), LineRow) == [LineRow("0c")]


def test_received_rps_is_softnet_stats_tenth_column(stack: Stack):
    stack.net.softnets[1].received_rps = 255
    line = rows(stack, CatRequest("/proc/net/softnet_stat"), LineRow)[1].text
    assert line.split()[9] == "000000ff"


def test_a_devices_counters_are_files(stack: Stack):
    stack.net.devices["lo"].stats.rx_packets = 7
    assert sysfs_read(stack, "/sys/class/net/lo/statistics/rx_packets") == "7"
    for path in ("lo/statistics/nonsense", "eth9/statistics/rx_packets"):
        with pytest.raises(LookupError, match="No such file"):
            sysfs_read(stack, f"/sys/class/net/{path}")
