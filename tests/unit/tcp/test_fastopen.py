"""The Fast Open option and the server's cookies (RFC 7413 §4.1)."""

from __future__ import annotations

import random

import pytest

from ustack.lib.addresses import INADDR_LOOPBACK
from ustack.tcp.fastopen import FastopenContext, tcp_fastopen_cookie_gen
from ustack.wire.tcp import (
    ACK,
    SYN,
    FastopenOption,
    build_header,
    fastopen_option,
    parse_segment,
    syn_options,
)


def parsed(options: bytes, flags: int = SYN) -> FastopenOption | None:
    return parse_segment(None, build_header(1, 2, 3, 0, flags, 1, options, 0), 1, 2).fastopen


@pytest.mark.linux("__tcp_fastopen_cookie_gen_cipher")
def test_a_cookie_is_the_one_that_linux_gives_with_the_same_key():
    context = FastopenContext("00000001-00000002-deadbeef-000000fe", random.Random(1))
    cookie = tcp_fastopen_cookie_gen(context, INADDR_LOOPBACK, INADDR_LOOPBACK)
    assert cookie.hex() == "ef7e101c843bee47"  # captured from a 6.18 kernel


def test_without_a_key_each_stack_has_its_own():
    contexts = [FastopenContext("0-0-0-0", random.Random(seed)) for seed in (1, 2)]
    first, second = (tcp_fastopen_cookie_gen(context, 1, 2) for context in contexts)
    assert first != second and len(first) == 8
    assert tcp_fastopen_cookie_gen(contexts[0], 3, 2) != first


@pytest.mark.rfc("7413", "4.1.1")
@pytest.mark.parametrize("exp", [False, True])
@pytest.mark.parametrize("size", [0, 4, 6, 8, 16])
def test_what_is_written_reads_back(size: int, exp: bool):
    option = FastopenOption(bytes(range(size)), exp)
    written = fastopen_option(option)
    assert len(written) % 4 == 0
    assert parsed(written) == option


@pytest.mark.linux("tcp_parse_fastopen_option")
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 18])
def test_a_cookie_of_a_length_that_no_cookie_has_is_no_option(size: int):
    assert parsed(bytes((34, 2 + size)) + bytes(size) + b"\1" * (-size % 4 + 2)) is None


def test_the_option_means_nothing_without_a_syn():
    assert parsed(fastopen_option(FastopenOption(bytes(8))), ACK) is None


@pytest.mark.linux("tcp_syn_options")
@pytest.mark.parametrize(("size", "fits"), [(0, True), (8, True), (16, True), (20, False)])
def test_the_option_comes_last_and_only_where_there_is_room(size: int, fits: bool):
    fastopen = FastopenOption(bytes(size))
    options = syn_options(1460, sack_ok=True, tstamp=(1, 2), wscale=7, fastopen=fastopen)
    without = syn_options(1460, sack_ok=True, tstamp=(1, 2), wscale=7)
    assert options == without + (fastopen_option(fastopen) if fits else b"")
