"""IP options as ip_options_compile and ip_options_echo have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.netbed import OTHER, OURS, PEER, Bed
from ustack.ipv4.options import (
    OptionError,
    inet_current_timestamp,
    ip_options_compile,
    ip_options_echo,
    ip_options_fragment,
)

NOW_MS = 0x80000000 + 1000  # the bed's clock stands at one second; not since midnight


def b(addr: int) -> bytes:
    return addr.to_bytes(4, "big")


def compiled(options: bytes, spec_dst: int = OURS) -> bytes:
    return bytes(ip_options_compile(Bed().ip, options, spec_dst).data)


def test_record_route_takes_the_address_that_was_sent_to():
    opt = ip_options_compile(Bed().ip, b"\x07\x0b\x04" + bytes(8) + b"\x00", OURS)
    assert bytes(opt.data) == b"\x07\x0b\x08" + b(OURS) + bytes(4) + b"\x00"
    assert (opt.rr, opt.ts, opt.srr, opt.router_alert) == (20, 0, 0, 0)


def test_a_full_record_route_is_left_alone():
    full = b"\x01\x07\x07\x08" + b(PEER)
    assert compiled(full) == full


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"\x44\x08\x05\x00" + bytes(4), b"\x44\x08\x09\x00" + b(NOW_MS)),
        (b"\x44\x0c\x05\x01" + bytes(8), b"\x44\x0c\x0d\x01" + b(OURS) + b(NOW_MS)),
        (
            b"\x44\x0c\x05\x03" + b(OURS) + bytes(4),
            b"\x44\x0c\x0d\x03" + b(OURS) + b(NOW_MS),
        ),
        (b"\x44\x0c\x05\x03" + b(OTHER) + bytes(4), b"\x44\x0c\x05\x03" + b(OTHER) + bytes(4)),
        (b"\x44\x08\x09\x20" + bytes(4), b"\x44\x08\x09\x30" + bytes(4)),
        (b"\x44\x0c\x0d\x03" + bytes(8), b"\x44\x0c\x0d\x03" + bytes(8)),
        (b"\x44\x08\x05\x07" + bytes(4), b"\x44\x08\x05\x07" + bytes(4)),
    ],
    ids=[
        "time only",
        "time and address",
        "prespecified, ours",
        "prespecified, another's",
        "full: overflow counted",
        "full and prespecified",
        "unknown mode",
    ],
)
def test_the_timestamp_option_is_filled_in(before, after):
    assert compiled(before) == after


def test_nothing_is_hidden_behind_the_end_of_the_list():
    assert compiled(b"\x01\x00\x83\x07") == b"\x01\x00\x00\x00"


def test_router_alert_and_unknown_options_are_accepted():
    opt = ip_options_compile(Bed().ip, b"\x94\x04\x00\x00\x88\x04\x12\x34", OURS)
    assert opt.router_alert == 20
    assert ip_options_compile(Bed().ip, b"\x94\x04\x00\x01", OURS).router_alert == 0


@pytest.mark.parametrize("kind", [131, 137])
def test_a_source_route_is_found(kind):
    assert ip_options_compile(Bed().ip, b"\x01" + bytes([kind, 7, 4, 1, 2, 3, 4]), OURS).srr == 21


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        (b"\x07", 20),
        (b"\x07\x01\x00\x00", 20),
        (b"\x01\x07\x09\x00", 21),
        (b"\x07\x02\x00\x00", 21),
        (b"\x07\x07\x03" + bytes(5), 22),
        (b"\x07\x07\x05" + bytes(5), 22),
        (b"\x07\x03\x04\x07\x03\x04\x00\x00", 23),
        (b"\x83\x02\x00\x00", 21),
        (b"\x83\x07\x03" + bytes(5), 22),
        (b"\x83\x03\x04\x89\x03\x04\x00\x00", 23),
        (b"\x44\x03\x05\x00", 21),
        (b"\x44\x08\x04\x00" + bytes(4), 22),
        (b"\x44\x08\x06\x00" + bytes(4), 22),
        (b"\x44\x08\x05\x01" + bytes(4), 22),
        (b"\x44\x08\x05\x03" + bytes(4), 22),
        (b"\x44\x08\x09\xf0" + bytes(4), 23),
        (b"\x44\x04\x05\x00\x44\x04\x05\x00", 24),
        (b"\x94\x03\x00\x00", 21),
    ],
)
def test_a_malformed_option_is_pointed_at_as_linux_does(options, pointer):
    with pytest.raises(OptionError) as caught:
        ip_options_compile(Bed().ip, options, OURS)
    assert caught.value.pointer == pointer


@given(st.binary(max_size=40))
def test_no_options_field_is_too_strange(options):
    bed = Bed()
    try:
        opt = ip_options_compile(bed.ip, options, OURS)
    except OptionError as error:
        assert 20 <= error.pointer < 20 + len(options)
    else:
        assert len(opt.data) == len(options)
        echoed = ip_options_echo(bed.ip, bytes(opt.data), OURS)
        assert echoed is None or (len(echoed) % 4 == 0 and len(echoed) <= 40)
    assert len(ip_options_fragment(options)) == len(options)
    bed.mem.close()


def test_a_reply_carries_record_route_and_timestamp_with_one_more_entry():
    bed = Bed()
    request = b"\x07\x0b\x08" + b(PEER) + bytes(4) + b"\x01" + b"\x44\x08\x05\x00" + bytes(4)
    assert ip_options_echo(bed.ip, request, OURS) == (
        b"\x07\x0b\x0c" + b(PEER) + b(OURS) + b"\x44\x08\x09\x00" + b(NOW_MS) + b"\x00"
    )


@pytest.mark.parametrize(
    ("option", "echoed"),
    [
        (b"\x07\x07\x08" + b(PEER) + b"\x00", b"\x07\x07\x08" + b(PEER) + b"\x00"),
        (b"\x07\x09\x08" + b(PEER) + bytes(3), None),
        (b"\x44\x0c\x05\x01" + bytes(8), b"\x44\x0c\x0d\x01" + b(OURS) + b(NOW_MS)),
        (b"\x44\x08\x05\x01" + bytes(4), None),
        (
            b"\x44\x0c\x05\x03" + b(OURS) + bytes(4),
            b"\x44\x0c\x0d\x03" + b(OURS) + b(NOW_MS),
        ),
        (b"\x44\x0c\x05\x03" + b(OTHER) + bytes(4), b"\x44\x0c\x05\x03" + b(OTHER) + bytes(4)),
        (b"\x44\x08\x09\x10" + bytes(4), b"\x44\x08\x09\x10" + bytes(4)),
        (b"\x44\x08\x05\x07" + bytes(4), b"\x44\x08\x05\x07" + bytes(4)),
        (b"\x94\x04\x00\x00", b""),
    ],
    ids=[
        "record route full",
        "no room for a whole address",
        "address and time",
        "no room for both",
        "prespecified, ours",
        "prespecified, another's",
        "timestamps full",
        "unknown mode",
        "router alert stays behind",
    ],
)
def test_what_a_reply_makes_of_an_option(option, echoed):
    assert ip_options_echo(Bed().ip, option, OURS) == echoed


def test_fragments_carry_what_has_the_copy_flag():
    assert ip_options_fragment(b"\x07\x03\x04\x94\x04\x00\x00\x00") == (
        b"\x01\x01\x01\x94\x04\x00\x00\x00"
    )
    assert ip_options_fragment(b"\x01\x07\x09\x00") == b"\x01\x07\x09\x00"  # malformed: as it is


def test_the_time_says_that_it_does_not_count_from_midnight():
    bed = Bed()
    bed.clock.now_us = (1 << 31) * 1000 + 5000
    assert inet_current_timestamp(bed.ip) == 0x80000005
