"""The configuration under its sysctl names: what ``sysctl net.core.somaxconn`` reads and sets.

A field of ``FsConfig`` is ``fs.NAME``, of ``CoreConfig`` ``net.core.NAME``, of ``IpConfig``,
``TcpConfig`` and ``UdpConfig`` ``net.ipv4.NAME``, of ``NeighConfig``
``net.ipv4.neigh.default.NAME``, in the unit that Linux uses. Nothing here changes anything:
``sysctl_write`` returns a new ``StackConfig``, which ``Stack.set_config`` hands to the layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import Field, dataclass, fields, replace
from operator import attrgetter
from typing import Any

from ustack.config import LINUX_6, LINUX_310, PROFILES, StackConfig

INT_MIN, INT_MAX = -(2**31), 2**31 - 1

SECTIONS = (
    ("fs.", ("fs",)),
    ("net.core.", ("core",)),
    ("net.ipv4.", ("ip",)),
    ("net.ipv4.neigh.default.", ("ip", "neigh")),
    ("net.ipv4.", ("tcp",)),
    ("net.ipv4.", ("udp",)),
    ("net.ustack.", ("ustack",)),
)
"""Prefix of the name, and where in ``StackConfig`` the fields are."""
NOT_SYSCTLS = frozenset(["nr_cpus", "arena_bytes", "init_cwnd", "ipfrag_evict"])
"""Fields that are settled when a stack is made, or have no sysctl in Linux."""

MILLISECONDS = {
    "icmp_ratelimit_us": "icmp_ratelimit",
    "base_reachable_time_us": "base_reachable_time_ms",
    "retrans_time_us": "retrans_time_ms",
    "tcp_tw_reuse_delay_us": "tcp_tw_reuse_delay",
    "tcp_invalid_ratelimit_us": "tcp_invalid_ratelimit",
    "tcp_rto_max_us": "tcp_rto_max_ms",
}
"""Times that Linux counts in milliseconds, and their names; other times are in seconds."""

MICROSECONDS = frozenset(["tcp_rto_min_us"])
"""Times that Linux counts as we do."""

RENAMED = {
    "file_max": "file-max",
    "min_pmtu": "route.min_pmtu",
    "mtu_expires_us": "route.mtu_expires",
    "promote_secondaries": "conf.all.promote_secondaries",
    "tcp_fastopen_blackhole_timeout_us": "tcp_fastopen_blackhole_timeout_sec",
}
"""Fields that Linux keeps in a folder of their own, or whose unit it names."""

LEAST = {
    "dev_weight": 1,
    "ip_default_ttl": 1,
    "nr_open": 64,
    "ip_local_port_range": 1,
    "rmem_default": 2304,
    "rmem_max": 2304,
    "tcp_adv_win_scale": -31,
    "tcp_base_mss": INT_MIN,
    "tcp_limit_output_bytes": INT_MIN,
    "tcp_min_snd_mss": 48,
    "tcp_mtu_probe_floor": 48,
    "tcp_probe_threshold": INT_MIN,
    "tcp_pingpong_thresh": 1,
    "tcp_min_tso_segs": 1,
    "tcp_reordering": 1,
    "tcp_rmem": 1,
    "tcp_rto_max_us": 1000,
    "tcp_rto_min_us": 1,
    "tcp_syn_retries": 1,
    "tcp_tw_reuse_delay_us": 1,
    "tcp_wmem": 1,
    "udp_rmem_min": 1,
    "udp_wmem_min": 1,
    "wmem_default": 4608,
    "wmem_max": 4608,
}
"""Smallest value of each field that does not begin at 0 (.extra1)."""
MOST = {
    "file_max": 2**63 - 1,
    "nr_open": 2**31 - 64,
    "tcp_ecn": 2,
    "tcp_notsent_lowat": 2**32 - 1,
    "ip_default_ttl": 255,
    "ip_local_port_range": 65535,
    "ip_unprivileged_port_start": 65535,
    "tcp_early_retrans": 4,
    "tcp_frto": 255,
    "tcp_keepalive_probes": 255,
    "tcp_max_reordering": 1023,
    "tcp_min_snd_mss": 65535,
    "tcp_min_tso_segs": 255,
    "tcp_mtu_probe_floor": 65535,
    "tcp_mtu_probing": 255,
    "tcp_orphan_retries": 255,
    "tcp_recovery": 255,
    "tcp_reordering": 255,
    "tcp_retries1": 255,
    "tcp_pacing_ca_ratio": 1000,
    "tcp_pacing_ss_ratio": 1000,
    "tcp_probe_interval_us": (2**32 - 1) // 250,
    "tcp_retries2": 255,
    "tcp_adv_win_scale": 31,
    "tcp_app_win": 31,
    "tcp_comp_sack_nr": 255,
    "tcp_pingpong_thresh": 255,
    "tcp_syn_linear_timeouts": 127,
    "tcp_syncookies": 2,
    "tcp_syn_retries": 127,
    "tcp_synack_retries": 255,
    "tcp_tw_reuse": 2,
    "tcp_tw_reuse_delay_us": 60_000,
    "tcp_rto_max_us": 120_000,
    "tcp_thin_linear_timeouts": 255,
    "tcp_timestamps": 255,
    "tcp_tso_rtt_log": 255,
    "tcp_tso_win_divisor": 255,
}
"""Largest value of each field that does not end at INT_MAX (.extra2 and the u8 ones)."""

WORDS = {
    "profile": re.compile("|".join(map(re.escape, PROFILES))),
    "tcp_fastopen_key": re.compile(
        r"(KEY)(,KEY)?".replace("KEY", r"[0-9a-f]{1,8}(-[0-9a-f]{1,8}){3}")
    ),
}
"""Fields that are no numbers, and what they accept."""
PROFILE_DEFAULTS: dict[tuple[str, ...], dict[str, Any]] = {
    ("core", "somaxconn"): {LINUX_6: 4096, LINUX_310: 128},
    ("ip", "neigh", "unres_qlen_bytes"): {LINUX_6: 212_992, LINUX_310: 65_536},
    ("tcp", "tcp_max_reordering"): {LINUX_6: 300, LINUX_310: 127},
    ("tcp", "tcp_recovery"): {LINUX_6: 1, LINUX_310: 0},
    ("tcp", "ip_local_port_range"): {LINUX_6: (32_768, 60_999), LINUX_310: (32_768, 61_000)},
    ("tcp", "tcp_syn_linear_timeouts"): {LINUX_6: 4, LINUX_310: 0},
    ("tcp", "tcp_tw_reuse"): {LINUX_6: 2, LINUX_310: 0},
}
"""Defaults that Linux has changed, by profile."""
ONLY_IN = {"netdev_budget_usecs": LINUX_6, "tcp_tw_recycle": LINUX_310}
"""Fields that one profile alone knows."""

READ_ONLY = frozenset(["tcp_available_congestion_control"])
"""Fields that show what there is."""
CHOICES = {
    "tcp_allowed_congestion_control": "tcp_available_congestion_control",
    "tcp_congestion_control": "tcp_available_congestion_control",
}
"""Fields that hold names, and the field that holds all names there are."""


def with_profile(config: StackConfig, profile: str) -> StackConfig:
    """Return ``config`` for another profile; what stood at the old one's default is at the new's.

    Args:
        profile: one of ``PROFILES``.
    """
    old = config.ustack.profile
    changed = replace(config, ustack=replace(config.ustack, profile=profile))
    for path, defaults in PROFILE_DEFAULTS.items():
        if attrgetter(".".join(path))(changed) == defaults[old]:
            changed = _replaced(changed, path, defaults[profile])
    return changed


def _replaced(config: Any, path: Sequence[str], value: Any) -> Any:
    """Return ``config`` with the field at the end of ``path`` replaced."""
    first, *rest = path
    new = _replaced(getattr(config, first), rest, value) if rest else value
    return replace(config, **{first: new})


@dataclass(frozen=True)
class Sysctl:
    """One knob."""

    name: str
    path: tuple[str, ...]
    """The attributes of ``StackConfig`` that lead to its object."""
    field: str
    unit_us: int
    """Microseconds in one of Linux's units; 1 for what is no time."""

    def owner(self, config: StackConfig) -> Any:
        """Return the dataclass that holds the value."""
        owner: Any = config
        for part in self.path:
            owner = getattr(owner, part)
        return owner

    def invalid(self) -> ValueError:
        """Return what is raised for a text that is no value of this knob (EINVAL)."""
        return ValueError(f'setting key "{self.name}": Invalid argument')


