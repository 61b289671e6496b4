"""Leader and followers: who drives, who is woken, and what is left behind."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from unit.runtime.fake_stack import FakeStack
from ustack.runtime.clock import monotonic_us
from ustack.runtime.threaded import POLL_PAUSE, ThreadedRuntime
from ustack.runtime.waiter import NOT_YET
from ustack.sock.wait import EPOLLIN, WaitQueue

JOIN_S = 60


class Box:
    """Something to wait for: a list that grows."""

    def __init__(self) -> None:
        self.wq = WaitQueue()
        self.items: list[object] = []
        self.holders = 0

    def hold(self) -> None:
        self.holders += 1

    def release(self) -> None:
        self.holders -= 1

    def put(self, item: object) -> None:
        self.items.append(item)
        self.wq.wake_up(EPOLLIN)

    def take(self) -> object:
        return self.items.pop(0) if self.items else NOT_YET


@pytest.fixture(params=[0, 1, 2], ids=lambda n: f"{n} wires")
def runtime(request):
    stack = FakeStack(wires=request.param)
    runtime = ThreadedRuntime(stack)
    yield runtime
    runtime.close()
    stack.close()


@pytest.fixture
def wired():
    stack = FakeStack()
    runtime = ThreadedRuntime(stack)
    yield runtime
    runtime.close()
    stack.close()


def start(fn, *args):
    """Run ``fn`` in a thread; the list it returns is filled with the result or the error."""
    out = []

    def body():
        try:
            out.append(fn(*args))
        except BaseException as exc:
            out.append(exc)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    return thread, out


def until(condition):
    """Give other threads time, within reason, to make ``condition`` true."""
    limit = time.monotonic() + JOIN_S
    while not condition():
        assert time.monotonic() < limit
        threading.Event().wait(0.0005)


def wait(runtime, box, timeout_us=None, exclusive=False):
    return runtime.wait_for(box, timeout_us, exclusive, box.take)


def asleep(runtime):
    """How many threads sleep in the runtime, the background thread not counted."""
    with runtime._lock:
        leads = runtime._leader is not None and runtime._leader is not runtime._background.waiter
        return len(runtime._sleepers) + (leads and runtime._leader.asleep)


def test_a_call_has_fresh_time_and_its_work_is_done_when_it_returns(runtime):
    box = Box()
    before = monotonic_us()

    def work():
        assert before <= runtime.stack.clock.now_us <= monotonic_us()
        runtime.stack.pending.append(lambda: box.put("done"))
        return "result"

    assert runtime.call(work) == "result"
    assert box.items == ["done"]


def test_what_a_call_raises_reaches_the_caller_and_the_lock_is_free(runtime):
    def fail():
        raise ConnectionResetError("x")

    with pytest.raises(ConnectionResetError):
        runtime.call(fail)
    assert runtime.call(lambda: 1) == 1


def test_the_waiter_takes_the_packet_in_itself(wired):
    box = Box()
    drivers = []

    def arrive():
        drivers.append(threading.current_thread())
        box.put("data")

    thread, out = start(wait, wired, box)
    until(lambda: asleep(wired) == 1)
    wired.stack.packet(arrive)
    thread.join(JOIN_S)
    assert out == ["data"]
    assert drivers == [thread]
    assert box.holders == 0 and len(box.wq) == 0


def test_another_threads_call_wakes_the_waiter(runtime):
    box = Box()
    thread, out = start(wait, runtime, box)
    until(lambda: asleep(runtime) == 1)
    runtime.call(box.put, "data")
    thread.join(JOIN_S)
    assert out == ["data"]


def test_followers_are_woken_by_the_leader_and_one_leads_when_it_leaves(wired):
    boxes = [Box() for _ in range(4)]
    threads = [start(wait, wired, box) for box in boxes]
    until(lambda: asleep(wired) == 4)
    for box, (thread, out) in zip(boxes, threads, strict=True):
        wired.stack.packet(lambda box=box: box.put("data"))
        thread.join(JOIN_S)
        assert out == ["data"]
    assert wired._leader in (None, wired._background.waiter)


def test_who_comes_back_at_once_soon_takes_its_packets_in_itself(wired):
    idle, busy = Box(), Box()
    drivers = []

    def arrive():
        drivers.append(threading.current_thread())
        busy.put("data")

    def work():
        while wait(wired, busy) != "end":
            pass

    idler, _ = start(wait, wired, idle)
    until(lambda: asleep(wired) == 1)
    worker, _ = start(work)
    until(lambda: asleep(wired) == 2)
    for _ in range(2000):  # a busy machine may need some more than a few
        if worker in drivers:
            break
        count = len(drivers)
        wired.stack.packet(arrive)
        until(lambda: len(drivers) > count and asleep(wired) == 2)  # noqa: B023
    assert drivers[0] is idler and drivers[-1] is worker
    for box, thread in ((busy, worker), (idle, idler)):
        wired.call(box.put, "end")
        thread.join(JOIN_S)
        assert not thread.is_alive()


def test_while_who_was_woken_stays_away_packets_are_taken_in_all_the_same(wired):
    first, second = Box(), Box()
    wired._comes_back = True
    threads = [start(wait, wired, box) for box in (first, second)]
    until(lambda: asleep(wired) == 2)
    wired.stack.packet(lambda: first.put("data"))
    threads[0][0].join(JOIN_S)  # it is gone for good, and nobody was told to lead
    wired.stack.packet(lambda: second.put("more"))
    threads[1][0].join(JOIN_S)
    assert [out for _, out in threads] == [["data"], ["more"]]


def test_the_time_limit_ends_a_wait_for_leader_and_follower(runtime):
    results = [start(wait, runtime, Box(), 20_000) for _ in range(3)]
    for thread, out in results:
        thread.join(JOIN_S)
        assert out == [NOT_YET]


def looking(runtime, box):
    """Have a thread look at the wire for a minute before it sleeps; return when it does."""
    background = runtime._background
    with runtime._lock:
        runtime._leader = object.__new__(type(background.waiter))
        background.nudge()
        background.waiter.rouse()
    until(lambda: background._sound_asleep)
    runtime._leader = None
    runtime._bell.spin.looks = 120_000_000
    made = start(wait, runtime, box)
    until(lambda: runtime._looking)
    return made


def test_a_waiter_looks_at_the_wire_before_it_sleeps(wired):
    box = Box()
    thread, out = looking(wired, box)
    assert wired._leader is None
    wired.stack.packet(lambda: box.put("data"))
    thread.join(JOIN_S)
    assert out == ["data"]
    assert box.holders == 0


def test_a_waiter_that_looks_at_the_wire_gives_way_to_a_call(wired):
    box = Box()
    thread, out = looking(wired, box)
    wired.call(box.put, "data")
    thread.join(JOIN_S)
    assert out == ["data"]


def test_a_waiter_that_looks_at_the_wire_gives_way_to_another_one(wired):
    mine, others = Box(), Box()
    thread, out = looking(wired, mine)
    follower, got = start(wait, wired, others)
    until(lambda: asleep(wired) >= 1)
    wired.stack.packet(lambda: others.put("other's"))
    wired.stack.packet(lambda: mine.put("data"))
    thread.join(JOIN_S)
    follower.join(JOIN_S)
    assert (out, got) == (["data"], ["other's"])


def test_a_call_that_may_look_is_told_how_often_and_what_ends_it(wired):
    wired._bell.spin.looks = 7
    seen = []

    def look(arg, looks, wakefd):
        seen.append((looks, wakefd == wired._bell.fd))
        return arg

    until(lambda: wired.call_busy(look, "text") == "text" and seen[-1][0])
    assert seen[-1] == (7, True) or seen[-1][0] > 7  # it was worth while: more next time


def test_a_call_that_may_look_does_not_while_another_thread_leads(wired):
    box = Box()
    wired._bell.spin.looks = 7
    thread, out = start(wait, wired, box)
    until(lambda: asleep(wired) == 1)
    assert wired.call_busy(lambda arg, looks, wakefd: [looks], None) == [0]
    wired.call(box.put, "data")
    thread.join(JOIN_S)
    assert out == ["data"]


def test_after_a_look_that_kept_another_thread_from_its_turn_a_while_nobody_looks(wired):
    box = Box()
    thread, out = looking(wired, box)
    wired.call(box.put, "data")
    thread.join(JOIN_S)
    assert out == ["data"]
    seen = []
    for _ in range(10):
        wired.call_busy(lambda arg, looks, wakefd: seen.append(looks), None)
    assert set(seen) <= {0}


def test_zero_time_looks_at_the_wires_once(wired):
    box = Box()
    assert wait(wired, box, 0) is NOT_YET
    with wired._lock:  # keep the background thread from taking it in
        wired.stack.packet(lambda: box.put("data"))
        wired._leader = object.__new__(type(wired._background.waiter))
    try:
        with wired._lock:
            wired._leader.asleep = False
            wired._leader.bell = wired._bell
    finally:
        assert wait(wired, box, 0) == "data"
        with wired._lock:
            wired._leader = None


def test_a_timer_runs_although_nobody_waits(runtime):
    fired = threading.Event()
    runtime.call(lambda: runtime.stack.timers.append((monotonic_us() + 10_000, fired.set)))
    assert fired.wait(JOIN_S)


def test_timers_run_while_a_reader_polls_the_device_himself(wired):
    net, fired = wired.stack.net, []
    wired.call(lambda: wired.stack.timers.append((monotonic_us() + 5_000, lambda: fired.append(1))))
    until_us = monotonic_us() + JOIN_S * 1_000_000
    while not fired and monotonic_us() < until_us:
        wired.call(lambda: setattr(net, "busy_polled_us", monotonic_us()))
    assert fired


def test_a_stack_whose_polls_take_long_is_polled_less_often(wired):
    poll, ends, gaps = wired.stack.poll, [], []

    def long_poll(now_us):
        began_us = monotonic_us()
        gaps.extend([began_us - ends[-1]] if ends else [])
        while monotonic_us() < began_us + 400:
            pass
        is_more = poll(now_us)
        ends.append(monotonic_us())
        return is_more

    wired.stack.poll = long_poll
    while len(gaps) < 10:
        wired.call(lambda: None)
    assert min(gaps) >= POLL_PAUSE * 400


def test_an_earlier_timer_reaches_a_leader_that_is_asleep(runtime):
    box = Box()
    thread, out = start(wait, runtime, box)
    until(lambda: asleep(runtime) == 1)
    runtime.call(
        lambda: runtime.stack.timers.append((monotonic_us() + 5_000, lambda: box.put("timer")))
    )
    thread.join(JOIN_S)
    assert out == ["timer"]


def test_packets_are_taken_in_although_nobody_waits(wired):
    arrived = threading.Event()
    wired.stack.packet(arrived.set)
    assert arrived.wait(JOIN_S)


def test_an_idle_stack_is_not_polled(wired):
    until(lambda: wired._leader is wired._background.waiter and wired._leader.asleep)
    before = wired.stack.polls
    threading.Event().wait(0.02)
    assert wired.stack.polls == before


def test_one_of_several_exclusive_waiters_is_woken_by_an_event(runtime):
    box = Box()
    threads = [start(wait, runtime, box, None, True) for _ in range(3)]
    until(lambda: asleep(runtime) == 3)
    for n in range(3):
        runtime.call(box.put, n)
        until(lambda n=n: sum(len(out) for _, out in threads) == n + 1)
        assert asleep(runtime) == 2 - n
    assert sorted(out[0] for _, out in threads) == [0, 1, 2]


def test_close_ends_every_wait(runtime):
    threads = [start(wait, runtime, Box()) for _ in range(3)]
    until(lambda: asleep(runtime) == 3)
    runtime.close()
    for thread, out in threads:
        thread.join(JOIN_S)
        assert isinstance(out[0], OSError)
    with pytest.raises(OSError):
        runtime.call(lambda: None)


def test_a_finalizer_may_defer_while_its_thread_holds_the_lock(runtime):
    done = threading.Event()
    runtime.call(lambda: runtime.defer(done.set))
    assert done.is_set()
    runtime.defer(done.clear)
    runtime.call(lambda: None)
    assert not done.is_set()


def test_ctrl_c_in_a_blocked_call_leaves_the_runtime_usable(runtime):
    box = Box()
    follower = []

    def interrupt():
        until(lambda: asleep(runtime) == 1)
        follower.append(start(wait, runtime, box))
        until(lambda: asleep(runtime) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    helper, _ = start(interrupt)
    with pytest.raises(KeyboardInterrupt):
        wait(runtime, Box())
    helper.join(JOIN_S)
    runtime.call(box.put, "data")
    thread, out = follower[0]
    thread.join(JOIN_S)
    assert out == ["data"]


def test_ctrl_c_within_the_core_waits_until_the_core_is_left(runtime):
    finished = []

    def core():
        os.kill(os.getpid(), signal.SIGINT)
        finished.append(True)

    with pytest.raises(KeyboardInterrupt):
        runtime.call(core)
    assert finished == [True]


def test_pythons_own_handler_comes_back_with_the_last_runtime():
    pythons = signal.getsignal(signal.SIGINT)
    stack = FakeStack()
    runtime = ThreadedRuntime(stack)
    assert signal.getsignal(signal.SIGINT) is not pythons
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # who asks finds none
    runtime.close()
    stack.close()
    assert signal.getsignal(signal.SIGINT) is pythons is signal.default_int_handler


def test_a_forked_child_lets_go_of_the_wires_and_of_the_stack(wired):
    reader = wired.stack.filenos()[0]
    pid = os.fork()
    if pid == 0:
        is_null = os.path.samestat(os.fstat(reader), os.stat(os.devnull))
        try:
            wired.call(lambda: None)
        except OSError:
            os._exit(0 if is_null else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert wired.call(lambda: 1) == 1


def test_a_bug_in_the_background_thread_is_heard_of_in_the_next_call(wired, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda args: None)

    def bug():
        raise ZeroDivisionError

    wired.stack.packet(bug)
    until(lambda: wired.closed)
    with pytest.raises(RuntimeError, match="failed"):
        wired.call(lambda: None)


def test_many_threads_pass_everything_on_without_loss(runtime):
    boxes = [Box() for _ in range(8)]
    rounds = 100

    def relay(n):
        for _ in range(rounds):
            item = wait(runtime, boxes[n])
            runtime.call(boxes[(n + 1) % 8].put, item)

    threads = [start(relay, n) for n in range(8)]
    runtime.call(boxes[0].put, "token")
    for thread, out in threads:
        thread.join(JOIN_S)
        assert out == [None]
    assert [box.items for box in boxes] == [["token"]] + [[]] * 7


def test_work_that_a_followers_attempt_leaves_is_done_before_it_sleeps(runtime):
    leader_box, box = Box(), Box()
    leader, _ = start(wait, runtime, leader_box)
    until(lambda: asleep(runtime) == 1)
    made = []

    def attempt():
        if not made:
            made.append(True)
            runtime.stack.pending.append(lambda: box.put("of my own making"))
        return box.take()

    thread, out = start(runtime.wait_for, box, None, False, attempt)
    thread.join(JOIN_S)
    assert out == ["of my own making"]
    runtime.call(leader_box.put, "end")
    leader.join(JOIN_S)
