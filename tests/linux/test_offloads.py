"""Every MTU with every combination of offloads, switched live, against the kernel on a TAP."""

from __future__ import annotations

from itertools import product

import pytest

from kit.lab import Daemon, Namespace

ECHO_CLIENT = """
import hashlib, random, socket, sys, threading
total = int(sys.argv[1])
data = random.Random(1).randbytes(1 << 20)
sock = socket.create_connection(("10.0.0.2", 7), 60)
sock.settimeout(120)
want, have = hashlib.sha256(), hashlib.sha256()

def send():
    left = total
    while left:
        piece = data[:left]
        sock.sendall(piece)
        want.update(piece)
        left -= len(piece)
    sock.shutdown(socket.SHUT_WR)

thread = threading.Thread(target=send)
thread.start()
received = 0
while piece := sock.recv(1 << 18):
    have.update(piece)
    received += len(piece)
thread.join()
print(received, want.hexdigest() == have.hexdigest())
"""
TOTAL = 5_000_000


@pytest.fixture(scope="module")
def daemon(ns: Namespace):
    with Daemon(ns, serve="echo") as running:
        yield running


def switches() -> list[tuple[str, ...]]:
    """Return every combination of rx, tx, tso and lro that differs in effect."""
    return [
        (rx, tx, tso, lro)
        for rx, tx, tso, lro in product(("on", "off"), repeat=4)
        if (tx == "on" or tso == "off") and (rx == "on" or lro == "off")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("mtu", [1500, 9000, 65000])
@pytest.mark.parametrize(("rx", "tx", "tso", "lro"), switches())
def test_megabytes_each_way(ns: Namespace, daemon: Daemon, mtu, rx, tx, tso, lro):
    ns.output("ip", "link", "set", daemon.tap, "mtu", str(mtu))
    daemon.cli("ip", "link", "set", "eth0", "mtu", str(mtu))
    daemon.cli("ethtool", "-K", "eth0", "rx", rx, "tx", tx, "tso", tso, "lro", lro)
    shown = daemon.cli("ethtool", "-k", "eth0")
    assert f"tcp-segmentation-offload: {tso}" in shown
    assert f"large-receive-offload: {lro}" in shown
    run = ns.run("python3", "-c", ECHO_CLIENT, str(TOTAL), timeout_s=200)
    assert run.stdout.split() == [str(TOTAL), "True"], run.stderr
    figures = statistics(daemon)
    assert figures["rx_long_length_errors"] == figures["rx_queue_0_csum_err"] == 0


def statistics(daemon: Daemon) -> dict[str, int]:
    lines = daemon.cli("ethtool", "-S", "eth0").splitlines()[1:]
    return {name.strip(): int(value) for name, value in (line.split(":") for line in lines)}
