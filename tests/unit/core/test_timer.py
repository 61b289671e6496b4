"""Timers fire once, in order, at the time they were last moved to."""

from __future__ import annotations

from ustack.core.timer import Timer, TimerQueue


def test_timers_fire_in_order_of_their_deadlines():
    queue, fired = TimerQueue(), []
    timers = [Timer(fired.append, name) for name in "abc"]
    for timer, when in zip(timers, (30, 10, 20), strict=True):
        queue.mod_timer(timer, when)
    assert queue.next_us() == 10
    assert queue.run(25) == 2
    assert fired == ["b", "c"]
    assert queue.next_us() == 30


def test_a_moved_timer_fires_only_at_its_new_time():
    queue, fired = TimerQueue(), []
    timer = Timer(fired.append, "x")
    queue.mod_timer(timer, 10)
    queue.mod_timer(timer, 50)
    assert queue.next_us() == 50
    assert queue.run(49) == 0
    queue.mod_timer(timer, 20)
    assert queue.run(20) == 1
    assert queue.run(100) == 0
    assert fired == ["x"]


def test_a_deleted_timer_does_not_fire_and_can_be_armed_again():
    queue, fired = TimerQueue(), []
    timer = Timer(fired.append, "x")
    queue.mod_timer(timer, 10)
    queue.del_timer(timer)
    assert queue.next_us() is None
    assert queue.run(20) == 0
    queue.mod_timer(timer, 30)
    assert queue.run(30) == 1


def test_a_timer_may_arm_itself_again():
    queue, fired = TimerQueue(), []

    def tick(n: int) -> None:
        fired.append(n)
        queue.mod_timer(timer, 10 * (len(fired) + 1))

    timer = Timer(tick, 1)
    queue.mod_timer(timer, 10)
    for now in (10, 20, 30):
        queue.run(now)
    assert len(fired) == 3


def test_run_stops_at_its_limit():
    queue, fired = TimerQueue(), []
    for n in range(5):
        queue.mod_timer(Timer(fired.append, n), n)
    assert queue.run(10, limit=3) == 3
    assert fired == [0, 1, 2]
