"""The inline runtime: a stack without a network on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import select
import socket

import pytest
import uvloop

from unit.runtime.fake_stack import FakeStack
from ustack.runtime.clock import monotonic_us
from ustack.runtime.inline import InlineRuntime, _descriptor_of


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Run a coroutine function on a new loop, with a stack and its runtime."""

    def run(main, wires=1, **options):
        async def body():
            stack = FakeStack(wires=wires)
            runtime = InlineRuntime(stack, **options)
            try:
                await asyncio.wait_for(main(stack, runtime), 10)
            finally:
                runtime.close()
                stack.close()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(body())

    return run


@pytest.mark.parametrize("wire", [0, 1])
def test_a_packet_on_any_wire_is_taken_in(run, wire):
    async def main(stack, runtime):
        arrived = asyncio.Event()
        stack.packet(arrived.set, wire)
        await arrived.wait()

    run(main, wires=2)


def test_timers_run_and_an_earlier_one_overtakes(run):
    async def main(stack, runtime):
        fired, done = [], asyncio.Event()
        now_us = monotonic_us()
        runtime.call(stack.timers.append, (now_us + 15_000, done.set))
        runtime.call(stack.timers.append, (now_us + 5_000, lambda: fired.append("early")))
        await done.wait()
        assert fired == ["early"]
        assert monotonic_us() >= now_us + 15_000

    run(main)


def test_what_a_call_leaves_is_done_in_the_loops_next_turn(run):
    async def main(stack, runtime):
        done = asyncio.Event()
        runtime.call(stack.pending.append, done.set)
        assert not done.is_set()
        await done.wait()

    run(main)


def test_deferred_callbacks_run_behind_the_poll_that_deferred_them(run):
    async def main(stack, runtime):
        order, done = [], asyncio.Event()

        def softirq():
            runtime.defer(lambda: (order.append("deferred"), done.set()))
            order.append("softirq")

        stack.packet(softirq)
        await done.wait()
        assert order == ["softirq", "deferred"]
        runtime.defer(done.clear)
        while done.is_set():
            await asyncio.sleep(0)

    run(main)


def test_calls_see_fresh_time(run):
    async def main(stack, runtime):
        before = monotonic_us()
        assert runtime.call(lambda: stack.clock.now_us) >= before

    run(main)


def test_a_flood_leaves_the_loop_its_turns(run):
    async def main(stack, runtime):
        floods = 0

        def more():
            nonlocal floods
            floods += 1
            if not runtime.closed:
                stack.pending.append(more)

        runtime.call(more)
        for _ in range(3):
            await asyncio.sleep(0)
        assert floods > 3

    run(main)


def test_an_idle_stack_is_not_polled(run):
    async def main(stack, runtime):
        await asyncio.sleep(0.005)
        polls = stack.polls
        await asyncio.sleep(0.02)
        assert stack.polls == polls

    run(main)


def test_a_bug_is_reported_to_the_loop_and_the_rest_goes_on(run):
    async def main(stack, runtime):
        reports, done = [], asyncio.Event()
        asyncio.get_running_loop().set_exception_handler(lambda _, c: reports.append(c))

        def bug():
            raise ZeroDivisionError

        runtime.call(stack.timers.append, (monotonic_us() + 5_000, done.set))
        stack.packet(bug)
        await done.wait()
        assert isinstance(reports[0]["exception"], ZeroDivisionError)

    run(main)


def test_a_closed_runtime_does_nothing_more(run):
    async def main(stack, runtime):
        runtime.call(stack.timers.append, (monotonic_us() + 1_000, pytest.fail))
        runtime.close()
        runtime.close()
        polls = stack.polls
        stack.packet(lambda: None)
        await asyncio.sleep(0.01)
        assert stack.polls == polls

    run(main)


def test_busy_polling_takes_packets_without_watching_the_wires(run):
    async def main(stack, runtime):
        assert runtime._filenos == []
        arrived = asyncio.Event()
        stack.packet(arrived.set, 0)
        await arrived.wait()

    run(main, busy_poll=True)


def test_busy_polling_never_stops_and_leaves_the_loop_its_turns(run):
    async def main(stack, runtime):
        polls = 0
        poll = stack.poll

        def counted(now_us):
            nonlocal polls
            polls += 1
            return poll(now_us)

        stack.poll = counted
        for _ in range(5):
            before = polls
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert polls > before

    run(main, busy_poll=True)


def test_a_loops_descriptor_tells_that_it_has_something_else_to_do(run):
    async def main(stack, runtime):
        near, far = socket.socketpair()
        loop = asyncio.get_running_loop()
        with near, far:
            loop.add_reader(near, lambda: None)
            await asyncio.sleep(0.01)  # the loop watches it now
            fd = _descriptor_of(loop)
            before = select.select([fd], [], [], 0)[0]
            far.send(b"x")
            assert (before, select.select([fd], [], [], 0)[0]) == ([], [fd])
            loop.remove_reader(near)

    run(main)


def test_what_a_source_brings_is_done_in_a_turn_and_looked_for_in_every_other(run):
    async def main(stack, runtime):
        near, far = socket.socketpair()
        got, done = [], asyncio.Event()

        def serve():
            try:
                got.append(near.recv(10, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return False
            assert runtime.is_running
            done.set()
            return True

        with near, far:
            runtime.add_source(near.fileno(), serve)
            far.send(b"first")
            await done.wait()
            runtime.remove_source()
            far.send(b"second")
            await asyncio.sleep(0.01)
            assert got == [b"first"]

    run(main)
