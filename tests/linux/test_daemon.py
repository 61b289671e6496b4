"""ustackd comes and goes cleanly, and says in one line what is wrong."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from kit.capture import fins, flow_of, resets, tcp_segments
from kit.lab import Daemon, Namespace, script, wait_for
from kit.segment import SYN

STACK = 0x0A000002


def failure(ns: Namespace, *arguments: str, **options: object) -> str:
    """Start ustackd so that it must fail; return the one line that it says."""
    run = ns.run(
        script("ustackd"), "--socket", str(ns.folder / "fails.sock"), *arguments, **options
    )
    assert run.returncode not in (0, None), run.stdout
    lines = (run.stdout + run.stderr).strip().splitlines()
    assert len(lines) == 1, lines
    return str(lines[0])


def test_sigterm_closes_connections_with_fin_and_leaves_nothing(ns: Namespace):
    with Daemon(ns) as daemon:
        client = ns.start("nc", "10.0.0.2", "7")
        wait_for(daemon.connections, "the connection")
        with ns.capture(daemon.tap, "tcp") as path:
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.process.wait(60) == 0
        client.wait(60)
    segments = tcp_segments(path)
    ours = next(flow_of(s) for s in segments if s.saddr == STACK)
    assert fins(segments, ours) >= 1
    assert resets(segments) == []
    assert not ns.link_exists("tap0")
    assert not daemon.socket_path.exists()


def test_sigint_does_the_same(ns: Namespace):
    with Daemon(ns) as daemon:
        daemon.process.send_signal(signal.SIGINT)
        assert daemon.process.wait(60) in (0, 130)
    assert not ns.link_exists("tap0")
    assert "Traceback" not in daemon.log()


def test_it_starts_again_at_once_after_being_killed(ns: Namespace):
    with Daemon(ns) as daemon:
        daemon.process.kill()
        daemon.process.wait()
    with Daemon(ns) as again:
        assert ns.ping("10.0.0.2")
        assert again.process.poll() is None


def test_a_busy_tap_is_one_line(ns: Namespace):
    with Daemon(ns):
        line = failure(ns, "--tap", "tap0", "--address", "10.0.0.9/24")
    assert "tap0" in line and "busy" in line.lower()


@pytest.mark.parametrize("address", ["10.0.0.256/24", "nonsense", "10.0.0.2/33", "", "::1/64"])
def test_a_bad_address_is_one_line(ns: Namespace, address: str):
    run = ns.run(script("ustackd"), "--tap", "tap0", "--address", address)
    assert run.returncode not in (0, None)
    assert "Traceback" not in run.stderr
    assert not ns.link_exists("tap0")


def test_an_address_that_another_host_answers_for_is_one_line(ns: Namespace):
    """The host's own address on the same TAP: its kernel answers the probe (RFC 5227)."""
    line = failure(ns, "--tap", "tap0", "--address", "10.0.0.1/24", "--host-address", "10.0.0.1/24")
    assert "10.0.0.1" in line
    assert not ns.link_exists("tap0")


def test_without_permission_it_is_one_line(ns: Namespace):
    drop = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--no-new-privs"]
    run = ns.run(*drop, script("ustackd"), "--tap", "tap0", "--address", "10.0.0.2/24")
    lines = (run.stdout + run.stderr).strip().splitlines()
    assert run.returncode and len(lines) == 1
    assert "ermi" in lines[0] or "root" in lines[0]


def test_two_daemons_share_a_host_and_talk_through_it(ns: Namespace):
    ns.sysctl("net.ipv4.ip_forward", 1)
    one = Daemon(ns, "--gateway", "10.0.0.1")
    two = Daemon(
        ns, "--gateway", "10.0.1.1", tap="tap1", address="10.0.1.2", host_address="10.0.1.1"
    )
    with one, two:
        for address in ("10.0.0.2", "10.0.1.2"):
            assert ns.ping(address, count=2)
        assert one.cli("ip", "addr") != two.cli("ip", "addr")


