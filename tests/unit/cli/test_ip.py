"""``ustack ip`` and ``ustack ethtool`` beside iproute2 and ethtool."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from unit.cli.fake_daemon import FakeDaemon
from ustack.cli.client import ClientError
from ustack.cli.ip import format_neighbour, format_route, parse_change, parse_words
from ustack.cli.main import main
from ustack.daemon.messages import (
    AddressRow,
    AnyRequest,
    EthtoolRequest,
    Failure,
    LinkRow,
    LinksRequest,
    NeighbourChange,
    NeighbourRow,
    NeighboursRequest,
    RouteRow,
    RoutesRequest,
    TcpMetricsRequest,
    TcpMetricsRow,
    ValueRow,
    encode,
    row_messages,
)

LO = LinkRow(
    1, "lo", ("LOOPBACK", "UP", "LOWER_UP"), 65536, "noqueue", 1000, True, "00:00:00:00:00:00",
    (AddressRow("127.0.0.1", 8, "", "host"),), {"rx_bytes": 1234, "rx_packets": 5},
)  # fmt: skip
ETH0 = LinkRow(
    2, "eth0", ("BROADCAST", "MULTICAST"), 1500, "pfifo_fast", 1000, False, "02:00:00:00:00:01",
    (AddressRow("10.0.0.2", 24, "10.0.0.255"),), {"tx_bytes": 12_345_678_901, "tx_packets": 7},
)  # fmt: skip
NEIGHBOURS = [
    NeighbourRow("10.0.0.1", "eth0", "02:00:00:00:00:02", "REACHABLE"),
    NeighbourRow("10.0.0.9", "eth0", "", "INCOMPLETE"),
    NeighbourRow("127.0.0.1", "lo", "00:00:00:00:00:00", "NOARP"),
]
ROUTES = [
    RouteRow("unicast", "default", "eth0", gateway="10.0.0.1"),
    RouteRow("unicast", "10.0.0.0/24", "eth0", source="10.0.0.2", scope="link", protocol="kernel"),
    RouteRow("local", "127.0.0.0/8", "lo", source="127.0.0.1", scope="host", protocol="kernel"),
]
METRICS = [
    TcpMetricsRow(
        "10.0.0.1", "10.0.0.2", 104_000, cwnd=15, rtt_us=48, rttvar_us=24, fo_mss=1460,
        fo_syn_drops=2, fo_syn_drop_age_us=1_500_000, fo_cookie="10614031b24fb12f",
    ),
    TcpMetricsRow("10.0.0.3", "10.0.0.2", 3_000_000, ssthresh=20, reordering=9),
]  # fmt: skip
ANSWERS = {
    LinksRequest: [LO, ETH0],
    NeighboursRequest: NEIGHBOURS,
    RoutesRequest: ROUTES,
    TcpMetricsRequest: METRICS,
}


@pytest.fixture
def ustack(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Run ``ustack`` against the rows above and return what it prints."""
    path = tmp_path / "d.sock"

    def run(*argv: str, answers: dict[type, list] = ANSWERS, status: int | None = None) -> str:
        with FakeDaemon(path, answers):
            ended = main(["--socket", str(path), *argv])
        path.unlink()
        out, err = capsys.readouterr()
        assert ended == (bool(err) if status is None else status)
        return out + err

    return run


def test_tcp_metrics_are_lines_of_ip_tcp_metrics(ustack):
    """As iproute2 6.x prints them."""
    lines = [
        "10.0.0.1 age 0.104sec cwnd 15 rtt 48us rttvar 24us fo_mss 1460 fo_syn_drops 2/1.500sec ago"
        " fo_cookie 10614031b24fb12f source 10.0.0.2",
        "10.0.0.3 age 3.000sec ssthresh 20 reordering 9 source 10.0.0.2",
    ]
    assert ustack("ip", "tcp_metrics").splitlines() == lines
    assert ustack("ip", "tcpmetrics", "show", "address", "10.0.0.3").splitlines() == lines[1:]


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ("show 10.0.0.7", 2, "RTNETLINK answers: No such process"),
        ("list address 10.0.0.7", 2, "RTNETLINK answers: No such process"),
        ("delete", 255, 'Error: argument "address" is required'),
        ("del all", 1, 'Error: a specific IP address is expected rather than "all"'),
        ("show 10.0.0", 1, 'Error: any valid prefix is expected rather than "10.0.0".'),
        ("get 10.0.0.1", 255, 'Command "get" is unknown, try "ip tcp_metrics help".'),
        ("10.0.0.1", 255, 'Command "10.0.0.1" is unknown, try "ip tcp_metrics help".'),
    ],
)
def test_tcp_metrics_refuse_in_the_words_and_with_the_status_of_iproute2(
    ustack, words: str, status: int, text: str
):
    """Each as iproute2 6.1 answered the same words."""
    assert ustack("ip", "tcp_metrics", *words.split(), status=status) == f"ustack: {text}\n"


