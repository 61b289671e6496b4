"""The packet-script language means what it says."""

from __future__ import annotations

import dpkt
import pytest
from hypothesis import given

from kit.checkers import check
from kit.segment import (
    Segment,
    build_ip,
    format_segment,
    parse_ip,
    parse_options_text,
    parse_script,
    pattern,
)
from kit.strategies import segments


def test_a_line_is_read_into_its_fields():
    said = parse_script("S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,TS val 7 ecr *,nop,wscale 7>")
    assert (said.flags, said.seq, said.length, said.ack, said.win) == (18, 0, 0, 1, 65535)
    assert said.options == (
        ("mss", (1460,)), ("sackOK", ()), ("TS", (7, None)), ("nop", ()), ("wscale", (7,)),
    )  # fmt: skip


@pytest.mark.parametrize(
    "line", ["", "S", "S 0:1(0)", "Z 0:0(0)", "S 0:0(0) win x", "S 0:0(0) <mss 1"]
)
def test_a_line_that_is_wrong_is_refused(line):
    with pytest.raises(ValueError):
        parse_script(line)


def test_sack_blocks_are_pairs_of_edges():
    assert parse_options_text("nop,nop,sack 1:2 5:9")[2] == ("sack", (1, 2, 5, 9))


@given(segments())
def test_what_is_built_is_read_back(seg):
    back = parse_ip(build_ip(seg))
    assert back.checksum_ok
    fields = ("seq", "ack", "flags", "window", "payload", "urgent", "sport", "dport")
    assert [getattr(back, f) for f in fields] == [getattr(seg, f) for f in fields]


def test_dpkt_reads_the_same_and_finds_both_checksums_right():
    seg = Segment(0x0A000001, 0x0A000002, 1000, 80, 5, 9, 0x18, 512, b"abc")
    frame = bytes(12) + b"\x08\x00" + build_ip(seg)
    check(frame).ip(src="10.0.0.1", dst="10.0.0.2", ttl=64).tcp().flags("PA").seq(5).ack(9).data(
        b"abc"
    )
    assert isinstance(dpkt.ethernet.Ethernet(frame).data.data, dpkt.tcp.TCP)


def test_a_wrong_checksum_is_found():
    seg = Segment(0x0A000001, 0x0A000002, 1000, 80, 5, 9, 0x10, 512, b"abc", checksum_ok=False)
    assert not parse_ip(build_ip(seg)).checksum_ok
    with pytest.raises(AssertionError, match="sum over TCP"):
        check(bytes(12) + b"\x08\x00" + build_ip(seg)).ip().tcp()


def test_a_segment_is_written_as_a_line():
    seg = Segment(1, 2, 3, 4, 101, 201, 0x18, 512, b"hello", options=(("TS", (1, 2)),))
    assert format_segment(seg, 100, 200) == "P. 1:6(5) ack 1 win 512 <TS val 1 ecr 2>"


def test_the_pattern_is_one_stream_however_it_is_cut():
    assert pattern(0, 1000) == pattern(0, 300) + pattern(300, 1) + pattern(301, 699)
