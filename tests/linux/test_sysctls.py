"""The kernel's own list of TCP's and UDP's knobs: each is here, or it is said why not."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from kit.lab import Namespace
from ustack.config import StackConfig
from ustack.core.sysctl import sysctl_values

NOT_HERE = {
    "tcp_available_ulp": "no protocols above TCP in the kernel (TLS, MPTCP)",
    "tcp_backlog_ack_defer": "no backlog: one thread at a time has the stack",
    "tcp_child_ehash_entries": "tables grow by themselves",
    "tcp_comp_sack_slack_ns": "timers are exact; Linux may fire this one late",
    "tcp_early_demux": "a connection's route is one look-up in a cache without it",
    "tcp_ecn_option": "Accurate ECN is not here",
    "tcp_ecn_option_beacon": "Accurate ECN is not here",
    "tcp_ehash_entries": "tables grow by themselves",
    "tcp_fack": "without effect in Linux since 4.15",
    "tcp_fwmark_accept": "packets have no marks",
    "tcp_l3mdev_accept": "no VRFs",
    "tcp_migrate_req": "requests of a closed listener are not given to another",
    "tcp_plb_cong_thresh": "no flow labels in IPv4",
    "tcp_plb_enabled": "no flow labels in IPv4",
    "tcp_plb_idle_rehash_rounds": "no flow labels in IPv4",
    "tcp_plb_rehash_rounds": "no flow labels in IPv4",
    "tcp_plb_suspend_rto_sec": "no flow labels in IPv4",
    "udp_child_hash_entries": "tables grow by themselves",
    "udp_early_demux": "a socket's route is one look-up in a cache without it",
    "udp_hash_entries": "tables grow by themselves",
    "udp_l3mdev_accept": "no VRFs",
}

BY_MACHINE = {
    "net.ipv4.tcp_fastopen_key": "a secret",
    "net.ipv4.tcp_max_orphans": "by memory: 131072 where there is plenty",
    "net.ipv4.tcp_max_syn_backlog": "by memory: 2048 where there is plenty",
    "net.ipv4.tcp_max_tw_buckets": "by memory: 131072 where there is plenty",
    "net.ipv4.tcp_mem": "by memory, ours by the arena's",
    "net.ipv4.tcp_wmem": "by memory: 4 MiB where there is plenty",
    "net.ipv4.udp_mem": "by memory, ours by the arena's",
    "net.ipv4.tcp_allowed_congestion_control": "by what is built in",
    "net.ipv4.tcp_available_congestion_control": "by what is built in",
    "net.ipv4.tcp_congestion_control": "by how the kernel was built; cubic is Linux's own choice",
}
OTHER_DEFAULT = {
    "net.ipv4.tcp_rmem": "6 MiB at most, as until Linux 6.15, not 32: an arena is small",
}
"""What is not as a kernel of ``KERNEL`` or later has it."""
KERNEL = (6, 18)
EVERY_VALUE = """
cd /proc/sys/net/ipv4
for knob in tcp_* udp_* ip_local_* ip_auto*; do echo "net.ipv4.$knob = $(cat $knob)"; done
"""


def test_every_knob_of_tcp_and_udp_is_here_or_has_a_reason():
    ours = {name for name, _ in sysctl_values(StackConfig())}
    linux = {path.name for path in Path("/proc/sys/net/ipv4").glob("[tu][cd]p_*")}
    assert len(linux) > 50
    missing = sorted(name for name in linux if f"net.ipv4.{name}" not in ours)
    assert not [name for name in missing if name not in NOT_HERE]


@pytest.mark.tap
@pytest.mark.other_kernels
def test_every_default_is_the_kernels_or_has_a_reason():
    version = re.match(r"(\d+)\.(\d+)", platform.release())
    assert version is not None
    if (int(version[1]), int(version[2])) < KERNEL:
        pytest.skip("another kernel's defaults")
    with Namespace("defaults") as ns:
        said = ns.output("sh", "-c", EVERY_VALUE)
    linux = {name: " ".join(value.split()) for name, value in pairs(said)}
    ours = {name: " ".join(value.split()) for name, value in sysctl_values(StackConfig())}
    both = linux.keys() & ours.keys() - BY_MACHINE.keys()
    assert len(both) > 60
    assert {name for name in both if linux[name] != ours[name]} == OTHER_DEFAULT.keys()


def pairs(text: str) -> list[list[str]]:
    """Split lines like ``sysctl -a``'s into name and value."""
    return [line.split(" = ", 1) for line in text.splitlines() if " = " in line]


def test_no_reason_is_left_for_what_is_here():
    ours = {name for name, _ in sysctl_values(StackConfig())}
    assert not [name for name in NOT_HERE if f"net.ipv4.{name}" in ours]