def test_neighbours_are_lines_of_ip_neigh(ustack):
    assert ustack("ip", "neigh").splitlines() == [
        "10.0.0.1 dev eth0 lladdr 02:00:00:00:00:02 REACHABLE ",
        "10.0.0.9 dev eth0 INCOMPLETE ",
    ]
    assert ustack("ip", "n", "show", "dev", "lo") == ""


def test_details_of_a_link_stand_behind_its_address(ustack):
    link = LinkRow(
        2, "eth0", ("UP",), 1500, "pfifo_fast", 1000, False, "02:00:00:00:00:01", (), {},
        {"promiscuity": 0, "allmulti": 0, "minmtu": 68, "numtxqueues": 8},
    )  # fmt: skip
    assert ustack("ip", "-d", "link", answers={LinksRequest: [link]}).splitlines()[1] == (
        "    link/ether 02:00:00:00:00:01 brd ff:ff:ff:ff:ff:ff "
        "promiscuity 0  allmulti 0 minmtu 68 numtxqueues 8 "
    )
    assert "minmtu" not in ustack("ip", "link", answers={LinksRequest: [link]})


def test_routes_are_lines_of_ip_route(ustack):
    assert ustack("ip", "route").splitlines() == [
        "default via 10.0.0.1 dev eth0 ",
        "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.2 ",
        "local 127.0.0.0/8 dev lo proto kernel scope host src 127.0.0.1 ",
    ]


def test_addresses_are_the_blocks_of_ip_addr(ustack):
    assert ustack("ip", "addr").splitlines() == [
        "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN group default qlen "
        "1000",
        "    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00",
        "    inet 127.0.0.1/8 scope host lo",
        "       valid_lft forever preferred_lft forever",
        "2: eth0: <BROADCAST,MULTICAST> mtu 1500 qdisc pfifo_fast state DOWN group default qlen "
        "1000",
        "    link/ether 02:00:00:00:00:01 brd ff:ff:ff:ff:ff:ff",
        "    inet 10.0.0.2/24 brd 10.0.0.255 scope global eth0",
        "       valid_lft forever preferred_lft forever",
    ]


def test_link_statistics_stand_below_their_titles(ustack):
    assert ustack("ip", "-s", "link", "show", "lo").splitlines()[2:] == [
        "    RX:  bytes packets errors dropped  missed   mcast ",
        "          1234       5      0       0       0       0 ",
        "    TX:  bytes packets errors dropped carrier collsns ",
        "             0       0      0       0       0       0 ",
    ]
    wide = ustack("ip", "-s", "link", "show", "dev", "eth0").splitlines()[4:]
    assert wide == [
        "    TX:   bytes packets errors dropped carrier collsns ",
        "    12345678901       7      0       0       0       0 ",
    ]


@pytest.mark.parametrize(
    ("argv", "status", "says"),
    [
        (["ip", "rule"], 1, 'Object "rule" is unknown'),
        (["ip", "addr", "show", "eth9"], 1, 'Device "eth9" does not exist'),
        (["ip", "neigh", "show", "dev", "eth9"], 1, 'Cannot find device "eth9"'),
        (["ip", "route", "show", "dev", "eth9"], 1, 'Cannot find device "eth9"'),
        (["ip", "link", "set", "eth9", "up"], 1, 'Cannot find device "eth9"'),
        (["ip", "link", "set", "eth0", "mtu", "big"], 255, 'Invalid "mtu" value'),
        (["ip", "neigh", "add"], 255, "Device and destination are required"),
        (["ip", "route", "add", "default"], 255, '"add" is not supported'),
        (["ip", "neigh", "table", "local"], 255, '"table" is not supported'),
        (["netstat"], 1, "use -s or --drops"),
    ],
)
def test_what_is_not_there_is_one_line(ustack, argv: list[str], status: int, says: str):
    """``ip`` ends as iproute2 does: 255 for words that it does not understand."""
    printed = ustack(*argv, status=status)
    assert says in printed and printed.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "name", "selection"),
    [
        (["show", "table", "local"], "route", {"table": "local"}),
        (["list", "dev", "eth0"], "neighbour", {"dev": "eth0"}),
        (["s", "lo"], "address", {"dev": "lo"}),
        ([], "link", {}),
    ],
)
def test_words_are_read_as_iproute2_does(words: list[str], name: str, selection: dict[str, str]):
    assert parse_words(words, name) == selection


