"""Several queues of the NIC and of the TAP, with Linux's own TCP sending (E-RSS, RPS, XPS)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from kit.lab import Daemon, Namespace, script, wait_for

CLIENT = Path(__file__).with_name("multi_client.py")
FLOWS = 64


@pytest.fixture(scope="module", params=[1, 2], ids=["one TAP queue", "two TAP queues"])
def daemon(ns: Namespace, request: pytest.FixtureRequest):
    options = ("--queues", "4", "--tap-queues", str(request.param), "--cpus", "4")
    with Daemon(ns, *options, serve="echo", tap=f"tap{request.param}") as running:
        running.tap_queues = request.param
        yield running


def talk(ns: Namespace, daemon: Daemon, connections: int, rounds: int) -> None:
    """Have so many connections echo so many messages, to the last acknowledgment."""
    client = ns.output(sys.executable, str(CLIENT), "10.0.0.2", str(connections), str(rounds))
    assert client == "ok\n"
    wait_for(lambda: not daemon.connections(), "every connection closed")


def received(daemon: Daemon) -> list[int]:
    """Packets by receive queue."""
    stats = daemon.cli("ethtool", "-S", "eth0")
    return [int(n) for n in re.findall(r"rx_queue_\d_packets: (\d+)", stats)]


def sent(daemon: Daemon) -> list[int]:
    """Packets by transmit queue, from its qdisc."""
    text = daemon.cli("tc", "-s", "qdisc", "show", "dev", "eth0")
    return [int(n) for n in re.findall(r"parent :\d.*\n Sent \d+ bytes (\d+) pkt", text)][::-1]


def softnet(daemon: Daemon, column: int) -> list[int]:
    """A column of softnet_stat by CPU."""
    lines = daemon.cli("cat", "/proc/net/softnet_stat").splitlines()
    return [int(line.split()[column - 1], 16) for line in lines]


def grown(before: list[int], after: list[int]) -> list[int]:
    return [b - a for a, b in zip(before, after, strict=True)]


def test_many_flows_spread_over_queues_vectors_and_cpus(ns: Namespace, daemon: Daemon):
    """64 flows: every vector has its share, on its own CPU (E-RSS)."""
    before = received(daemon), sent(daemon), softnet(daemon, 1)
    talk(ns, daemon, FLOWS, 5)
    queues, leaves, cpus = map(grown, before, (received(daemon), sent(daemon), softnet(daemon, 1)))
    assert min(queues) > 0 and max(queues) <= 6 * min(queues)
    assert min(leaves) > 0
    assert min(cpus) > 0
    for row in daemon.cli("cat", "/proc/interrupts").splitlines()[1:]:
        counts = [int(n) for n in row.split()[1:5]]
        vector = int(row[-1])
        assert counts[vector] > 0 == sum(counts) - counts[vector]


def test_one_flow_stays_on_one_queue(ns: Namespace, daemon: Daemon):
    before = received(daemon)
    talk(ns, daemon, 1, 100)
    queues = grown(before, received(daemon))
    assert sorted(queues)[-1] >= 100
    assert sum(queues) - max(queues) <= 5  # ARP goes to queue 0


def test_the_affinity_of_a_vector_moves_its_packets(ns: Namespace, daemon: Daemon):
    for vector in range(4):
        daemon.cli("sysctl", f"irq.{24 + vector}.smp_affinity=8")
    before = softnet(daemon, 1)
    talk(ns, daemon, 16, 3)
    cpus = grown(before, softnet(daemon, 1))
    assert cpus[:3] == [0, 0, 0] and cpus[3] > 0
    for vector in range(4):
        daemon.cli("sysctl", f"irq.{24 + vector}.smp_affinity={1 << vector:x}")


def test_rps_moves_packets_to_other_cpus(ns: Namespace, daemon: Daemon):
    files = [f"/sys/class/net/eth0/queues/rx-{queue}/rps_cpus" for queue in range(4)]
    for file in files:
        daemon.cli("sysctl", f"{file}=c")
    assert daemon.cli("cat", files[0]) == "c\n"
    before = softnet(daemon, 1), softnet(daemon, 10)
    talk(ns, daemon, FLOWS, 3)
    processed, woken = map(grown, before, (softnet(daemon, 1), softnet(daemon, 10)))
    for file in files:
        daemon.cli("sysctl", f"{file}=0")
    assert processed[:2] == [0, 0] and min(processed[2:]) > 0
    assert woken[:2] == [0, 0] and min(woken[2:]) > 0


def test_xps_sends_by_the_queue_of_the_cpu(ns: Namespace, daemon: Daemon):
    for queue in range(4):
        daemon.cli("sysctl", f"/sys/class/net/eth0/queues/tx-{queue}/xps_cpus=0")
    daemon.cli("sysctl", "/sys/class/net/eth0/queues/tx-2/xps_cpus=f")
    before = sent(daemon)
    talk(ns, daemon, 16, 3)
    leaves = grown(before, sent(daemon))
    daemon.cli("sysctl", "/sys/class/net/eth0/queues/tx-2/xps_cpus=0")
    assert leaves[2] > 0 == sum(leaves) - leaves[2]


def test_the_kernel_has_the_queues_that_were_asked_for(ns: Namespace, daemon: Daemon):
    """And sends by all of them: its own mq at the TAP counts by queue."""
    names = ns.output("ls", f"/sys/class/net/{daemon.tap}/queues").split()
    assert sorted(names) == sorted(
        f"{side}-{n}" for side in ("rx", "tx") for n in range(daemon.tap_queues)
    )
    if daemon.tap_queues > 1:
        ns.output("tc", "qdisc", "replace", "dev", daemon.tap, "root", "mq")
        talk(ns, daemon, FLOWS, 3)
        text = ns.output("tc", "-s", "qdisc", "show", "dev", daemon.tap)
        counts = re.findall(r"parent [\da-f]*:\d.*\n Sent \d+ bytes (\d+) pkt", text)
        assert len(counts) == 2
        assert min(map(int, counts)) > 0


def test_a_second_daemon_finds_the_tap_busy(ns: Namespace, daemon: Daemon):
    other = ns.run(
        script("ustackd"), "--tap", daemon.tap, "--address", "10.0.0.3/24",
        "--tap-queues", str(daemon.tap_queues), "--socket", str(ns.folder / "other.sock"),
    )  # fmt: skip
    assert other.returncode == 1
    assert f"TAP {daemon.tap} is busy" in other.stderr


def test_the_qdiscs_look_like_those_of_iproute2(ns: Namespace, daemon: Daemon):
    """Line for line what tc prints for a device of as many queues, but for the figures."""
    ns.output("sh", "-c", "ip link add v0 numtxqueues 4 type veth peer name v1; ip link set v0 up")
    try:
        ns.output("tc", "qdisc", "replace", "dev", "v0", "root", "handle", "1:", "mq")
        theirs = ns.output("tc", "-s", "qdisc", "show", "dev", "v0")
    finally:
        ns.output("ip", "link", "del", "v0")
    theirs = theirs.replace("mq 1:", "mq 0:").replace("parent 1:", "parent :")
    ours = daemon.cli("tc", "-s", "qdisc", "show", "dev", "eth0")
    assert re.sub(r"\d+ bytes \d+ pkt", "0 bytes 0 pkt", ours) == theirs


def test_ps_and_show_know_every_context(daemon: Daemon):
    lines = daemon.cli("ps").splitlines()
    assert [line.split()[-1] for line in lines if "ksoftirqd" in line] == [
        f"[ksoftirqd/{n}]" for n in range(4)
    ]
    assert any("MainThread" in line for line in lines)
    assert daemon.cli("show", "softnet").count("ksoftirqd         S") == 4


def test_a_killed_daemon_leaves_no_tap(ns: Namespace):
    with Daemon(ns, "--tap-queues", "3", tap="tap9", address="10.0.9.2",
                host_address="10.0.9.1") as other:  # fmt: skip
        assert ns.link_exists("tap9")
        other.process.kill()
        other.process.wait()
    assert not ns.link_exists("tap9")