def test_an_idle_daemon_takes_no_cpu_time(ns: Namespace):
    with Daemon(ns) as daemon:
        ns.ping("10.0.0.2")
        for _ in range(3):
            time.sleep(0.5)  # what the ping has left to do
            before = cpu_ticks(daemon.process.pid)
            time.sleep(1.0)
            used = cpu_ticks(daemon.process.pid) - before
            if used <= 3:  # of 100
                break
        assert used <= 3


def cpu_ticks(pid: int) -> int:
    """Return the user and system time of a process in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 100 // os.sysconf("SC_CLK_TCK")


def test_the_views_read_like_linuxs(ns: Namespace):
    with Daemon(ns) as daemon:
        ns.ping("10.0.0.2")
        heads = {
            ("ss", "-lnt"): "State",
            ("netstat", "-s"): "Ip:",
            ("ethtool", "-S", "eth0"): "NIC statistics:",
            ("ip", "neigh"): "10.0.0.1 dev eth0 lladdr",
            ("ip", "route"): "10.0.0.0/24 dev eth0",
            ("ip", "addr"): "eth0",
        }
        for arguments, head in heads.items():
            assert head in daemon.cli(*arguments), arguments
        listeners = daemon.cli("ss", "-lnt")
        assert all(f":{port} " in listeners for port in (7, 9, 19))


def test_tcpdump_of_the_stack_sees_what_the_kernels_tcpdump_sees(ns: Namespace):
    with Daemon(ns) as daemon:
        mine = ns.folder / "mine.pcap"
        dump = ns.start(
            script("ustack"), "tcpdump", "-w", str(mine),
            env={**os.environ, "USTACK_SOCKET": str(daemon.socket_path)},
        )  # fmt: skip
        wait_for(lambda: mine.exists() and mine.stat().st_size >= 24, "ustack tcpdump")
        with ns.capture(daemon.tap, "tcp") as kernels:
            ns.run("nc", "-N", "-w", "60", "10.0.0.2", "7", input="hello\n")
            wait_for(lambda: not daemon.connections(), "the connection closed")
        dump.send_signal(signal.SIGINT)
        dump.wait(60)
        ours, theirs = tcp_segments(mine), tcp_segments(kernels)
    assert sum(bool(s.flags & SYN) for s in ours) == 2
    key = [(s.saddr, s.seq, s.ack, s.flags, s.payload) for s in theirs]
    assert sorted((s.saddr, s.seq, s.ack, s.flags, s.payload) for s in ours) == sorted(key)


def test_a_tap_that_is_deleted_ends_the_daemon_with_one_line(ns: Namespace):
    with Daemon(ns) as daemon:
        assert ns.ping("10.0.0.2")
        ns.output("ip", "link", "delete", daemon.tap)
        assert daemon.process.wait(60) == 1
        assert daemon.log().splitlines()[1:] == ["ustackd: eth0: the wire tap0 is gone"]


BLOCKED = """
import errno, subprocess, sys, threading, time
import ustack
from ustack import socket

ustack.up(tap="tap9", address="10.9.0.2/24", host_address="10.9.0.1/24")
server = socket.create_server(("10.9.0.2", 80))
threading.Timer(0.3, subprocess.run, (["ip", "link", "delete", "tap9"],)).start()
try:
    server.accept()
except OSError as error:
    print(errno.errorcode[error.errno], error.strerror)
used = []
for _ in range(3):
    began = time.process_time()
    time.sleep(0.3)
    used.append(time.process_time() - began)
print(min(used) < 0.1)
try:
    socket.create_connection(("10.9.0.1", 80), 30)
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def test_a_tap_that_is_deleted_ends_blocked_calls_and_nothing_spins(ns: Namespace):
    said = ns.run(sys.executable, "-c", BLOCKED)
    assert said.stdout.splitlines() == [
        "ENETDOWN eth0: the wire tap9 is gone", "True", "ENETDOWN",
    ], said.stderr  # fmt: skip