def test_single_lines_can_be_made_by_themselves():
    assert format_neighbour(NEIGHBOURS[1]).split() == ["10.0.0.9", "dev", "eth0", "INCOMPLETE"]
    assert format_route(ROUTES[0]).startswith("default via 10.0.0.1")


def test_ethtool_prints_its_layouts(ustack):
    def ethtool(option: str, *rows: ValueRow) -> list[str]:
        return ustack("ethtool", option, "eth0", answers={EthtoolRequest: list(rows)}).splitlines()

    assert ethtool("-S", ValueRow("rx_packets", 5)) == ["NIC statistics:", "     rx_packets: 5"]
    assert ethtool("-S") == ["no stats available"]
    assert ethtool("-i", ValueRow("driver", "igb"), ValueRow("version", "1"))[:3] == [
        "driver: igb", "version: 1", "firmware-version: ",
    ]  # fmt: skip
    assert ethtool("-k", ValueRow("rx-checksumming", True), ValueRow("x", False)) == [
        "Features for eth0:", "rx-checksumming: on", "x: off",
    ]  # fmt: skip
    assert ethtool("-g", ValueRow("rx_max_pending", 4096), ValueRow("rx_pending", 256)) == [
        "Ring parameters for eth0:",
        "Pre-set maximums:",
        "RX:             4096",
        "RX Mini:        n/a",
        "RX Jumbo:       n/a",
        "TX:             n/a",
        "Current hardware settings:",
        "RX:             256",
        "RX Mini:        n/a",
        "RX Jumbo:       n/a",
        "TX:             n/a",
    ]


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("add 10.0.0.7 lladdr 02:00:00:00:00:07 dev eth0 nud permanent",
         NeighbourChange("add", "10.0.0.7", "eth0", "02:00:00:00:00:07")),
        ("a to 10.0.0.7 dev eth0 lladdr 02:00:00:00:00:07",
         NeighbourChange("add", "10.0.0.7", "eth0", "02:00:00:00:00:07")),
        ("replace 10.0.0.7 lladdr 02:00:00:00:00:07 dev eth0",
         NeighbourChange("replace", "10.0.0.7", "eth0", "02:00:00:00:00:07")),
        ("del 10.0.0.7 dev eth0", NeighbourChange("del", "10.0.0.7", "eth0")),
        ("show", None), ("", None), ("dev eth0", None),
    ],
)  # fmt: skip
def test_changes_of_a_neighbour_in_iproute2s_words(words: str, change: NeighbourChange | None):
    assert parse_change(words.split()) == change


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("add 10.0.0.7 lladdr", "not complete"),
        ("add 10.0.0.7 lladdr 02:00:00:00:00:07", "required"),
        ("del dev eth0", "required"),
        ("add 10.0.0.7 dev eth0", "lladdr"),
        ("add 10.0.0.7 dev eth0 lladdr nonsense", "nonsense"),
        ("add 10.0.0.777 dev eth0 lladdr 02:00:00:00:00:07", "10.0.0.777"),
        ("add 10.0.0.7 10.0.0.8 dev eth0", "duplicate"),
        ("add 10.0.0.7 dev eth0 lladdr 02:00:00:00:00:07 nud stale", "stale"),
    ],
)
def test_changes_that_make_no_sense(words: str, why: str):
    with pytest.raises(ClientError, match=why):
        parse_change(words.split())


@pytest.mark.parametrize("verb", ["delete", "flush"])
def test_metrics_of_a_peer_that_is_not_known_cannot_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
):
    path = tmp_path / "f.sock"
    with FakeDaemon(path, lambda r: [encode(Failure("No such process"))]):
        assert main(["--socket", str(path), "ip", "tcp_metrics", verb, "10.0.0.7"]) == 2
    assert capsys.readouterr().err == "ustack: RTNETLINK answers: No such process\n"


def test_a_change_prints_nothing_and_a_refusal_speaks_as_rtnetlink(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ustack
):
    words = ["ip", "neigh", "add", "10.0.0.7", "lladdr", "02:00:00:00:00:07", "dev", "eth0"]
    assert ustack(*words, answers={LinksRequest: [ETH0], NeighbourChange: []}) == ""
    path = tmp_path / "e.sock"

    def refuse(request: AnyRequest) -> Iterable[bytes]:
        links = isinstance(request, LinksRequest)
        return row_messages([ETH0]) if links else [encode(Failure("File exists"))]

    with FakeDaemon(path, refuse):
        assert main(["--socket", str(path), *words]) == 2
    assert capsys.readouterr().err == "ustack: RTNETLINK answers: File exists\n"
