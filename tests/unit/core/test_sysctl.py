"""Knobs: names, units, ranges, and that a new value is in force at once."""

from __future__ import annotations

import random

import pytest

from ustack.config import CoreConfig, StackConfig
from ustack.core.backlog import netif_rx
from ustack.core.skb import Skb
from ustack.core.sysctl import READ_ONLY, sysctl_read, sysctl_table, sysctl_values, sysctl_write
from ustack.lib.drop_reason import DropReason
from ustack.stack import Stack

CONFIG = StackConfig(core=CoreConfig(arena_bytes=4 << 20))


def test_values_are_printed_in_linuxs_units():
    values = dict(sysctl_values(CONFIG))
    assert values["net.core.netdev_budget"] == "300"
    assert values["net.core.netdev_budget_usecs"] == "8000"
    assert values["net.ipv4.tcp_fin_timeout"] == "60"
    assert values["net.ipv4.icmp_ratelimit"] == "1000"
    assert values["net.ipv4.neigh.default.retrans_time_ms"] == "1000"
    assert values["net.ipv4.neigh.default.gc_stale_time"] == "60"
    assert values["net.ipv4.tcp_rmem"] == "4096\t131072\t6291456"
    assert values["net.ipv4.tcp_sack"] == "1"
    assert values["net.ipv4.route.mtu_expires"] == "600"
    assert values["net.ipv4.route.min_pmtu"] == "552"
    assert list(values) == sorted(values)
    assert "net.core.arena_bytes" not in values


@pytest.mark.parametrize(
    "name", [n for n, k in sysctl_table(CONFIG).items() if k.field not in READ_ONLY]
)
def test_every_knob_can_be_written_with_what_it_reads(name: str):
    assert sysctl_write(CONFIG, name, sysctl_read(CONFIG, name)) == CONFIG


def test_a_write_changes_one_value_and_its_type_stays():
    config = sysctl_write(CONFIG, "net.ipv4.tcp_sack", "0")
    assert config.tcp.tcp_sack is False
    config = sysctl_write(config, "net/ipv4/neigh/default/retrans_time_ms", "250")
    assert config.ip.neigh.retrans_time_us == 250_000
    config = sysctl_write(config, "net.ipv4.tcp_fin_timeout", " 0x10 ")
    assert config.tcp.tcp_fin_timeout_us == 16_000_000
    config = sysctl_write(config, "net.ipv4.tcp_rmem", "4096 65536")
    assert config.tcp.tcp_rmem == (4096, 65536, 6_291_456)
    assert config.core == CONFIG.core


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.core.somaxconn", ""), ("net.core.somaxconn", "many"), ("net.core.somaxconn", "-1"),
        ("net.core.somaxconn", "1 2"), ("net.core.somaxconn", "2147483648"),
        ("net.core.dev_weight", "0"), ("net.ipv4.tcp_sack", "2"), ("net.ipv4.tcp_retries2", "256"),
        ("net.ipv4.ip_default_ttl", "0"), ("net.ipv4.ip_local_port_range", "5000 4000"),
        ("net.ipv4.ip_local_port_range", "1 65536"), ("net.ipv4.tcp_rmem", "1 2 3 4"),
        ("net.ipv4.tcp_syncookies", "3"), ("net.ipv4.tcp_fastopen_key", "1-2-3"),
        ("net.ustack.profile", "linux-2.4"),
    ],
)  # fmt: skip
def test_what_linux_refuses_is_refused(name: str, value: str):
    with pytest.raises(ValueError, match=f'setting key "{name}": Invalid argument'):
        sysctl_write(CONFIG, name, value)


def test_a_word_is_a_value_too():
    config = sysctl_write(CONFIG, "net.ipv4.tcp_fastopen_key", "1-2-3-fe")
    assert config.tcp.tcp_fastopen_key == "1-2-3-fe"


def test_another_profile_brings_its_defaults_and_leaves_what_was_set():
    old = sysctl_write(CONFIG, "net.ustack.profile", "linux-3.10")
    assert (old.ustack.profile, old.core.somaxconn) == ("linux-3.10", 128)
    assert old.ip.neigh.unres_qlen_bytes == 65_536
    assert sysctl_write(old, "net.ustack.profile", "linux-6") == CONFIG
    chosen = sysctl_write(CONFIG, "net.core.somaxconn", "77")
    assert sysctl_write(chosen, "net.ustack.profile", "linux-3.10").core.somaxconn == 77


def test_an_unknown_name():
    with pytest.raises(LookupError, match="cannot stat /proc/sys/net/core/nothing: No such file"):
        sysctl_read(CONFIG, "net.core.nothing")


def write(stack: Stack, name: str, value: str) -> None:
    stack.set_config(sysctl_write(stack.config, name, value))


def test_every_layer_goes_by_the_new_configuration():
    stack = Stack(CONFIG, rng=random.Random(1))
    write(stack, "net.core.somaxconn", "7")
    write(stack, "net.ipv4.ip_default_ttl", "5")
    write(stack, "net.ipv4.tcp_syn_retries", "2")
    write(stack, "net.ipv4.icmp_msgs_per_sec", "3")
    write(stack, "net.ipv4.neigh.default.mcast_solicit", "9")
    assert stack.tcp.somaxconn == 7
    assert stack.net.mib.ip.DefaultTTL == 5
    assert stack.tcp.config.tcp_syn_retries == 2
    assert stack.ip.icmp.limiter.config.icmp_msgs_per_sec == 3
    assert stack.arp.table.config.mcast_solicit == 9
    assert stack.net.config is stack.config


def test_a_small_backlog_drops_from_now_on():
    stack = Stack(CONFIG, rng=random.Random(1))
    write(stack, "net.core.netdev_max_backlog", "1")
    results = [netif_rx(stack.net, Skb(bytes(60), stack.lo)) for _ in range(3)]
    assert results == [None, None, DropReason.CPU_BACKLOG]
