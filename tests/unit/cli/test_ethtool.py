"""``ustack ethtool``: its words, its texts, what it asks the daemon for."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from unit.cli.fake_daemon import FakeDaemon
from ustack.cli.main import main
from ustack.daemon.messages import (
    EthtoolRequest,
    EthtoolSetRequest,
    LinkRow,
    LinksRequest,
    ValueRow,
    row_messages,
)

ETH0 = LinkRow(2, "eth0", (), 1500, "mq", 1000, False, "02:00:00:00:00:01", (), {})


class Shell:
    """``ustack`` against a daemon that answers views with ``views`` in turn."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self.capsys = path, capsys
        self.views: list[dict[str, int | str | bool]] = []
        self.asked: list[msgspec.Struct] = []

    def run(self, *argv: str) -> list[str]:
        views = list(self.views)

        def answer(request):
            if isinstance(request, LinksRequest):
                return row_messages([ETH0])
            rows = views.pop(0).items() if isinstance(request, EthtoolRequest) else ()
            return row_messages([ValueRow(name, value) for name, value in rows])

        with FakeDaemon(self.path, answer) as daemon:
            main(["--socket", str(self.path), *argv])
        self.path.unlink()
        self.asked = daemon.requests
        out, err = self.capsys.readouterr()
        return (out + err).splitlines()


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path / "d.sock", capsys)


@pytest.mark.parametrize(
    ("words", "setting", "values"),
    [
        ("-G eth0 rx 512 tx 0x400", "ring", {"rx": 512, "tx": 1024}),
        ("-L eth0 combined 4", "channels", {"combined": 4}),
        ("-C eth0 rx-usecs 50", "coalesce", {"rx_usecs": 50}),
        ("-C eth0 adaptive-rx on", "coalesce", {"adaptive_rx": True}),
        ("-C eth0 tx-usecs 0", "coalesce", {"tx_usecs": 0}),
        ("-A eth0 rx off tx off", "pause", {"rx": False, "tx": False}),
        ("-A eth0 autoneg off", "pause", {"autoneg": False}),
        ("-X eth0 equal 3", "rxfh", {"equal": 3}),
        ("-X eth0 weight 6 2", "rxfh", {"weight": [6, 2]}),
        ("-X eth0 default hkey 01:02", "rxfh", {"default": True, "key": "01:02"}),
    ],
)
def test_a_change_becomes_one_request(shell: Shell, words, setting, values):
    assert shell.run("ethtool", *words.split()) == []
    assert shell.asked == [EthtoolSetRequest("eth0", setting, values)]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("-G eth0", "no parameters changed"),
        ("-G eth0 rx", "no value for parameter 'rx'"),
        ("-G eth0 rx many", "invalid value 'many' for parameter 'rx'"),
        ("-G eth0 rx -5", "invalid value"),
        ("-G eth0 rx-mini 5", "unknown parameter 'rx-mini'"),
        ("-A eth0 rx maybe", "invalid value 'maybe' for parameter 'rx'"),
        ("-C eth0 rx-frames 5", "netlink error: Operation not supported"),
        ("-C eth0 tx-frames 5", "netlink error: Operation not supported"),
        ("-C eth0 adaptive-tx on", "netlink error: Operation not supported"),
        ("-K eth0 ntuple on", "bad command line argument(s)"),
        ("-X eth0", "bad command line argument(s)"),
        ("-X eth0 equal", "bad command line argument(s)"),
        ("-g eth0 rx", "unexpected parameter 'rx'"),
    ],
)
def test_words_that_mean_nothing_are_refused_before_the_daemon_is_asked(shell: Shell, words, text):
    letter, device, *rest = words.split()
    said = shell.run("ethtool", letter, device, *(["--"] if rest else []), *rest)
    assert len(said) == 1
    assert text in said[0]
    assert shell.asked == []


ON = {"rx-checksumming": True, "tx-checksumming": True, "tcp-segmentation-offload": True}


