"""``ustack ss`` beside what iproute2's ss prints."""

from __future__ import annotations

import argparse

import pytest

from ustack.cli import ss
from ustack.cli.client import ClientError
from ustack.cli.ss_info import format_info
from ustack.daemon.messages import SocketRow, Timer

LISTENER = SocketRow(
    "LISTEN", 1, 128, ("0.0.0.0", 80), ("0.0.0.0", 0), extended={"synq": "3/128", "young": 1}
)
CONNECTION = SocketRow(
    "ESTAB",
    0,
    1448,
    ("10.0.0.2", 80),
    ("10.0.0.1", 40000),
    timer=Timer("on", 204_000),
    skmem={"r": 0, "rb": 131072, "t": 4096, "tb": 46080},
    info={"ts": True, "sack": True, "congestion": "reno", "wscale": [7, 10], "rto_us": 204_000,
          "rtt_us": 100, "rttvar_us": 50, "mss": 1448, "cwnd": 10, "ssthresh": None,
          "retrans": [0, 3], "bytes_acked": 0, "snd_wnd": 65535},
)  # fmt: skip


def arguments(*words: str) -> argparse.Namespace:
    """Parse ss's arguments."""
    parser = argparse.ArgumentParser()
    ss.add_arguments(parser)
    return parser.parse_args(words)


def lines(*words: str) -> list[str]:
    """Print the two sockets above."""
    return list(ss.socket_lines([LISTENER, CONNECTION], arguments(*words)))


def test_the_columns_are_those_of_ss():
    assert lines("-ant") == [
        "State  Recv-Q Send-Q Local Address:Port Peer Address:Port  Process",
        "LISTEN 1      128          0.0.0.0:80        0.0.0.0:*",
        "ESTAB  0      1448        10.0.0.2:80       10.0.0.1:40000",
    ]


def test_transports_are_chosen_by_letter_and_stand_in_front_when_there_are_several():
    assert ss.wanted_netids(arguments("-a")) == ("raw", "udp", "tcp")
    assert ss.wanted_netids(arguments("-au")) == ("udp",)
    dns = SocketRow("UNCONN", 768, 0, ("0.0.0.0", 53), ("0.0.0.0", 0), netid="udp")
    assert list(ss.socket_lines([dns], arguments("-anut")))[1].split()[:3] == [
        "udp",
        "UNCONN",
        "768",
    ]
    assert list(ss.socket_lines([dns], arguments("-anu")))[1].split()[:2] == ["UNCONN", "768"]


def test_a_listening_datagram_socket_is_an_unconnected_one():
    assert ss.wanted_states(arguments("-l"), ("udp",)) == ("LISTEN", "UNCONN")
    assert ss.wanted_states(arguments("-l")) == ("LISTEN",)


def test_every_line_has_five_words_first_that_scripts_can_split():
    for line in lines("-ant")[1:]:
        assert len(line.split()) == 5


def test_netid_and_state_are_left_out_where_there_is_only_one():
    header, listener, _ = lines("-an")
    assert header.split()[:2] == ["Netid", "State"]
    assert listener.split()[:2] == ["tcp", "LISTEN"]
    without_state = list(ss.socket_lines([LISTENER], arguments("-tn"), show_state=False))
    assert without_state == [
        "Recv-Q Send-Q Local Address:Port Peer Address:Port Process",
        "1      128          0.0.0.0:80        0.0.0.0:*",
    ]


def test_timers_and_queues_stand_in_the_last_column():
    _, listener, connection = lines("-antoe")
    assert listener.endswith(" synq:3/128 young:1")
    assert connection.endswith(" timer:(on,204ms,0)")


def test_memory_and_info_are_a_second_line_or_the_same():
    *_, connection, details = lines("-antmi")
    assert details == (
        "\t skmem:(r0,rb131072,t4096,tb46080,f0,w0,o0,bl0,d0) ts sack reno wscale:7,10 rto:204 "
        "rtt:0.1/0.05 mss:1448 cwnd:10 send 1158400000bps retrans:0/3 snd_wnd:65535"
    )
    assert lines("-antmiO")[-1] == f"{connection} {details.strip()}"


