"""ustackd --poll: Linux's clients are served, and no interrupt is counted."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from kit.lab import Daemon, Namespace

CLIENT = Path(__file__).with_name("multi_client.py")


@pytest.fixture(scope="module", params=[1, 2], ids=["one queue", "two queues"])
def daemon(ns: Namespace, request: pytest.FixtureRequest):
    n = str(request.param)
    options = ("--poll", "--queues", n, "--tap-queues", n, "--cpus", n)
    with Daemon(ns, *options, serve="echo", tap=f"tap{n}") as running:
        yield running


def irqs(daemon: Daemon) -> int:
    rows = daemon.cli("cat", "/proc/interrupts").splitlines()[1:]
    return sum(int(n) for row in rows for n in re.findall(r" +(\d+)(?= )", row.split("PCI")[0]))


def test_packets_are_received_and_interrupts_stand_still(ns: Namespace, daemon: Daemon):
    ns.ping("10.0.0.2", count=5)
    assert ns.output(sys.executable, str(CLIENT), "10.0.0.2", "16", "20") == "ok\n"
    assert irqs(daemon) == 0
    polled = daemon.cli("nstat", "-az", "TcpExtBusyPollRxPackets").splitlines()[1]
    assert int(polled.split()[1]) > 16 * 20


def test_net_rx_does_not_run_for_the_nic(ns: Namespace, daemon: Daemon):
    ns.ping("10.0.0.2", count=3)
    (line,) = [x for x in daemon.cli("cat", "/proc/softirqs").splitlines() if "NET_RX" in x]
    assert all(n == "0" for n in line.split()[1:])


def test_the_tools_are_answered_beside_the_polling(daemon: Daemon):
    for _ in range(5):
        assert "driver: igb" in daemon.cli("ethtool", "-i", "eth0")


def test_a_deleted_tap_ends_it(ns: Namespace):
    with Daemon(ns, "--poll", tap="tap8", address="10.0.8.2", host_address="10.0.8.1") as other:
        ns.output("ip", "link", "del", "tap8")
        assert other.process.wait(60) == 1
