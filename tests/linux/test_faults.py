"""A daemon whose softirq is held up while Linux floods it: the ring overflows, to the frame."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.lab import Daemon, LabError, Namespace, wait_for

SENT = 5000
FLOOD = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(int(sys.argv[1])):
    s.sendto(b"x" * int(sys.argv[2]), ("10.0.0.2", 9))
"""


@pytest.fixture(scope="module")
def daemon(ns: Namespace) -> Iterator[Daemon]:
    with Daemon(ns, "--mac", "02:00:00:00:00:02", offloads=False) as running:
        # Nobody has anything to say but the flood.
        neighbour = ("10.0.0.2", "lladdr", "02:00:00:00:00:02", "dev", running.tap)
        ns.output("ip", "neigh", "replace", *neighbour, "nud", "permanent")
        (link,) = json.loads(ns.output("ip", "-j", "link", "show", "dev", running.tap))
        host = ("10.0.0.1", "lladdr", link["address"], "dev", "eth0", "nud", "permanent")
        running.cli("ip", "neigh", "replace", *host)
        # The TAP's own queue holds the whole flood, however late the daemon reads it.
        ns.output("ip", "link", "set", running.tap, "txqueuelen", str(2 * SENT))
        running.cli("ethtool", "-A", "eth0", "rx", "off", "tx", "off")
        yield running


def stats(daemon: Daemon) -> dict[str, int]:
    lines = daemon.cli("ethtool", "-S", "eth0").splitlines()[1:]
    return {name.strip(): int(value) for name, value in (line.split(":") for line in lines)}


def flood(ns: Namespace, daemon: Daemon, count: int = SENT, size: int = 20) -> dict[str, int]:
    """Freeze, flood, and return what rose while nothing was polled.

    A freeze ends by itself, so on a slow machine it is renewed.
    """
    before = stats(daemon)
    freeze(daemon)
    sender = ns.python(FLOOD, str(count), str(size))
    wait_for(lambda: freeze(daemon) or sender.poll() is not None, "the flood")
    assert sender.returncode == 0
    taken = ("rx_missed_errors", "rx_packets")

    def arrived() -> bool:
        freeze(daemon)
        now = stats(daemon)
        return sum(now[name] - before[name] for name in taken) >= count

    wait_for(arrived, "the flood at the NIC")
    after = stats(daemon)
    freeze(daemon)
    return {name: after[name] - before[name] for name in after}


def freeze(daemon: Daemon) -> None:
    daemon.cli("debug", "freeze-softirq", "10s")


def thaw(daemon: Daemon) -> None:
    daemon.cli("debug", "freeze-softirq", "0")
    wait_for(lambda: not done(daemon), "the softirq")


def done(daemon: Daemon) -> list[str]:
    """Return the descriptors of frames that nobody has taken yet."""
    lines = daemon.cli("dump-ring", "eth0", "rx", "0").splitlines()
    return [line for line in lines if " DD" in line and "cleaned" not in line]


def test_a_frozen_ring_of_256_misses_4745_of_5000_and_4096_leave_905(ns: Namespace, daemon: Daemon):
    rose = flood(ns, daemon)
    assert sum(" EOP" in line for line in done(daemon)) == 255
    for name in ("rx_missed_errors", "rx_no_buffer_count", "rx_fifo_errors", "rx_queue_0_drops"):
        assert rose[name] == SENT - 255
    thaw(daemon)
    daemon.cli("ethtool", "-G", "eth0", "rx", "4096")
    assert flood(ns, daemon)["rx_missed_errors"] == SENT - 4095
    thaw(daemon)
    daemon.cli("ethtool", "-G", "eth0", "rx", "256")


def test_a_frame_of_mtu_9000_lies_in_five_descriptors(ns: Namespace, daemon: Daemon):
    ns.output("ip", "link", "set", daemon.tap, "mtu", "9000")
    daemon.cli("ip", "link", "set", "eth0", "mtu", "9000")
    flood(ns, daemon, count=1, size=9000 - 28)
    lines = done(daemon)
    assert [line.split()[2] for line in lines] == ["2048"] * 4 + ["822"]
    assert ["EOP" in line for line in lines] == [False] * 4 + [True]
    thaw(daemon)
    daemon.cli("ip", "link", "set", "eth0", "mtu", "1500")
    ns.output("ip", "link", "set", daemon.tap, "mtu", "1500")


def test_a_freeze_ends_by_itself(ns: Namespace, daemon: Daemon):
    daemon.cli("debug", "freeze-softirq", "300ms")
    started = time.monotonic()
    ns.ping("10.0.0.2")
    assert time.monotonic() - started > 0.1
    ns.ping("10.0.0.2")


def test_failing_allocations_are_counted_and_traffic_recovers(ns: Namespace, daemon: Daemon):
    before = stats(daemon)["rx_queue_0_alloc_failed"]
    daemon.cli("debug", "fail-alloc", "20")
    ns.run("ping", "-c", "40", "-i", "0.002", "-W", "1", "10.0.0.2")
    wait_for(lambda: stats(daemon)["rx_queue_0_alloc_failed"] >= before + 10, "failures")
    ns.ping("10.0.0.2", count=3)


def test_what_has_no_bounds_is_refused(daemon: Daemon):
    with pytest.raises(LabError, match="Invalid argument"):
        daemon.cli("debug", "freeze-softirq", "11s")


def test_a_route_is_printed_as_by_iproute2(ns: Namespace, daemon: Daemon):
    host = ns.output("ip", "route", "get", "10.0.0.1").splitlines()
    ours = daemon.cli("ip", "route", "get", "10.0.0.2").splitlines()
    assert ours == [line.replace("10.0.0.1", "10.0.0.2") for line in host]
    assert ours[0].startswith("local 10.0.0.2 dev lo src 10.0.0.2 ")


def test_an_interface_goes_down_and_up_and_its_rings_with_it(ns: Namespace, daemon: Daemon):
    daemon.cli("ip", "link", "set", "eth0", "down")
    assert "state DOWN" in daemon.cli("ip", "link", "show", "eth0")
    assert "10.0.0.0/24" not in daemon.cli("ip", "route")
    with pytest.raises(LabError, match="is down"):
        daemon.cli("dump-ring", "eth0", "rx", "0")
    assert ns.run("ping", "-c", "1", "-W", "1", "10.0.0.2").returncode == 1
    assert quiet(daemon)  # nobody watches a wire that nobody reads
    daemon.cli("ip", "link", "set", "dev", "eth0", "up")
    assert "10.0.0.0/24" in daemon.cli("ip", "route")
    ns.ping("10.0.0.2", count=3)
    packets = daemon.cli("cat", "/sys/class/net/eth0/statistics/rx_packets")
    assert int(packets) == int(daemon.cli("cat", "/proc/net/dev").split("eth0:")[1].split()[1])


def quiet(daemon: Daemon) -> bool:
    """Whether the daemon leaves the processor alone, in one of three half seconds at least."""
    for _ in range(3):
        before = cpu_seconds(daemon)
        time.sleep(0.5)
        if cpu_seconds(daemon) - before < 0.1:
            return True
    return False


def cpu_seconds(daemon: Daemon) -> float:
    """Return the processor time that the daemon has used."""
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100
