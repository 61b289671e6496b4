"""The kernel's own list of TCP's and UDP's knobs: each is here, or it is said why not."""

from __future__ import annotations

from pathlib import Path

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


def test_every_knob_of_tcp_and_udp_is_here_or_has_a_reason():
    ours = {name for name, _ in sysctl_values(StackConfig())}
    linux = {path.name for path in Path("/proc/sys/net/ipv4").glob("[tu][cd]p_*")}
    assert len(linux) > 50
    missing = sorted(name for name in linux if f"net.ipv4.{name}" not in ours)
    assert not [name for name in missing if name not in NOT_HERE]


def test_no_reason_is_left_for_what_is_here():
    ours = {name for name, _ in sysctl_values(StackConfig())}
    assert not [name for name in NOT_HERE if f"net.ipv4.{name}" in ours]
