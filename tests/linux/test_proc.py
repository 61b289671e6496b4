"""A running daemon's /proc and its knobs, while Linux's ping asks for their effect."""

from __future__ import annotations

from kit.lab import Daemon, Namespace


def ping(ns: Namespace, count: int) -> None:
    ns.flood("10.0.0.2", count)


def test_packets_show_in_every_file(ns: Namespace, daemon: Daemon):
    before = figures(daemon)
    ping(ns, 500)
    after = figures(daemon)
    assert all(new - old >= 500 for old, new in zip(before[:2], after[:2], strict=True))
    assert all(new > old for old, new in zip(before, after, strict=True))


def figures(daemon: Daemon) -> list[int]:
    """Packets by /proc/net/dev and softnet_stat, runs of NET_RX, interrupts."""
    dev = daemon.cli("cat", "/proc/net/dev").splitlines()
    softnet = daemon.cli("cat", "/proc/net/softnet_stat").split()
    softirqs = daemon.cli("cat", "/proc/softirqs").splitlines()
    interrupts = daemon.cli("cat", "/proc/interrupts").splitlines()
    return [
        next(int(line.split()[2]) for line in dev if "eth0:" in line),
        int(softnet[0], 16),
        next(int(line.split()[1]) for line in softirqs if "NET_RX" in line),
        sum(int(line.split()[1]) for line in interrupts if "eth0-" in line),
    ]


def test_nstat_and_proc_agree(ns: Namespace, daemon: Daemon):
    names, values = (line.split() for line in daemon.cli("cat", "/proc/net/snmp").splitlines()[:2])
    received = int(dict(zip(names, values, strict=True))["InReceives"])
    line = next(text for text in daemon.cli("nstat", "-az").splitlines() if "IpInReceives" in text)
    assert int(line.split()[1]) >= received


def test_a_knob_is_turned_live(ns: Namespace, daemon: Daemon):
    name = "net.ipv4.icmp_echo_ignore_all"
    assert daemon.cli("sysctl", name).strip() == f"{name} = 0"
    daemon.cli("sysctl", "-w", f"{name}=1")
    assert ns.run("ping", "-c", "1", "-W", "1", "10.0.0.2").returncode == 1
    daemon.cli("sysctl", "-w", f"{name}=0")
    assert ns.ping("10.0.0.2")
