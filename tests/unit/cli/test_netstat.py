"""``ustack netstat`` beside what net-tools prints for the same counters."""

from __future__ import annotations

from ustack.cli.netstat import drop_lines, statistics_lines, tables_of
from ustack.cli.netstat_texts import TEXTS
from ustack.daemon.messages import CounterRow
from ustack.lib.counters import NetMib

IDLE = """\
Ip:
    Forwarding: 2
    0 total packets received
    0 forwarded
    0 incoming packets discarded
    0 incoming packets delivered
    0 requests sent out
Icmp:
    0 ICMP messages received
    0 input ICMP message failed
    ICMP input histogram:
    0 ICMP messages sent
    0 ICMP messages failed
    ICMP output histogram:
Tcp:
    0 active connection openings
    0 passive connection openings
    0 failed connection attempts
    0 connection resets received
    0 connections established
    0 segments received
    0 segments sent out
    0 segments retransmitted
    0 bad segments received
    0 resets sent
Udp:
    0 packets received
    0 packets to unknown port received
    0 packet receive errors
    0 packets sent
    0 receive buffer errors
    0 send buffer errors
TcpExt:
IpExt:
"""


def test_an_idle_stack_prints_the_lines_that_are_always_there():
    tables = NetMib().snapshot()
    assert "\n".join(statistics_lines(tables, tables)) + "\n" == IDLE


def test_counters_are_printed_in_net_tools_words():
    mib = NetMib()
    mib.icmp.InEchos = 3
    mib.icmp.InCsumErrors = 2
    mib.icmp.OutEchoReps = 4
    mib.tcp_ext.ListenOverflows = 5
    mib.tcp_ext.DelayedACKLost = 6
    mib.tcp_ext.TCPTimeouts = 7
    mib.ip_ext.InOctets = 8
    tables = mib.snapshot()
    text = "\n".join(statistics_lines(tables, tables))
    for expected in (
        "    InCsumErrors: 2\n    ICMP input histogram:\n        echo requests: 3",
        "    ICMP output histogram:\n        echo replies: 4",
        "    5 times the listen queue of a socket overflowed",
        "    Quick ack mode was activated 6 times",
        "    TCPTimeouts: 7",
        "    InOctets: 8",
    ):
        assert expected in text


def test_only_the_chosen_tables_are_printed():
    tables = NetMib().snapshot()
    printed = list(statistics_lines(tables, ["Udp"]))
    assert [line for line in printed if not line.startswith(" ")] == ["Udp:"]


def test_every_text_has_one_place_for_its_number():
    assert all(text.count("{}") == 1 for texts in TEXTS.values() for text in texts.values())
    assert TEXTS.keys() <= {"Ip", "Icmp", "Tcp", "Udp", "TcpExt", "IpExt"}


def test_tables_keep_the_kernels_order():
    rows = [CounterRow("Tcp", "B", 1), CounterRow("Ip", "Z", 2), CounterRow("Tcp", "A", 3)]
    assert tables_of(rows) == {"Tcp": {"B": 1, "A": 3}, "Ip": {"Z": 2}}


def test_drops_are_listed_by_their_number():
    rows = [CounterRow("", "NO_SOCKET", 2), CounterRow("", "TCP_OFOMERGE", 9)]
    assert list(drop_lines(rows)) == ["Reason       Packets", "TCP_OFOMERGE 9", "NO_SOCKET    2"]
