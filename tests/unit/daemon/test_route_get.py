"""``ustack ip route get`` from a real stack's tables to iproute2's lines."""

from __future__ import annotations

import random

import pytest

from ustack.cli.client import ClientError
from ustack.cli.route_get import format_get, parse_get
from ustack.daemon.views import route_get_row
from ustack.ipv4.route import ip_rt_update_pmtu
from ustack.lib.addresses import parse_ipv4
from ustack.stack import Stack


def get(stack: Stack, text: str) -> list[str]:
    request = parse_get(text.split())
    saddr = parse_ipv4(request.source) if request.source else 0
    row = route_get_row(stack, parse_ipv4(request.address), saddr)
    return format_get(row, from_address=request.source)


@pytest.mark.parametrize(
    ("words", "line", "cache"),
    [
        ("10.0.0.2", "local 10.0.0.2 dev lo src 10.0.0.2 ", "<local> "),
        ("127.0.0.1", "local 127.0.0.1 dev lo src 127.0.0.1 ", "<local> "),
        ("127.9.9.9", "local 127.9.9.9 dev lo src 127.0.0.1 ", "<local> "),
        ("10.0.0.9", "10.0.0.9 dev eth0 src 10.0.0.2 ", ""),
        ("to 8.8.8.8", "8.8.8.8 via 10.0.0.1 dev eth0 src 10.0.0.2 ", ""),
        ("8.8.8.8 from 10.0.0.2", "8.8.8.8 from 10.0.0.2 via 10.0.0.1 dev eth0 ", ""),
        ("10.0.0.255", "broadcast 10.0.0.255 dev eth0 src 10.0.0.2 ", "<local,brd> "),
    ],
)
def test_it_prints_what_iproute2_prints(stack: Stack, words: str, line: str, cache: str):
    """Lines of ip 6.1 on Linux 6.18 with the same addresses."""
    first, second = get(stack, words)
    assert first.startswith(line + "uid ")
    assert second == "    cache " + cache


def test_a_learnt_path_mtu_is_shown_with_its_time(stack: Stack):
    ip_rt_update_pmtu(stack.ip, parse_ipv4("8.8.8.8"), 1400)
    stack.clock.now_us += 100_000_000
    assert get(stack, "8.8.8.8")[1] == "    cache expires 500sec mtu 1400 "


def test_looking_changes_no_counter_and_no_cache(stack: Stack):
    with pytest.raises(OSError, match="unreachable"):
        route_get_row(Stack(rng=random.Random(1)), parse_ipv4("8.8.8.8"), 0)
    before = stack.net.mib.snapshot()
    get(stack, "8.8.8.8")
    assert stack.net.mib.snapshot() == before
    assert not stack.ip.routes_out


def test_somebody_elses_source_is_refused(stack: Stack):
    with pytest.raises(OSError, match="Invalid argument"):
        route_get_row(stack, parse_ipv4("8.8.8.8"), parse_ipv4("10.0.0.77"))


@pytest.mark.parametrize("words", ["", "8.8.8.x", "8.8.8.8 9.9.9.9", "8.8.8.8 from", "8.8.8.8 oif"])
def test_other_words_are_refused(words: str):
    with pytest.raises(ClientError):
        parse_get(words.split())
