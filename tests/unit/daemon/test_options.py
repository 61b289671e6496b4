"""ustackd's command line: every mistake is one line and status 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from ustack.daemon.impair import ImpairOptions, impaired
from ustack.daemon.options import parse_options
from ustack.lib.addresses import Ipv4Interface
from ustack.lib.clock import StackClock
from ustack.nic.impair import Impairment
from ustack.nic.pair import wire_pair

GOOD = ["--tap", "tap0", "--address", "10.0.0.2/24"]


def test_the_least_that_is_needed():
    options = parse_options(GOOD)
    assert options.address == Ipv4Interface(0x0A000002, 24)
    assert options.control_path == Path("/run/ustack/tap0.sock")
    assert options.host_address is options.gateway is options.mac is None
    assert options.services == ()
    assert options.config.nic.tso and options.config.nic.mtu == 1500


def test_everything_can_be_said():
    options = parse_options(
        [*GOOD, "--host-address", "10.0.0.1/24", "--gateway", "10.0.0.1", "--serve", "echo",
         "--mac", "02:00:00:00:00:02", "--mtu", "9000", "--offloads", "off", "--socket", "/tmp/s"]
    )  # fmt: skip
    nic = options.config.nic
    assert (nic.tso, nic.rx_checksum, nic.tx_checksum, nic.large_receive) == (False,) * 4
    assert (nic.mtu, options.gateway, options.mac) == (9000, 0x0A000001, b"\2\0\0\0\0\2")
    assert options.control_path == Path("/tmp/s")


def test_queues_and_contexts_can_be_chosen():
    options = parse_options([*GOOD, "--queues", "4", "--tap-queues", "2", "--cpus", "8"])
    config = options.config
    assert (config.nic.queues, options.tap_queues, config.core.nr_cpus) == (4, 2, 8)
    assert parse_options([*GOOD, "--poll"]).config.nic.busy_poll
    plain = parse_options(GOOD)
    assert parse_options([*GOOD, "--busy-poll-us", "0"]) == plain
    assert not plain.config.nic.busy_poll
    assert (plain.config.nic.queues, plain.tap_queues, plain.config.core.nr_cpus) == (1, 1, 1)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--tap", "tap0"],
        ["--tap", "", "--address", "10.0.0.2/24"],
        ["--tap", "a/b", "--address", "10.0.0.2/24"],
        ["--tap", "x" * 16, "--address", "10.0.0.2/24"],
        ["--tap", "..", "--address", "10.0.0.2/24"],
        ["--tap", "tap0", "--address", "10.0.0.256/24"],
        ["--tap", "tap0", "--address", "nonsense"],
        ["--tap", "tap0", "--address", "10.0.0.2/33"],
        ["--tap", "tap0", "--address", "::1/64"],
        ["--tap", "tap0", "--address", ""],
        ["--tap", "tap0", "--address", "127.0.0.1/8"],
        ["--tap", "tap0", "--address", "224.0.0.1/24"],
        ["--tap", "tap0", "--address", "0.0.0.0/24"],
        ["--tap", "tap0", "--address", "10.0.0.0/24"],
        ["--tap", "tap0", "--address", "10.0.0.255/24"],
        [*GOOD, "--gateway", "10.0.1.1"],
        [*GOOD, "--gateway", "10.0.0.2"],
        [*GOOD, "--mac", "01:00:00:00:00:01"],
        [*GOOD, "--mac", "00:00:00:00:00:00"],
        [*GOOD, "--mac", "02-00-00-00-00-01"],
        [*GOOD, "--mtu", "67"],
        [*GOOD, "--queues", "9"],
        [*GOOD, "--tap-queues", "0"],
        [*GOOD, "--cpus", "many"],
        [*GOOD, "--mtu", "big"],
        [*GOOD, "--offloads", "maybe"],
        [*GOOD, "--serve", "telnet"],
        [*GOOD, "--what"],
        [*GOOD, "more"],
    ],
)
def test_a_mistake_is_one_line_on_stderr(argv: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        parse_options(argv)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("ustackd: ") and err.count("\n") == 1


def test_an_address_on_a_point_to_point_link_may_be_its_first():
    assert parse_options(["--tap", "t", "--address", "10.0.0.0/31"]).address.prefix_len == 31


def test_a_bad_wire_is_described_in_netems_words():
    text = "loss=1%,delay=10ms,jitter=500us,rate=10mbit,queue=64kb,corrupt=0.001,way=sent,seed=7"
    impair = parse_options([*GOOD, "--impair", text]).impair
    assert impair is not None
    assert impair.faults == {
        "loss": 0.01,
        "delay_us": 10_000,
        "jitter_us": 500,
        "rate_bps": 10_000_000,
        "queue_bytes": 65_536,
        "corrupt": 0.001,
        "limit_pkts": 1000,
    }
    assert (impair.sent, impair.received, impair.seed) == (True, False, 7)
    assert Impairment(**impair.faults).reorder == 0


def test_a_bad_wire_has_no_offloads():
    nic = parse_options([*GOOD, "--impair", "loss=1%"]).config.nic
    assert (nic.tso, nic.rx_checksum, nic.tx_checksum, nic.large_receive) == (False,) * 4


@pytest.mark.parametrize(
    "text",
    ["", "loss", "loss=2", "loss=101%", "loss=-1%", "delay=10m", "delay=tenms", "rate=0mbit",
     "rate=10", "colour=red", "seed=x", "way=up", "loss=1%,,", "queue=1gb", "loss=1%%"],
)  # fmt: skip
def test_a_wire_that_cannot_be_is_one_line(text: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        parse_options([*GOOD, "--impair", text])
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_each_way_has_its_own_faults_from_one_seed():
    def lost(seed: int) -> tuple[int, int]:
        near, far = wire_pair()
        options = ImpairOptions({"loss": 0.5}, seed=seed)
        wire = impaired(near, StackClock(), options)
        for _ in range(200):
            wire.send_frame(bytes(20))
            far.send_frame(bytes(20))
        came = 0
        while wire.recv_frame() is not None:
            came += 1
        return far.pending, came

    assert lost(1) == lost(1) != lost(2)
    assert lost(1)[0] != lost(1)[1]


def test_a_good_wire_is_not_wrapped():
    near, _ = wire_pair()
    assert impaired(near, StackClock(), None) is near
