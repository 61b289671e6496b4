"""Limited transmit: the first two duplicates each send something new (RFC 3042)."""

from __future__ import annotations

import pytest

from kit.flight import Flight
from ustack.tcp.cong.ops import TCP_CA_DISORDER, TCP_CA_OPEN


@pytest.fixture(params=[False, True], ids=["reno", "sack"])
def f(server, request) -> Flight:
    one = Flight(server, sack=request.param)
    one.write(6)
    assert one.segs() == []
    return one


def arrived(f: Flight, count: int) -> None:
    """The peer has ``count`` segments behind the hole.

    It says so two milliseconds later: sooner the new one would wait for what comes after it.
    """
    f.wait(2000)
    if f.tp.sack_ok:
        f.ack(0, (1, 1 + count))
    else:
        f.dup()


@pytest.mark.rfc("3042", "2")
def test_each_of_two_duplicates_sends_a_new_segment(f):
    arrived(f, 1)
    assert f.segs() == [10]
    arrived(f, 2)
    assert f.segs() == [11]


@pytest.mark.rfc("3042", "2")
def test_cwnd_does_not_change(f):
    arrived(f, 1)
    arrived(f, 2)
    assert f.tp.snd_cwnd == 10
    assert f.tp.ca_state == TCP_CA_DISORDER


@pytest.mark.rfc("3042", "2")
def test_the_third_repeats_instead(f):
    for count in (1, 2):
        arrived(f, count)
    f.segs()
    arrived(f, 3)
    assert f.segs() == [0]


def test_no_more_than_the_peers_window_allows(server):
    f = Flight(server, 5, win=40)
    f.peer.send(". 1:1(0) ack 1 win 40")
    f.write(10)
    assert f.out() == []
    f.peer.send(". 1:1(0) ack 1 win 40 <nop,nop,sack 1001:2001>")
    assert f.out() == []


def test_without_new_data_nothing_is_sent(server):
    f = Flight(server, sack=False)
    f.dup(2)
    assert f.segs() == []


def test_two_segments_in_one_sack_send_two(server):
    f = Flight(server)
    f.write(6)
    f.ack(0, (1, 3))
    assert f.segs() == [10, 11]


def test_the_hole_filled_everything_is_as_before(f):
    arrived(f, 1)
    f.ack(10)
    assert f.tp.ca_state == TCP_CA_OPEN
    assert f.mib.RetransSegs == 0


def test_in_flight_never_exceeds_cwnd_and_two(f):
    for count in (1, 2):
        arrived(f, count)
    assert f.tp.packets_out == 12
