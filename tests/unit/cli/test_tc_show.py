"""``ustack tc``, ``show`` and ``ps`` against the daemon's own views of a real stack."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from unit.cli.fake_daemon import ViewsDaemon
from ustack.cli.tc import format_size
from ustack.config import CoreConfig, NicConfig, StackConfig
from ustack.core.backlog import netif_rx
from ustack.core.napi import napi_schedule
from ustack.core.skb import Skb
from ustack.core.steering import netif_set_xps_queue, store_rps_map
from ustack.core.transmit import dev_queue_xmit, netif_schedule
from ustack.nic.pair import wire_pair
from ustack.stack import Stack

LEAF = "bands 3 priomap 1 2 2 2 1 2 0 0 1 1 1 1 1 1 1 1"


class Daemon(ViewsDaemon):
    """A stack with lo and an eth0 of two queues behind a control socket."""

    def __init__(self, path: Path) -> None:
        config = StackConfig(
            core=CoreConfig(arena_bytes=32 << 20, nr_cpus=2),
            nic=NicConfig(queues=2, tx_ring=64, large_receive=False, rx_usecs=0),
        )
        super().__init__(Stack(config, rng=random.Random(1)), path)
        self.dev = self.stack.add_igb(wire_pair(limit=0)[0])

    def frame(self) -> Skb:
        return Skb(bytes(12) + b"\x88\xb5" + bytes(46), self.dev)


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(tmp_path / "control.sock")


@pytest.fixture
def out(daemon: Daemon, capsys: pytest.CaptureFixture[str]):
    """Run a command that must succeed and return its lines."""

    def run(*words: str) -> list[str]:
        assert daemon.run(*words) == 0
        return capsys.readouterr().out.splitlines()

    return run


def test_tc_lists_all_devices_as_iproute2_does(out):
    assert out("tc", "qdisc") == [
        "qdisc noqueue 0: dev lo root refcnt 2 ",
        "qdisc mq 0: dev eth0 root ",
        f"qdisc pfifo_fast 0: dev eth0 parent :2 {LEAF}",
        f"qdisc pfifo_fast 0: dev eth0 parent :1 {LEAF}",
    ]


def test_tc_s_shows_what_was_sent_and_what_waits(daemon: Daemon, out):
    netif_set_xps_queue(daemon.dev, 1, 0b1)
    for _ in range(50):
        dev_queue_xmit(daemon.stack.net, daemon.frame())
    nothing = [
        " Sent 0 bytes 0 pkt (dropped 0, overlimits 0 requeues 0) ",
        " backlog 0b 0p requeues 0",
    ]
    figures = [
        " Sent 2460 bytes 41 pkt (dropped 0, overlimits 0 requeues 0) ",
        " backlog 540b 9p requeues 0",
    ]
    assert out("tc", "-s", "qdisc", "show", "dev", "eth0") == [
        "qdisc mq 0: root ",
        *figures,
        f"qdisc pfifo_fast 0: parent :2 {LEAF}",
        *figures,
        f"qdisc pfifo_fast 0: parent :1 {LEAF}",
        *nothing,
    ]
    assert out("tc", "-s", "qdisc", "show", "dev", "lo") == [
        "qdisc noqueue 0: root refcnt 2 ",
        *nothing,
    ]


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        (("filter",), 255, 'Object "filter" is unknown'),
        (("qdisc", "add", "dev", "eth0"), 255, 'What is "add"?'),
        (("qdisc", "show", "dev", "eth9"), 1, 'Cannot find device "eth9"'),
    ],
)
def test_tc_refuses_in_one_line_with_iproute2s_status(daemon: Daemon, capsys, words, status, why):
    assert daemon.run("tc", *words) == status
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0b"), (1023, "1023b"), (1024, "1Kb"), (3000, "3000b"), (8200, "8Kb"), (3 << 20, "3Mb")],
)
def test_sizes_are_shortened_as_iproute2_shortens_them(size: int, text: str):
    assert format_size(size) == text


def test_show_softnet_says_what_is_on_every_queue(daemon: Daemon, out):
    net = daemon.stack.net
    skb = daemon.frame()
    skb.dev = daemon.stack.lo
    net.softnet = net.softnets[1]
    netif_rx(net, skb)
    netif_schedule(net, daemon.dev.qdisc.leaves[1])
    net.softnets[1].ksoftirqd_running = True
    net.softnets[1].ksoftirqd_wakeups = 4
    napi_schedule(daemon.dev.napi)
    assert out("show", "softnet") == [
        "cpu 0:",
        "  softirq_pending   0x08 NET_RX",
        "  poll_list         1 eth0-TxRx-0",
        "  input_pkt_queue   0",
        "  process_queue     0",
        "  output_queue      0",
        "  completion_queue  none",
        "  backlog           weight 64 idle",
        "  ksoftirqd         S wakeups 0",
        "cpu 1:",
        "  softirq_pending   0x0c NET_TX NET_RX",
        "  poll_list         1 backlog",
        "  input_pkt_queue   1",
        "  process_queue     0",
        "  output_queue      1 eth0 tx-1",
        "  completion_queue  none",
        "  backlog           weight 64 scheduled",
        "  ksoftirqd         R wakeups 4",
    ]


def test_show_rps_and_xps_list_every_queue(daemon: Daemon, out):
    netif_set_xps_queue(daemon.dev, 1, 0b1)
    store_rps_map(daemon.dev, 0, 0b11)
    for _ in range(50):
        dev_queue_xmit(daemon.stack.net, daemon.frame())
    assert out("show", "rps") == [
        "QUEUE           CPU  RPS_CPUS",
        "lo rx-0           -  0",
        "eth0 rx-0         0  3",
        "eth0 rx-1         1  0",
    ]
    assert out("show", "xps") == [
        "QUEUE           XPS_CPUS       PKTS  QLEN STATE",
        "eth0 tx-0              0          0     0 on",
        "eth0 tx-1              1         41     9 stopped",
    ]


def test_show_of_what_is_not_there_says_what_is(daemon: Daemon, capsys):
    assert daemon.run("show", "nothing") == 1
    assert (
        "no such table: nothing (there are ofo, ps, rps, rqueue, softnet, waitq, wqueue, xps)"
        in capsys.readouterr().err
    )


def test_ps_lists_the_threads_that_there_are_and_each_contexts_ksoftirqd(daemon: Daemon, out):
    daemon.stack.net.softnets[1].ksoftirqd_running = True
    lines = out("ps")
    assert lines[0] == "    TID STAT COMMAND"
    assert any(line.endswith("MainThread") and line.split()[0].isdigit() for line in lines)
    assert "      - S    [ksoftirqd/0]" in lines
    assert "      - R    [ksoftirqd/1]" in lines
