"""Addresses as text and as numbers."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ustack.lib.addresses import (
    format_ipv4,
    format_mac,
    parse_interface,
    parse_ipv4,
    parse_mac,
)


@given(st.integers(0, 2**32 - 1))
def test_an_address_reads_as_the_standard_library_writes_it(addr):
    text = str(ipaddress.IPv4Address(addr))
    assert format_ipv4(addr) == text
    assert parse_ipv4(text) == addr


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_network_and_broadcast_are_those_of_the_standard_library(addr, length):
    ours = parse_interface(f"{format_ipv4(addr)}/{length}")
    theirs = ipaddress.IPv4Interface((addr, length))
    assert ours.network == int(theirs.network.network_address)
    assert ours.broadcast == int(theirs.network.broadcast_address)


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "a.b.c.d", "١.2.3.4"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="not an IPv4 address"):
        parse_ipv4(text)


@pytest.mark.parametrize("text", ["10.0.0.1/33", "10.0.0.1/", "10.0.0.1/x", "10.0.0.1/-1"])
def test_what_is_no_prefix_is_refused(text):
    with pytest.raises(ValueError, match="not a prefix length"):
        parse_interface(text)


@given(st.binary(min_size=6, max_size=6))
def test_a_mac_reads_back(mac):
    assert parse_mac(format_mac(mac)) == mac


@pytest.mark.parametrize("text", ["", "02:00:00:00:00", "02:00:00:00:00:0g", "020000000001"])
def test_what_is_no_mac_is_refused(text):
    with pytest.raises(ValueError, match="not a MAC address"):
        parse_mac(text)