def test_the_header_can_be_left_out():
    assert len(lines("-antH")) == 2


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, ""), (-5, ""), (7, "007ms"), (204, "204ms"), (1000, "1sec"), (1500, "1.500ms"),
     (59_000, "59sec"), (12_345, "12sec"), (60_000, "1min"), (119_000, "1min59sec"),
     (7_200_000, "120min"), (660_500, "11min")],
)  # fmt: skip
def test_times_left_are_written_as_ss_does(ms: int, text: str):
    assert ss.format_expiry(ms) == text


@pytest.mark.parametrize(
    ("words", "states"),
    [
        ([], ss.DEFAULT_STATES),
        (["-l"], ("LISTEN",)),
        (["-t", "state", "syn-recv"], ("SYN-RECV",)),
        (["-a", "state", "SYN-RECV", "state", "time-wait"], ("SYN-RECV", "TIME-WAIT")),
        (["state", "bucket"], ("SYN-RECV", "TIME-WAIT")),
        (["-a"], ss.STATE_GROUPS["all"]),
    ],
)
def test_states_are_chosen_by_options_and_filter(words: list[str], states: tuple[str, ...]):
    assert ss.wanted_states(arguments(*words)) == states


def test_states_can_be_excluded():
    chosen = ss.wanted_states(arguments("exclude", "listening", "exclude", "time-wait"))
    assert "ESTAB" in chosen and "LISTEN" not in chosen and "TIME-WAIT" not in chosen


@pytest.mark.parametrize("words", [["state"], ["state", "x"], ["dst", "10.0.0.1"], ["( sport )"]])
def test_a_filter_that_we_do_not_have_is_refused(words: list[str]):
    with pytest.raises(ClientError):
        ss.wanted_states(arguments(*words))


def test_the_summary_counts_time_wait_apart():
    assert ss.summary_lines({"ESTAB": 2, "LISTEN": 2, "TIME-WAIT": 3, "orphaned": 1})[:2] == [
        "Total: 4",
        "TCP:   7 (estab 2, closed 3, orphaned 1, timewait 3)",
    ]


def test_info_without_figures_is_empty():
    assert format_info({}) == ""


def test_every_figure_stands_where_ss_prints_it():
    """The order of tcp_stats_print in iproute2."""
    info = {
        "ts": True, "sack": True, "fastopen": True, "congestion": "cubic", "wscale": (7, 10),
        "rto_us": 204_000, "backoff": 1, "rtt_us": 33, "rttvar_us": 18, "ato_us": 40_000,
        "mss": 1448, "pmtu": 1500, "cwnd": 13, "segs_in": 3, "data_segs_out": 4,
        "lastsnd_us": 108_400, "lastack_us": 7_000, "pacing_rate": 1000, "delivered": 4,
        "unacked": 2, "retrans": (1, 3), "lost": 5, "sacked": 6, "reordering": 7,
        "rcv_rtt_us": 1500, "rcv_space": 14480, "rcv_ssthresh": 64088, "notsent": 8,
        "min_rtt_us": 11, "rcv_ooopack": 9, "snd_wnd": 72704,
    }  # fmt: skip
    assert format_info(info).split(" send ")[0] == (
        "ts sack fastopen cubic wscale:7,10 rto:204 backoff:1 rtt:0.033/0.018 ato:40 mss:1448"
        " pmtu:1500 cwnd:13 segs_in:3 data_segs_out:4"
    )
    assert format_info(info).split("bps ", 1)[1] == (
        "lastsnd:108 lastack:7 pacing_rate 8000bps delivered:4 unacked:2 retrans:1/3 lost:5"
        " sacked:6 reordering:7 rcv_rtt:1.5 rcv_space:14480 rcv_ssthresh:64088 notsent:8"
        " minrtt:0.011 rcv_ooopack:9 snd_wnd:72704"
    )
