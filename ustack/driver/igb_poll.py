"""One turn of a device in one call into C: DMA, interrupt, NAPI poll, TCP's fast path.

``IgbAdapter.poll_hw`` takes this way while nothing stands in it: one queue on a descriptor, no
softirq pending, TCP's fast path on. What C cannot finish (frames for Python, a full ring) it
leaves as the steps in ``igb_vector`` and ``core.softirq`` would find it, and they go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.core.napi import NET_RX_SOFTIRQ, napi_schedule
from ustack.driver.igb_rx import igb_receive
from ustack.native.lib import ffi, lib

if TYPE_CHECKING:
    from ustack.core.net import RxFast
    from ustack.driver.igb import IgbAdapter

LEFT: int = lib.US_IGB_POLL_LEFT
AGAIN: int = lib.US_IGB_POLL_AGAIN
EVENTS: int = lib.US_IGB_POLL_EVENTS
HELD: int = lib.US_IGB_POLL_HELD
GONE: int = lib.US_IGB_POLL_GONE
NOT_NOW: int = lib.US_IGB_POLL_NOT_NOW
MORE: int = lib.US_IGB_POLL_MORE
TIMERS: int = lib.US_IGB_POLL_TIMERS
FOR_PYTHON = LEFT | AGAIN | EVENTS | HELD
IRQS_SHIFT: int = lib.US_IGB_POLL_IRQS_SHIFT
CONSUMED_SHIFT: int = lib.US_IGB_POLL_CONSUMED_SHIFT
FLAGS = (1 << IRQS_SHIFT) - 1
UNUSUAL = FLAGS | 1 << CONSUMED_SHIFT - 1
"""Something is left to do, or it is time to count interrupts, before their sum is too large."""


def igb_poll_context(adapter: IgbAdapter, fast: RxFast | None) -> Any:
    """Return ``struct us_igb_poll *`` of an adapter that is up, None if C cannot poll it."""
    vector = adapter.only_vector
    fd = adapter.nic.c_nic_on_descriptor
    if fast is None or vector is None or fd is None or vector.rx is None or vector.tx is None:
        return None
    poll = ffi.new("struct us_igb_poll *")
    poll.nic = fd
    poll.rx, poll.tx, poll.rxq = vector.rx.ring, vector.tx.ring, vector.rxq
    poll.itr, poll.fast = vector.itr, fast.ptr
    poll.mac = adapter.dev_addr
    return poll


def igb_turn(adapter: IgbAdapter, poll: Any, fast: RxFast) -> int | None:
    """Take one turn.

    Returns:
        1 if there may be more frames on the wire, else 0; -1: the wire is gone; None: nothing
        was done: the descriptors are short, or TCP's fast path is off.
    """
    done: int = lib.us_igb_poll(poll, adapter.net.clock.now_us, fast.genid)
    fast.timers_idle = not done & TIMERS
    if not done:
        return 0
    _count(adapter, done)
    if done & (GONE | NOT_NOW):
        return -1 if done & GONE else None
    if done & FOR_PYTHON:
        _go_on(adapter, poll, fast, done)
    return 1 if done & MORE else 0


def igb_busy_wait(adapter: IgbAdapter, looks: int, wakefd: int) -> bool | None:
    """Look for a frame up to ``looks`` times, until ``wakefd`` can be read, and take its turn.

    The present is then when it came. For the edge: it takes its time, without the GIL.

    Returns:
        Whether ``Stack.poll`` has more to do for what came; None: nothing came.
    """
    poll, fast = adapter.turns_in_c()
    if poll is None:
        return _wait_for_python(adapter, looks, wakefd)
    done: int = lib.us_igb_wait(poll, looks, wakefd, fast.genid)
    if not done:
        _count(adapter, 0)
        return None
    adapter.net.clock.now_us = poll.now_us
    if done & NOT_NOW:
        return _wait_for_python(adapter, looks, wakefd)
    return _end_wait(adapter, poll, fast, done)


def igb_recv_wait(
    adapter: IgbAdapter, tp: Any, buffer: Any, length: int, looks: int, wakefd: int
) -> int:
    """Read up to ``length`` bytes of a connection, waiting for them as ``igb_busy_wait`` does.

    Returns:
        How many bytes; 0: none have come, or something is out of the ordinary.
    """
    poll, fast = adapter.turns_in_c()
    if poll is None:
        return 0
    got: int = lib.us_igb_recv_wait(poll, tp, buffer, length, looks, wakefd, fast.genid)
    net = adapter.net
    net.clock.now_us = poll.now_us
    if looks:
        net.busy_polled_us = net.clock.now_us
    if done := poll.done:
        _end_wait(adapter, poll, fast, done)
    return got


def _end_wait(adapter: IgbAdapter, poll: Any, fast: RxFast, done: int) -> bool:
    """Do what a turn has left; return whether ``Stack.poll`` has more to do for it."""
    turns = adapter.turns + (done & ~EVENTS)
    if not turns & UNUSUAL:
        adapter.turns = turns
        if done & EVENTS:
            fast.run_events()
        return False
    _count(adapter, done)
    if done & GONE:
        adapter.lose_wire()
    elif done & FOR_PYTHON:
        _go_on(adapter, poll, fast, done)
    return bool(done & FLAGS & ~EVENTS)


def _wait_for_python(adapter: IgbAdapter, looks: int, wakefd: int) -> bool | None:
    """Leave the frames on the wire: who polls next takes them."""
    if not max(lib.us_wait(adapter.fileno(), wakefd, looks, 0), 0) & lib.US_WAIT_FD:
        return None
    adapter.net.clock.now_us = lib.us_monotonic_us()
    return True


def _count(adapter: IgbAdapter, done: int) -> None:
    """Count what C has done in this turn, and in those that nothing but that was left of."""
    done += adapter.turns
    adapter.turns = 0
    irqs = done >> IRQS_SHIFT & 0xFFFF
    if irqs:
        adapter.nic.irq_counts[0] += irqs
        softnet = adapter.net.softnet
        softnet.softirq_counts[NET_RX_SOFTIRQ] += irqs
        softnet.processed += done >> CONSUMED_SHIFT


def igb_recv(
    adapter: IgbAdapter, poll: Any, fast: RxFast, tp: Any, buffer: Any, length: int
) -> int:
    """Read up to ``length`` bytes of a connection, and turn as long as that brings more of it."""
    got: int = lib.us_igb_recvmsg(
        poll, tp, ffi.from_buffer(buffer), length, adapter.net.clock.now_us, fast.genid
    )
    adapter.net.softnet.processed += poll.consumed
    flags = poll.flags
    if flags & GONE:
        adapter.lose_wire()
    elif flags:
        _go_on(adapter, poll, fast, flags | EVENTS)
    else:
        fast.run_events()
    return got


def _go_on(adapter: IgbAdapter, poll: Any, fast: RxFast, flags: int) -> None:
    """Do what C has left."""
    vector = adapter.q_vectors[0]
    left = poll.left
    if flags & (LEFT | AGAIN):
        napi_schedule(vector.napi)
    if flags & HELD and adapter.nic.irq_held is not None:
        adapter.nic.irq_held(adapter.nic.regs.ITRDUE)
    if flags & EVENTS:
        fast.run_events()
    if flags & LEFT and vector.rx is not None and vector.rx.ring == poll.rx:
        igb_receive(vector, vector.rx, left)
