"""Segments parsed from hostile bytes and built for the wire (RFC 9293 §3.1, §3.2)."""

from __future__ import annotations

import struct

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ustack.lib.drop_reason import DropReason
from ustack.wire.errors import WireError
from ustack.wire.tcp import (
    SYN,
    build_header,
    parse_segment,
    pseudo_header_sum,
    sack_option,
    syn_options,
    tstamp_option,
)


@given(st.binary(max_size=120))
def test_any_bytes_are_a_segment_or_a_wire_error(data):
    try:
        seg = parse_segment(None, data, 1, 2)
    except WireError as err:
        assert err.reason is DropReason.TCP_HDR
        return
    assert 0 <= seg.end_seq < 2**32
    assert len(seg.payload) <= len(data) - 20


@given(st.binary(max_size=40))
def test_any_options_parse_like_the_ones_before_the_first_bad_one(options):
    padded = options + bytes(-len(options) % 4)
    data = build_header(1, 2, 3, 4, SYN, 5, padded[:40], 0) + b"text"
    seg = parse_segment(None, data, 1, 2)
    assert seg.payload == b"text"
    assert seg.wscale is None or seg.wscale <= 14


def test_a_syn_has_linuxs_options_in_linuxs_order():
    options = syn_options(1460, sack_ok=True, tstamp=(0x11223344, 0), wscale=7)
    kinds = [kind for kind, _ in dpkt.tcp.parse_opts(options)]
    assert kinds == [2, 4, 8, 1, 3]  # mss, sackOK, TS, nop, wscale
    assert len(options) == 20
    data = build_header(1, 2, 3, 0, SYN, 64240, options, 0)
    seg = parse_segment(None, data, 1, 2)
    assert (seg.mss, seg.sack_ok, seg.tsval, seg.wscale) == (1460, True, 0x11223344, 7)
    assert seg.end_seq == 4


@pytest.mark.parametrize(
    ("sack_ok", "tstamp", "wscale"),
    [
        (False, None, None),
        (True, None, None),
        (False, (1, 2), None),
        (False, None, 3),
        (True, None, 3),
        (True, (1, 2), None),
        (False, (1, 2), 3),
    ],
)
def test_every_choice_of_syn_options_is_padded_to_words(sack_ok, tstamp, wscale):
    options = syn_options(536, sack_ok=sack_ok, tstamp=tstamp, wscale=wscale)
    assert len(options) % 4 == 0
    seg = parse_segment(None, build_header(1, 2, 3, 0, SYN, 1, options, 0), 1, 2)
    assert seg.sack_ok == sack_ok
    assert (seg.tsval is not None) == (tstamp is not None)
    assert seg.wscale == wscale


def test_options_of_a_syn_mean_nothing_on_other_segments():
    options = syn_options(9000, sack_ok=True, tstamp=None, wscale=9)
    seg = parse_segment(None, build_header(1, 2, 3, 4, 0x10, 1, options, 0), 1, 2)
    assert (seg.mss, seg.sack_ok, seg.wscale) == (None, False, None)


def test_sack_blocks_and_timestamps_read_back():
    options = tstamp_option(7, 8) + sack_option([(100, 200), (300, 400)])
    assert len(options) % 4 == 0
    seg = parse_segment(None, build_header(1, 2, 3, 4, 0x10, 1, options, 0), 1, 2)
    assert (seg.tsval, seg.tsecr, seg.sacks) == (7, 8, ((100, 200), (300, 400)))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(20, 65535))
def test_the_pseudo_header_sum_is_dpkts(saddr, daddr, length):
    pseudo = struct.pack(">IIBBH", saddr, daddr, 0, 6, length)
    total = sum(struct.unpack(">6H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert pseudo_header_sum(saddr, daddr, length) == total
