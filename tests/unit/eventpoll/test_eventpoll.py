"""The eventpoll apart from sockets: who is told what, in which order, how often."""

from __future__ import annotations

import errno
import select

import pytest

from ustack.eventpoll.eventpoll import EventPoll
from ustack.sock.wait import (
    EPOLLERR,
    EPOLLET,
    EPOLLEXCLUSIVE,
    EPOLLHUP,
    EPOLLIN,
    EPOLLONESHOT,
    EPOLLOUT,
    EPOLLRDHUP,
    WaitEntry,
    WaitQueue,
)


class Target:
    """A pollable whose events the test sets; it counts how often it is asked."""

    def __init__(self, events: int = 0) -> None:
        self.wq = WaitQueue()
        self.on_release = []
        self.events = events
        self.polls = 0

    def poll(self) -> int:
        self.polls += 1
        return self.events

    def come_true(self, events: int) -> None:
        self.events |= events
        self.wq.wake_up(events)


@pytest.fixture
def ep() -> EventPoll:
    return EventPoll()


def test_a_target_that_is_ready_when_added_is_reported_at_once(ep):
    ep.add("a", Target(EPOLLIN), EPOLLIN)
    assert ep.collect(10) == [("a", EPOLLIN)]


def test_level_triggered_events_are_reported_until_they_are_over(ep):
    target = Target()
    ep.add("a", target, EPOLLIN)
    assert ep.collect(10) == []
    target.come_true(EPOLLIN)
    assert [ep.collect(10) for _ in range(3)] == [[("a", EPOLLIN)]] * 3
    target.events = 0
    assert ep.collect(10) == []
    assert not ep.rdllist


def test_edge_triggered_events_are_reported_once_per_wake_up(ep):
    target = Target()
    ep.add("a", target, EPOLLIN | EPOLLET)
    target.come_true(EPOLLIN)
    assert ep.collect(10) == [("a", EPOLLIN)]
    assert ep.collect(10) == []
    target.come_true(EPOLLIN)
    target.come_true(EPOLLIN)
    assert ep.collect(10) == [("a", EPOLLIN)]
    assert ep.collect(10) == []


def test_one_shot_is_silent_until_modified_even_about_errors(ep):
    target = Target()
    ep.add("a", target, EPOLLIN | EPOLLONESHOT)
    target.come_true(EPOLLIN)
    assert ep.collect(10) == [("a", EPOLLIN)]
    target.come_true(EPOLLIN | EPOLLERR)
    assert ep.collect(10) == []
    ep.modify("a", target, EPOLLIN | EPOLLONESHOT)
    assert ep.collect(10) == [("a", EPOLLIN | EPOLLERR)]


def test_errors_and_hang_ups_are_reported_unasked_and_rdhup_when_asked(ep):
    target = Target()
    ep.add("a", target, 0)
    ep.add("b", target, EPOLLRDHUP)
    target.come_true(EPOLLIN | EPOLLERR | EPOLLHUP | EPOLLRDHUP)
    assert dict(ep.collect(10)) == {
        "a": EPOLLERR | EPOLLHUP,
        "b": EPOLLERR | EPOLLHUP | EPOLLRDHUP,
    }


def test_an_event_that_was_not_asked_for_wakes_nobody(ep):
    woken = []
    ep.wq.add(WaitEntry(lambda events: bool(woken.append(events)) or True))
    target = Target()
    ep.add("a", target, EPOLLIN)
    target.come_true(EPOLLOUT)
    assert woken == []
    target.come_true(EPOLLIN)
    assert len(woken) == 1


def test_few_events_a_time_reach_every_target_in_turn(ep):
    for key in range(5):
        ep.add(key, Target(EPOLLIN), EPOLLIN)
    seen = [key for _ in range(5) for key, _ in ep.collect(2)]
    assert seen == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]


def test_an_event_costs_the_same_however_many_targets_are_idle(ep):
    idle = [Target() for _ in range(1000)]
    for key, target in enumerate(idle):
        ep.add(key, target, EPOLLIN)
    busy = Target()
    ep.add("busy", busy, EPOLLIN)
    before = sum(target.polls for target in idle)
    for _ in range(10):
        busy.come_true(EPOLLIN)
        assert ep.collect(10) == [("busy", EPOLLIN)]
    assert sum(target.polls for target in idle) == before


def test_a_wake_up_goes_to_one_of_several_exclusive_epolls():
    target = Target()
    woken = []
    for name in "abc":
        ep = EventPoll()
        ep.wq.add(WaitEntry(lambda _, name=name: bool(woken.append(name)) or True))
        ep.add(name, target, EPOLLIN | EPOLLEXCLUSIVE)
    target.come_true(EPOLLIN)
    assert woken == ["a"]


