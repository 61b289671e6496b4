"""Stacks that share a Linux bridge as hosts share a switch: they find and serve one another."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.lab import Daemon, Namespace, script

pytestmark = pytest.mark.tap

CLIENT = Path(__file__).with_name("bridge_client.py")
EACH_WAY = 5_000_000
LADDER = [56, 1472, 1473, 20_000, 65_000]

Pair = tuple[Daemon, Daemon]


@pytest.fixture(scope="module")
def switch(ns: Namespace) -> Namespace:
    """br0 with ports tap0, tap1 and tap2; the kernel has no address there."""
    ns.output("ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0")
    ns.output("ip", "link", "set", "br0", "up")
    for tap in ("tap0", "tap1", "tap2"):
        ns.output("ip", "tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr")
        ns.output("ip", "link", "set", tap, "master", "br0", "up")
    return ns


@pytest.fixture(scope="module", params=["on on", "off off", "on off"])
def pair(switch: Namespace, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """10.0.0.2 and 10.0.0.3, with the offloads of each TAP on or off."""
    one, two = (word == "on" for word in request.param.split())
    first = Daemon(switch, host_address=None, offloads=one)
    second = Daemon(switch, tap="tap1", address="10.0.0.3", host_address=None, offloads=two)
    with first, second:
        yield first, second


def mac_of(daemon: Daemon) -> str:
    match = re.search(r"eth0:.*\n +link/ether (\S+)", daemon.cli("ip", "addr"))
    assert match
    return match[1]


def ping(daemon: Daemon, address: str, *options: str) -> str:
    """Like Linux's, it waits little for the last reply: on a busy machine once more."""
    for _ in range(5):
        text = daemon.cli("ping", address, "-i", "0.01", *options)
        if " 0% packet loss" in text:
            break
    return text


def test_their_macs_are_random_and_locally_administered(pair: Pair):
    macs = [mac_of(daemon) for daemon in pair]
    kernels = [daemon.ns.output("cat", f"/sys/class/net/{daemon.tap}/address") for daemon in pair]
    assert len({*macs, *(mac.strip() for mac in kernels)}) == 4
    for mac in macs:
        assert int(mac[:2], 16) & 3 == 2, mac  # local, not a group's


@pytest.mark.parametrize("size", LADDER)
def test_they_ping_each_other(pair: Pair, size: int):
    for here, there in (pair, pair[::-1]):
        lines = ping(here, there.address, "-c", "5", "-s", str(size)).splitlines()
        head = f"PING {there.address} ({there.address}) {size}({size + 28}) bytes of data."
        assert lines[0] == head
        for seq, line in enumerate(lines[1:6], 1):
            reply = f"{size + 8} bytes from {there.address}: icmp_seq={seq} ttl=64 time="
            assert line.startswith(reply) and line.endswith(" ms"), line
        assert lines[8].startswith("5 packets transmitted, 5 received, 0% packet loss, time ")
        assert lines[9].startswith("rtt min/avg/max/mdev = ")


def test_each_learns_the_others_address(pair: Pair):
    ping(pair[0], pair[1].address, "-c", "1")
    for here, there in (pair, pair[::-1]):
        wanted = f"{there.address} dev eth0 lladdr {mac_of(there)} "
        assert wanted in here.cli("ip", "neigh")


def test_a_third_stack_is_client_of_both(pair: Pair):
    """Every byte goes from stack to stack and back: 5 MB each way and server."""
    offloads = "on" if pair[0].offloads else "off"
    servers = [daemon.address for daemon in pair]
    answer = pair[0].ns.output(
        sys.executable, str(CLIENT), "tap2", "10.0.0.4", offloads, str(EACH_WAY), *servers,
        timeout_s=280,
    )  # fmt: skip
    seen = json.loads(answer)
    assert seen["same"] == dict.fromkeys(servers, True)
    assert seen["mac"] not in [mac_of(daemon) for daemon in pair]
    for daemon in pair:
        assert f"10.0.0.4 dev eth0 lladdr {seen['mac']} " in daemon.cli("ip", "neigh")


def test_nobody_answers_for_an_address_that_is_free(pair: Pair):
    run = pair[0].ns.run(
        script("ustack"), "--socket", str(pair[0].socket_path), "ping", "10.0.0.77", "-c", "1"
    )
    assert run.returncode == 1
    lines = run.stdout.splitlines()
    assert lines[1] == "From 10.0.0.2 icmp_seq=1 Destination Host Unreachable"
    assert "0 received, +1 errors, 100% packet loss" in lines[4]


def test_a_static_neighbour_is_believed_until_it_is_deleted(pair: Pair):
    one, two = pair
    neigh = ("ip", "neigh")
    wrong = (two.address, "lladdr", "02:00:00:00:de:ad", "dev", "eth0")
    one.cli(*neigh, "replace", *wrong, "nud", "permanent")
    assert f"{two.address} dev eth0 lladdr 02:00:00:00:de:ad PERMANENT" in one.cli(*neigh)
    options = ("-c", "1", "-W", "0.3")
    lost = one.ns.run(
        script("ustack"), "--socket", str(one.socket_path), "ping", two.address, *options
    )
    assert "1 packets transmitted, 0 received, 100% packet loss" in lost.stdout
    again = one.ns.run(script("ustack"), "--socket", str(one.socket_path), *neigh, "add", *wrong)
    assert (again.returncode, again.stderr) == (2, "ustack: RTNETLINK answers: File exists\n")
    one.cli(*neigh, "del", two.address, "dev", "eth0")
    assert "PERMANENT" not in one.cli(*neigh)
    assert " 0% packet loss" in ping(one, two.address, "-c", "1")


def test_an_address_that_a_stack_on_the_bridge_has_is_refused(pair: Pair):
    run = pair[0].ns.run(
        script("ustackd"), "--tap", "tap2", "--address", f"{pair[1].address}/24",
        "--socket", str(pair[0].ns.folder / "third.sock"),
    )  # fmt: skip
    assert run.returncode
    (line,) = (run.stdout + run.stderr).strip().splitlines()
    assert f"{pair[1].address} is already in use by {mac_of(pair[1])}" in line


def interrupted_ping(pair: Pair) -> str:
    run = pair[0].ns.start(
        script("ustack"), "--socket", str(pair[0].socket_path), "ping", pair[1].address,
        "-i", "0.05", text=True,
    )  # fmt: skip
    assert run.stdout is not None
    for _ in range(4):
        run.stdout.readline()
    run.terminate()
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 0 and " packet loss" in out
    return str(out)


def test_a_ping_that_is_interrupted_says_what_it_has_seen(pair: Pair):
    """Unless one is on its way just then, nothing is lost."""
    assert any(" 0% packet loss" in interrupted_ping(pair) for _ in range(5))
