"""The wire in memory: order, limit, and what each end may send."""

from __future__ import annotations

from ustack.nic.pair import wire_pair
from ustack.nic.wire import VNET_CSUM, VNET_TSO4


def test_what_one_end_sends_the_other_receives_in_order():
    a, b = wire_pair()
    assert a.send_frame(b"1") and a.send_frame(b"2") and b.send_frame(b"3")
    assert (a.pending, b.pending) == (1, 2)
    assert [b.recv_frame(), b.recv_frame(), b.recv_frame()] == [b"1", b"2", None]
    assert a.recv_frame() == b"3"


def test_a_full_wire_refuses():
    a, b = wire_pair(limit=1)
    assert a.send_frame(b"1")
    assert not a.send_frame(b"2")
    assert b.send_frame(b"the other way is free")
    b.recv_frame()
    assert a.send_frame(b"2")


def test_each_end_says_what_the_other_may_send():
    a, b = wire_pair()
    assert a.features == b.features == VNET_CSUM | VNET_TSO4
    b.set_offloads(True, False)
    assert (a.features, b.features) == (VNET_CSUM, VNET_CSUM | VNET_TSO4)
    b.set_offloads(False, True)
    assert a.features == 0


def test_a_change_of_features_is_announced():
    a, b = wire_pair()
    seen = []
    a.features_changed = lambda: seen.append(a.features)
    b.set_offloads(False, False)
    b.set_offloads(True, True)
    assert seen == [0, VNET_CSUM | VNET_TSO4]


def test_an_unplugged_end_receives_nothing_and_the_other_sends_into_the_void():
    a, b = wire_pair()
    a.send_frame(b"1")
    b.close()
    b.close()
    assert b.recv_frame() is None
    assert a.send_frame(b"2")
    assert b.pending == 0
    a.set_offloads(True, True)