def sysctl_table(config: StackConfig) -> dict[str, Sysctl]:
    """Return every knob by name, in the order of the names."""
    found: dict[str, Sysctl] = {}
    profile = config.ustack.profile
    for prefix, path in SECTIONS:
        owner = Sysctl("", path, "", 1).owner(config)
        for field in fields(owner):
            value = getattr(owner, field.name)
            if field.name in NOT_SYSCTLS or ONLY_IN.get(field.name, profile) != profile:
                continue
            if isinstance(value, (int, tuple, str, frozenset)):
                knob = _sysctl(prefix, path, field)
                found[knob.name] = knob
    return dict(sorted(found.items()))


def sysctl_values(config: StackConfig) -> Iterator[tuple[str, str]]:
    """Yield every name with its value as ``sysctl -a`` prints it."""
    for name, knob in sysctl_table(config).items():
        yield name, _format(knob, getattr(knob.owner(config), knob.field))


def sysctl_read(config: StackConfig, name: str) -> str:
    """Return one value as ``sysctl`` prints it.

    Raises:
        LookupError: there is no such knob; the caller's fault.
    """
    knob = _find(config, name)
    return _format(knob, getattr(knob.owner(config), knob.field))


def sysctl_write(config: StackConfig, name: str, text: str) -> StackConfig:
    """Return ``config`` with one value replaced.

    Raises:
        LookupError: there is no such knob; the caller's fault.
        ValueError: ``text`` is no such value, or out of range (EINVAL), or the knob only shows
            something (EACCES); the caller's fault.
    """
    knob = _find(config, name)
    owner = knob.owner(config)
    old = getattr(owner, knob.field)
    if knob.field in READ_ONLY:
        raise ValueError(f'permission denied on key "{knob.name}"')
    parsed = _parse_names(knob, owner, text) if knob.field in CHOICES else _parse(knob, old, text)
    if knob.field == "profile":
        return with_profile(config, parsed)
    changed: StackConfig = _replaced(config, (*knob.path, knob.field), parsed)
    return changed


