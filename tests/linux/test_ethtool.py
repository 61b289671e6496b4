"""``ustack ethtool`` changes a running interface, and traffic goes on."""

from __future__ import annotations

import pytest

from kit.lab import Daemon, LabError, Namespace


@pytest.fixture(scope="module")
def daemon(ns: Namespace):
    with Daemon(ns, serve="echo") as running:
        yield running


@pytest.mark.parametrize(
    ("change", "show", "line"),
    [
        (("-G", "eth0", "rx", "512", "tx", "1024"), ("-g", "eth0"), "TX:             1024"),
        (("-L", "eth0", "combined", "4"), ("-l", "eth0"), "Combined:       4"),
        (("-X", "eth0", "equal", "2"), ("-x", "eth0"), "    0:      0     1     0     1"),
        (("-X", "eth0", "weight", "1", "0", "0", "3"), ("-x", "eth0"), "   32:      3     3"),
        (("-C", "eth0", "rx-usecs", "50"), ("-c", "eth0"), "rx-usecs: 50"),
        (("-C", "eth0", "adaptive-rx", "on"), ("-c", "eth0"), "Adaptive RX: on"),
        (("-A", "eth0", "rx", "off", "tx", "off"), ("-a", "eth0"), "RX:             off"),
        (("-K", "eth0", "tso", "off"), ("-k", "eth0"), "tcp-segmentation-offload: off"),
        (("-K", "eth0", "lro", "off"), ("-k", "eth0"), "large-receive-offload: off"),
        (("-L", "eth0", "combined", "1"), ("-l", "eth0"), "Combined:       1"),
    ],
)
def test_a_change_is_shown_and_traffic_goes_on(ns: Namespace, daemon: Daemon, change, show, line):
    ns.ping("10.0.0.2", count=3)
    daemon.cli("ethtool", *change)
    assert line in daemon.cli("ethtool", *show)
    ns.ping("10.0.0.2", count=3)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("-G", "eth0", "rx", "5000"), "Invalid argument"),
        (("-L", "eth0", "combined", "9"), "Invalid argument"),
        (("-C", "eth0", "rx-usecs", "5"), "Invalid argument"),
        (("-C", "eth0", "rx-frames", "5"), "Operation not supported"),
        (("-C", "eth0", "tx-frames", "5"), "Operation not supported"),
        (("-C", "eth0", "tx-usecs", "50"), "Invalid argument"),
        (("-G", "lo", "rx", "512"), "Operation not supported"),
        (("-G", "eth9", "rx", "512"), "no device matches name"),
        (("-G", "eth0", "rx"), "no value for parameter 'rx'"),
        (("-K", "eth0", "ntuple", "on"), "bad command line argument"),
    ],
)
def test_a_refusal_is_one_line(daemon: Daemon, change, why):
    with pytest.raises(LabError, match=why):
        daemon.cli("ethtool", *change)