def test_switching_off_what_another_needs_says_so(shell: Shell):
    shell.views = [ON, {**ON, "tx-checksumming": False, "tcp-segmentation-offload": False}]
    assert shell.run("ethtool", "-K", "eth0", "tx", "off") == [
        "Actual changes:",
        "tx-checksumming: off",
        "tcp-segmentation-offload: off [not requested]",
    ]
    assert shell.asked[1] == EthtoolSetRequest("eth0", "features", {"tx": False})


def test_a_switch_that_stays_is_an_error(shell: Shell):
    shell.views = [ON, ON]
    assert shell.run("ethtool", "-K", "eth0", "tcp-segmentation-offload", "off") == [
        "ustack: Could not change any device features"
    ]


def test_a_switch_that_moves_alone_says_nothing(shell: Shell):
    shell.views = [ON, {**ON, "tcp-segmentation-offload": False}]
    assert shell.run("ethtool", "-K", "eth0", "tso", "off") == []


def test_the_views_have_ethtools_layout(shell: Shell):
    shell.views = [{"max_combined": 8, "combined_count": 4}]
    assert shell.run("ethtool", "-l", "eth0") == [
        "Channel parameters for eth0:",
        "Pre-set maximums:",
        "RX:             n/a",
        "TX:             n/a",
        "Other:          n/a",
        "Combined:       8",
        "Current hardware settings:",
        "RX:             n/a",
        "TX:             n/a",
        "Other:          n/a",
        "Combined:       4",
    ]
    shell.views = [{"use_adaptive_rx": True, "rx_coalesce_usecs": 3, "tx_coalesce_usecs": 0}]
    said = shell.run("ethtool", "-c", "eth0")
    assert said[:2] == ["Coalesce parameters for eth0:", "Adaptive RX: on  TX: n/a"]
    assert said[7:12] == ["rx-usecs: 3", "rx-frames: n/a", "rx-usecs-irq: n/a",
                          "rx-frames-irq: n/a", ""]  # fmt: skip
    assert said[12] == "tx-usecs: 0"
    assert len(said) == 27
    shell.views = [{"autoneg": False, "rx_pause": True, "tx_pause": True}]
    assert shell.run("ethtool", "-a", "eth0") == [
        "Pause parameters for eth0:",
        "Autonegotiate:  off",
        "RX:             on",
        "TX:             on",
        "",
    ]
    shell.views = [{"rings": 2, "indirection": " ".join(["0"] * 8 + ["1"] * 8), "key": "aa:bb"}]
    assert shell.run("ethtool", "-x", "eth0") == [
        "RX flow hash indirection table for eth0 with 2 RX ring(s):",
        "    0:      0     0     0     0     0     0     0     0",
        "    8:      1     1     1     1     1     1     1     1",
        "RSS hash key:",
        "aa:bb",
        "RSS hash function:",
        "    toeplitz: on",
        "    xor: off",
        "    crc32: off",
    ]


@pytest.mark.parametrize("words", ["eth0 mtu 9000", "dev eth0 mtu 9000"])
def test_ip_link_set_mtu(shell: Shell, words):
    assert shell.run("ip", "link", "set", *words.split()) == []
    assert shell.asked == [LinksRequest(), EthtoolSetRequest("eth0", "mtu", {"mtu": 9000})]


@pytest.mark.parametrize(("words", "up"), [("eth0 up", True), ("dev eth0 down", False)])
def test_ip_link_set_up_and_down(shell: Shell, words, up):
    assert shell.run("ip", "link", "set", *words.split()) == []
    assert shell.asked == [LinksRequest(), EthtoolSetRequest("eth0", "link", {"up": up})]


@pytest.mark.parametrize("words", ["eth0 mtu", "eth0 mtu big", "eth0 sideways", "up"])
def test_ip_link_set_takes_nothing_else(shell: Shell, words):
    assert len(shell.run("ip", "link", "set", *words.split())) == 1
    assert shell.asked == []
