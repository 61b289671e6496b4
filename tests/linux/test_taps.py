"""``ustack tcpdump`` and ``ustack trace`` on a running daemon, with Linux's ping and curl."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dpkt
import pytest

from kit.lab import Daemon, Namespace, script, stop, wait_for

pytestmark = pytest.mark.tap


@pytest.fixture(scope="module")
def plain(ns: Namespace) -> Any:
    """One daemon; offloads make no difference to what a tap is."""
    folder = ns.folder / "www"
    folder.mkdir(exist_ok=True)
    (folder / "page.html").write_bytes(b"x" * 300_000)
    mac = "02:00:00:00:00:02"
    with Daemon(ns, "--mac", mac, serve=f"echo,http={folder}") as running:
        # No ARP between the packets that are looked at.
        (link,) = json.loads(ns.output("ip", "-j", "link", "show", "dev", running.tap))
        permanent = ("nud", "permanent")
        neigh = ("ip", "neigh", "replace", "10.0.0.2", "lladdr", mac, "dev", running.tap)
        ns.output(*neigh, *permanent)
        neigh = ("ip", "neigh", "replace", "10.0.0.1", "lladdr", link["address"], "dev", "eth0")
        running.cli(*neigh, *permanent)
        yield running


def start(ns: Namespace, daemon: Daemon, *arguments: str) -> subprocess.Popen[Any]:
    """Start ``ustack ARGUMENTS`` and wait for its first line, which says that it watches."""
    child = ns.start(
        script("ustack"), *arguments, text=True, stderr=subprocess.PIPE,
        env={**os.environ, "USTACK_SOCKET": str(daemon.socket_path)},
    )  # fmt: skip
    assert child.stderr is not None
    line = child.stderr.readline()
    assert line.startswith(("listening on", "waiting for")), line
    return child


def finish(child: subprocess.Popen[Any]) -> tuple[str, str]:
    """Interrupt it and return what it printed."""
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    return out, err


def ping(ns: Namespace, count: int = 3) -> None:
    ns.ping("10.0.0.2", count=count)


def test_a_filter_shows_the_pings_and_nothing_else(ns: Namespace, plain: Daemon):
    """E-TCPDUMP, the part without netfilter: each request before ICMP, each reply after all."""
    child = start(ns, plain, "tcpdump", "-n", "-t", "-i", "eth0", "icmp")
    ns.output("curl", "-sSf", "-o", "/dev/null", "http://10.0.0.2/page.html")
    ping(ns)
    out, err = finish(child)
    kinds = [re.sub(r"id \d+", "id N", line) for line in out.splitlines()]
    assert kinds == [
        f"IP {way}: ICMP echo {word}, id N, seq 1, length 64"
        for _ in range(3)
        for way, word in (
            ("10.0.0.1 > 10.0.0.2", "request"),
            ("10.0.0.2 > 10.0.0.1", "reply"),
        )
    ]
    assert err.splitlines()[-3:] == [
        "6 packets captured",
        "6 packets received by filter",
        "0 packets dropped by kernel",
    ]


@pytest.mark.parametrize(("way", "word"), [("in", "request"), ("out", "reply")])
def test_one_direction_alone(ns: Namespace, plain: Daemon, way: str, word: str):
    child = start(ns, plain, "tcpdump", "-n", "-t", "-Q", way, "-i", "eth0", "-c", "2", "icmp")
    ping(ns, 2)
    out, _ = child.communicate(timeout=60)
    assert len(out.splitlines()) == 2
    assert all(f"echo {word}" in line for line in out.splitlines())


def test_the_stack_answers_what_the_receive_tap_has_seen_even_when_it_drops_it(
    ns: Namespace, plain: Daemon
):
    """A packet for nobody: the tap sees it before IP refuses it, and nothing goes out."""
    before = plain.cli("nstat", "-az")
    ns.output("ip", "neigh", "replace", "10.0.0.9", "lladdr", mac_of(plain), "dev", plain.tap)
    child = start(ns, plain, "tcpdump", "-n", "-t", "-i", "eth0", "host", "10.0.0.9")
    ns.run("ping", "-c", "2", "-i", "0.01", "-W", "1", "10.0.0.9")
    refused = counter(before, "IpInAddrErrors") + 2
    wait_for(lambda: counter(plain.cli("nstat", "-az"), "IpInAddrErrors") >= refused, "both")
    out, _ = finish(child)
    assert [line.split(",")[0] for line in out.splitlines()] == [
        "IP 10.0.0.1 > 10.0.0.9: ICMP echo request"
    ] * 2
    assert counter(plain.cli("nstat", "-az"), "IpInAddrErrors") == refused


def mac_of(daemon: Daemon) -> str:
    found = re.search(r"link/ether (\S+)", daemon.cli("ip", "link"))
    assert found
    return found[1]


def counter(text: str, name: str) -> int:
    found = re.search(rf"^{name}\s+(\d+)", text, re.M)
    assert found, f"{name} in\n{text}"
    return int(found[1])


@pytest.mark.parametrize("name", ["x.pcapng", "x.pcap"])
def test_the_kernels_tcpdump_reads_the_file(ns: Namespace, plain: Daemon, name: str):
    path = ns.folder / name
    child = start(ns, plain, "tcpdump", "-w", str(path), "-s", "100", "tcp port 80 or icmp")
    ns.output("curl", "-sSf", "-o", "/dev/null", "http://10.0.0.2/page.html")
    ping(ns, 2)
    _, err = finish(child)
    captured = int(err.splitlines()[-3].split()[0])
    lines = ns.output("tcpdump", "-n", "-r", str(path)).splitlines()
    assert len(lines) == captured > 10
    assert sum("ICMP echo" in line for line in lines) == 4
    lengths = [int(m[1]) for line in lines if (m := re.search(r"length (\d+)", line))]
    assert max(lengths) > 100  # cut short, but it says how long it was


def test_pcapng_has_direction_and_device(ns: Namespace, plain: Daemon):
    path = ns.folder / "way.pcapng"
    child = start(ns, plain, "tcpdump", "-w", str(path), "-c", "4", "icmp")
    ping(ns, 2)
    child.communicate(timeout=60)
    raw = path.read_bytes()
    assert b"eth0" in raw and b"\0icmp" in raw
    assert directions(raw) == [1, 2, 1, 2]


def directions(raw: bytes) -> list[int]:
    """Return the direction of each packet block."""
    found, at = [], 0
    while at < len(raw):
        kind, size = (int.from_bytes(raw[at + i : at + i + 4], "little") for i in (0, 4))
        if kind == dpkt.pcapng.PCAPNG_BT_EPB:
            block = dpkt.pcapng.EnhancedPacketBlockLE(raw[at : at + size])
            found += [int.from_bytes(o.data, "little") for o in block.opts if o.code == 2]
        at += size
    return found


def test_a_bad_filter_is_libpcaps_own_line(ns: Namespace, plain: Daemon):
    run = ns.run(
        script("ustack"), "tcpdump", "tcp", "prot", "80",
        env={**os.environ, "USTACK_SOCKET": str(plain.socket_path)},
    )  # fmt: skip
    theirs = ns.run("tcpdump", "-y", "EN10MB", "-i", plain.tap, "tcp", "prot", "80").stderr
    assert run.returncode == 1
    assert run.stderr == "ustack: tcpdump: can't parse filter expression: syntax error\n"
    assert "can't parse filter expression: syntax error" in theirs


def test_a_reader_that_sleeps_loses_packets_and_is_told(ns: Namespace, plain: Daemon):
    child = start(ns, plain, "tcpdump", "-w", "/dev/null", "-i", "eth0", "-s", "2000", "icmp")
    child.send_signal(signal.SIGSTOP)
    assert ns.flood("10.0.0.2", 4000, "-s", "1400") == 4000
    child.send_signal(signal.SIGCONT)
    _, err = finish(child)
    captured, received, dropped = (int(line.split()[0]) for line in err.splitlines()[-3:])
    assert received == 8000
    assert dropped > 0 and captured + dropped == received


Act = Callable[[Namespace], object]


@pytest.mark.parametrize(
    ("kind", "act", "first", "last"),
    [
        ("rx", lambda ns: ns.run("nc", "-N", "10.0.0.2", "7", input="hi"), "dma", None),
        ("tx", lambda ns: ns.run("nc", "-N", "10.0.0.2", "7", input="hi"), "syscall", "clean"),
        ("tx", lambda ns: ping(ns, 1), "icmp", "clean"),
    ],
)
def test_the_hops_of_one_packet(
    ns: Namespace, plain: Daemon, kind: str, act: Act, first: str, last: str | None
):
    child = start(ns, plain, "trace", "--one", kind)
    act(ns)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    head, *hops, done = out.splitlines()
    assert head.startswith("eth0: ") and done.endswith("done")
    stages = [line.split()[3] for line in hops]
    assert stages[0] == first
    assert stages[-1] == last or last is None
    times = [float(line.split()[0]) for line in [*hops, done]]
    assert times == sorted(times) and times[-1] < 60_000_000


def test_a_trace_that_is_interrupted_leaves_the_daemon_as_it_was(ns: Namespace, plain: Daemon):
    child = start(ns, plain, "trace", "--one", "lo")
    ping(ns, 1)
    finish(child)
    assert child.returncode == 1
    wait_for(lambda: "ESTAB" not in plain.cli("ss", "-ant"), "no connections")
    child = start(ns, plain, "trace", "--one", "lo")  # the last one is over
    stop(child, signal.SIGINT)


def test_nothing_of_it_ends_up_in_the_log(plain: Daemon):
    assert "internal error" not in plain.log()
    assert Path(plain.socket_path).exists()