def test_an_exclusive_epoll_in_which_nobody_sleeps_does_not_swallow_the_wake_up():
    target = Target()
    lazy, eager = EventPoll(), EventPoll()
    lazy.add("lazy", target, EPOLLIN | EPOLLEXCLUSIVE)
    woken = []
    eager.wq.add(WaitEntry(lambda _: bool(woken.append("eager")) or True))
    eager.add("eager", target, EPOLLIN | EPOLLEXCLUSIVE)
    target.come_true(EPOLLIN)
    assert woken == ["eager"]
    assert lazy.collect(10) == [("lazy", EPOLLIN)]


def test_an_exclusive_writer_does_not_take_a_readers_wake_up():
    target = Target()
    woken = []
    for name, events in (("writer", EPOLLOUT), ("reader", EPOLLIN)):
        ep = EventPoll()
        ep.wq.add(WaitEntry(lambda _, name=name: bool(woken.append(name)) or True))
        ep.add(name, target, events | EPOLLEXCLUSIVE)
    target.come_true(EPOLLIN)
    assert woken == ["reader"]


def test_what_is_left_wakes_the_next_sleeper(ep):
    woken = []
    ep.add("a", Target(EPOLLIN), EPOLLIN)
    ep.wq.add(WaitEntry(lambda events: bool(woken.append(events)) or True, exclusive=True))
    ep.collect(1)
    assert len(woken) == 1


def test_an_epoll_can_be_watched_by_another(ep):
    outer, target = EventPoll(), Target()
    ep.add("a", target, EPOLLIN)
    outer.add("inner", ep, EPOLLIN)
    assert outer.collect(10) == []
    target.come_true(EPOLLIN)
    assert outer.collect(10) == [("inner", EPOLLIN)]
    assert ep.collect(10) == [("a", EPOLLIN)]
    target.events = 0
    assert outer.collect(10) == []


def test_epolls_may_not_watch_each_other_nor_themselves_nor_nest_too_deep(ep):
    with pytest.raises(OSError) as caught:
        ep.add("self", ep, EPOLLIN)
    assert caught.value.errno == errno.EINVAL
    chain = [ep]
    for _ in range(3):
        outer = EventPoll()
        outer.add("inner", chain[-1], EPOLLIN)
        chain.append(outer)
    for inner, outer in ((chain[-1], ep), (chain[-1], EventPoll())):
        with pytest.raises(OSError) as caught:
            outer.add("inner", inner, EPOLLIN)
        assert caught.value.errno == errno.ELOOP


def test_adding_twice_and_touching_the_unknown_fail_as_in_linux(ep):
    target = Target()
    ep.add("a", target, EPOLLIN)
    with pytest.raises(FileExistsError):
        ep.add("a", target, EPOLLIN)
    with pytest.raises(FileNotFoundError):
        ep.modify("b", target, EPOLLIN)
    with pytest.raises(FileNotFoundError):
        ep.remove("b", target)


def test_exclusive_goes_with_few_flags_and_cannot_be_modified(ep):
    target = Target()
    for events in (EPOLLEXCLUSIVE | EPOLLONESHOT, EPOLLEXCLUSIVE | EPOLLRDHUP):
        with pytest.raises(OSError, match="Invalid argument"):
            ep.add("a", target, events)
    ep.add("a", target, EPOLLIN | EPOLLEXCLUSIVE)
    with pytest.raises(OSError, match="Invalid argument"):
        ep.modify("a", target, EPOLLIN)


@pytest.mark.parametrize("forget", ["remove", "close"])
def test_a_forgotten_target_is_not_reported_even_if_it_was_ready(ep, forget):
    target = Target(EPOLLIN)
    ep.add("a", target, EPOLLIN)
    if forget == "remove":
        ep.remove("a", target)
    else:
        for released in tuple(target.on_release):
            released(target)
    assert not target.on_release
    target.come_true(EPOLLIN)
    assert ep.collect(10) == []
    assert len(target.wq) == 0
    ep.add("a", target, EPOLLIN)
    assert ep.collect(10) == [("a", EPOLLIN)]


def test_a_closed_epoll_has_left_every_wait_queue(ep):
    target = Target()
    ep.add("a", target, EPOLLIN)
    ep.close()
    assert len(target.wq) == 0
    with pytest.raises(OSError):
        ep.add("a", target, EPOLLIN)


def test_the_flags_are_linuxs():
    assert EPOLLET == select.EPOLLET & 0xFFFFFFFF
    assert (EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP) == (
        select.EPOLLIN,
        select.EPOLLOUT,
        select.EPOLLERR,
        select.EPOLLHUP,
    )
    assert (EPOLLONESHOT, EPOLLEXCLUSIVE) == (select.EPOLLONESHOT, select.EPOLLEXCLUSIVE)