def _sysctl(prefix: str, path: tuple[str, ...], field: Field[Any]) -> Sysctl:
    if not field.name.endswith("_us") or field.name in MICROSECONDS:
        return Sysctl(prefix + RENAMED.get(field.name, field.name), path, field.name, 1)
    if field.name in MILLISECONDS:
        return Sysctl(prefix + MILLISECONDS[field.name], path, field.name, 1000)
    name = RENAMED.get(field.name, field.name.removesuffix("_us"))
    return Sysctl(prefix + name, path, field.name, 1_000_000)


def _find(config: StackConfig, name: str) -> Sysctl:
    knob = sysctl_table(config).get(name.replace("/", "."))
    if knob is None:
        path = name.replace(".", "/")
        raise LookupError(f"cannot stat /proc/sys/{path}: No such file or directory")
    return knob


def _format(knob: Sysctl, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, frozenset):
        return _format_ports(sorted(value))
    if isinstance(value, tuple):
        return "\t".join(str(part) for part in value)
    return str(int(value) // knob.unit_us)


def _parse_names(knob: Sysctl, owner: Any, text: str) -> str:
    """Read one name, or several, of those there are."""
    words = text.split()
    known = getattr(owner, CHOICES[knob.field]).split()
    if not words or any(word not in known for word in words):
        raise ValueError(f'setting key "{knob.name}": No such file or directory')
    if knob.field == "tcp_congestion_control":
        return words[0]
    return " ".join(words)


def _parse(knob: Sysctl, old: Any, text: str) -> Any:
    """Read a value of the type of ``old``; of several numbers those left out stay."""
    if isinstance(old, str):
        word = text.strip()
        if not WORDS[knob.field].fullmatch(word):
            raise knob.invalid()
        return word
    if isinstance(old, frozenset):
        return _parse_ports(knob, text)
    try:
        numbers = [int(word, 0) for word in text.split()]
    except ValueError:
        raise knob.invalid() from None
    width = len(old) if isinstance(old, tuple) else 1
    least = LEAST.get(knob.field, 0)
    most = 1 if isinstance(old, bool) else MOST.get(knob.field, INT_MAX)
    in_range = all(least <= number <= most for number in numbers)
    if not 0 < len(numbers) <= width or not in_range:
        raise knob.invalid()
    if isinstance(old, tuple):
        value = (*numbers, *old[len(numbers) :])
        if value != tuple(sorted(value)) and knob.field == "ip_local_port_range":
            raise knob.invalid()
        return value
    return type(old)(numbers[0] * knob.unit_us)


def _format_ports(ports: list[int]) -> str:
    """Write a set of ports as Linux does, ranges with a hyphen (proc_do_large_bitmap)."""
    out: list[str] = []
    for i, port in enumerate(ports):
        if i and ports[i - 1] == port - 1:
            out[-1] = f"{out[-1].partition('-')[0]}-{port}"
        else:
            out.append(str(port))
    return ",".join(out)


def _parse_ports(knob: Sysctl, text: str) -> frozenset[int]:
    """Read ports and ranges between commas; nothing is the empty set."""
    ports: set[int] = set()
    for part in text.strip().split(",") if text.strip() else ():
        words = part.split("-")
        if len(words) > 2 or not all(word.isdecimal() for word in words):
            raise knob.invalid()
        low, high = int(words[0]), int(words[-1])
        if not low <= high <= 65535:
            raise knob.invalid()
        ports.update(range(low, high + 1))
    return frozenset(ports)
