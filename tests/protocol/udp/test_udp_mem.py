"""udp_mem: what all UDP sockets may hold unread, who is refused, and what that is counted as."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kit.dgram_bed import DgramBed
from kit.netbed import TEST_CONFIG
from ustack.config import UdpConfig
from ustack.core.sysctl import sysctl_read
from ustack.udp.mem import udp_init_mem

SMALL = 768
"""What a datagram of one byte takes: five of them are less than a page, six more."""


def with_limits(low: int, pressure: int, most: int, **udp: Any) -> DgramBed:
    return DgramBed(replace(TEST_CONFIG, udp=UdpConfig((low, pressure, most), **udp)))


def holds(sock: Any) -> int:
    return len(sock._sk.receive_queue)


def fill(bed: DgramBed, count: int, port: int = 53) -> None:
    for _ in range(count):
        bed.comes(b"x", port=port)


@pytest.mark.linux("udp_init")
def test_the_limits_follow_the_size_of_the_arena_unless_they_are_set():
    assert sysctl_read(udp_init_mem(TEST_CONFIG), "net.ipv4.udp_mem") == "384\t512\t768"
    set_by_hand = replace(TEST_CONFIG, udp=UdpConfig((1, 2, 3)))
    assert sysctl_read(udp_init_mem(set_by_hand), "net.ipv4.udp_mem") == "1\t2\t3"


@pytest.mark.linux("__sk_mem_raise_allocated")
def test_below_the_first_limit_every_socket_has_what_its_buffer_holds():
    bed = with_limits(5, 5, 5)
    sock = bed.bound()
    fill(bed, 26)  # 19968 bytes: five pages
    assert (holds(sock), bed.udp.memory.allocated) == (26, 5)
    fill(bed, 1)
    assert holds(sock) == 26


@pytest.mark.linux("__udp_queue_rcv_skb")
def test_a_datagram_that_udp_mem_refuses_is_a_memory_error_not_one_of_the_buffer():
    bed = with_limits(1, 1, 1)
    sock = bed.bound()
    fill(bed, 8)
    udp = bed.net.mib.udp
    assert (holds(sock), sock._sk.drops) == (5, 3)
    assert (udp.MemErrors, udp.InErrors, udp.RcvbufErrors) == (3, 3, 0)
    assert bed.drops == {"PROTO_MEM": 3}


@pytest.mark.linux("udp_rmem_schedule")
def test_what_fits_into_a_page_that_is_paid_for_asks_nobody():
    bed = with_limits(1, 1, 1)
    sock = bed.bound()
    fill(bed, 1)
    bed.net.config = replace(bed.net.config, udp=UdpConfig((0, 0, 0)))
    fill(bed, 6)
    assert holds(sock) == 5


@pytest.mark.linux("net.ipv4.udp_rmem_min")
def test_between_first_and_third_limit_who_holds_little_is_not_refused():
    bed = with_limits(1, 1, 10, udp_rmem_min=5 * SMALL + 1)
    rich, poor = bed.bound(53), bed.bound(54)
    fill(bed, 20)
    assert holds(rich) == 10  # a second page at five: from ten on it would be the third
    fill(bed, 20, port=54)
    assert holds(poor) == 10


@pytest.mark.linux("__sk_mem_raise_allocated")
def test_beyond_the_third_limit_everybody_is_refused():
    bed = with_limits(1, 1, 2)
    first, second, third = bed.bound(53), bed.bound(54), bed.bound(55)
    for port in (53, 54, 55):
        fill(bed, 1, port=port)
    assert [holds(sock) for sock in (first, second, third)] == [1, 1, 0]


@pytest.mark.linux("udp_rmem_release")
def test_reading_and_closing_give_memory_back():
    bed = with_limits(2, 2, 2)
    one, other = bed.bound(53), bed.bound(54)
    fill(bed, 12)
    assert (holds(one), bed.udp.memory.allocated) == (10, 2)
    one.recv(1, 2)  # MSG_PEEK
    assert bed.udp.memory.allocated == 2
    for _ in range(5):
        one.recv(1)
    assert bed.udp.memory.allocated == 1
    fill(bed, 1, port=54)
    one.close()
    assert bed.udp.memory.allocated == 1
    other.close()
    assert bed.udp.memory.allocated == 0


@pytest.mark.linux("sk_has_account")
def test_raw_sockets_have_no_share_in_it():
    bed = with_limits(0, 0, 0)
    raw = bed.dgram(3, 17)
    fill(bed, 3)
    assert holds(raw) == 3
    assert bed.udp.memory.allocated == 0
