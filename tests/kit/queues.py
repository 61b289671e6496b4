"""Listeners under pressure, in both profiles: hosts, floods and what they leave behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kit.host import TEST_CONFIG, Host, host
from kit.peer import Peer
from ustack.config import LINUX_6, CoreConfig, StackConfig, TcpConfig
from ustack.core.sysctl import sysctl_write, with_profile

SECOND = 1_000_000
SYN = "S 0:0(0) <mss 1460>"


def kernel(profile: str = LINUX_6, *, somaxconn: int | None = None, **tcp: Any) -> Host:
    """Return a host that behaves as ``profile`` with these net.ipv4 knobs."""
    config = with_profile(replace(TEST_CONFIG, tcp=TcpConfig(**tcp)), profile)
    if somaxconn is not None:
        core = CoreConfig(arena_bytes=config.core.arena_bytes, somaxconn=somaxconn)
        config = replace(config, core=core)
    return host(config)


def sysctl(server: Host, name: str, value: object) -> None:
    """Change a knob of a running host."""
    config: StackConfig = sysctl_write(server.stack.config, name, str(value))
    server.stack.set_config(config)


def flood(server: Host, syns: int, first_port: int = 20_000) -> list[Peer]:
    """Send SYNs that nobody follows up; return the peers that were answered."""
    peers = [server.peer(port=first_port + i) for i in range(syns)]
    for peer in peers:
        peer.send(SYN)
    return [peer for peer in peers if peer.inbox]


def syn_recv(server: Host) -> int:
    """Return how many connections ``ss`` shows in SYN-RECV."""
    return sum(row["state"] == "SYN-RECV" for row in server.stack.tcp.diag())


def times_s(peer: Peer, digits: int = 0) -> list[float]:
    """Return when segments came, in seconds since the first."""
    times = [seg.time_us for seg in peer.drain()]
    return [round((t - times[0]) / SECOND, digits) for t in times]
