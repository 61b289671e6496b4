"""``ustack show`` and ``ustack ps``: what the stack is made of, where Linux has no file for it.

Lines are made here, as those of /proc are in ``procfs.py``. Only what exists is shown: a CPU
is a softnet context and ksoftirqd/N the state in which its next turn is ksoftirqd's, both
without a thread of their own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ustack.core.softirq import SOFTIRQ_NAMES, SoftnetData
from ustack.core.steering import rps_mask, xps_mask
from ustack.daemon import show_queues

if TYPE_CHECKING:
    from ustack.core.napi import Napi
    from ustack.core.qdisc import Qdisc
    from ustack.stack import Stack

THREADS = Path("/proc/self/task")


def softnet(stack: Stack) -> Iterator[str]:
    """Yield each context's queues (struct softnet_data), with what is on them."""
    for sd in stack.net.softnets:
        raised = [name for bit, name in enumerate(SOFTIRQ_NAMES) if sd.softirq_pending >> bit & 1]
        yield f"cpu {sd.cpu}:"
        yield f"  softirq_pending   {sd.softirq_pending:#04x} {' '.join(raised)}".rstrip()
        yield _queue("poll_list", [_napi_name(napi) for napi in sd.poll_list])
        yield f"  input_pkt_queue   {len(sd.input_pkt_queue)}"
        yield f"  process_queue     {len(sd.process_queue)}"
        yield _queue("output_queue", [_qdisc_name(qdisc) for qdisc in sd.output_queue])
        # Linux's holds what a hard interrupt frees; here the poll frees what was sent.
        yield "  completion_queue  none"
        yield f"  backlog           weight {sd.backlog.weight} {_scheduled(sd.backlog)}"
        yield f"  ksoftirqd         {_ksoftirqd_state(sd)} wakeups {sd.ksoftirqd_wakeups}"


def rps(stack: Stack) -> Iterator[str]:
    """Yield each receive queue with its NAPI's CPU and the CPUs that RPS spreads it over."""
    yield "QUEUE           CPU  RPS_CPUS"
    for dev in stack.net.devices.values():
        vectors = getattr(dev, "q_vectors", ())
        for queue in range(dev.real_num_rx_queues):
            cpu = str(vectors[queue].napi.cpu) if vectors else "-"
            yield f"{f'{dev.name} rx-{queue}':<15} {cpu:>3}  {rps_mask(dev, queue):x}"


def xps(stack: Stack) -> Iterator[str]:
    """Yield each transmit queue with the CPUs that XPS has send by it, and what it has sent."""
    yield "QUEUE           XPS_CPUS       PKTS  QLEN STATE"
    for dev in stack.net.devices.values():
        if dev.qdisc is None or dev.num_queues == 1:
            continue  # nothing to choose from
        for leaf in dev.qdisc.leaves[: dev.real_num_tx_queues]:
            state = "stopped" if dev.tx_queue_stopped(leaf.queue) else "on"
            yield (
                f"{_qdisc_name(leaf):<15} {xps_mask(dev, leaf.queue):8x} "
                f"{leaf.stats.sent_packets:10d} {leaf.qlen:5d} {state}"
            )


def ps(stack: Stack) -> Iterator[str]:
    """Yield the process's threads, the contexts' ksoftirqd and the event loop's tasks.

    ``R`` is running or due, ``S`` sleeps; what has no thread of its own has no TID.
    """
    yield "    TID STAT COMMAND"
    for thread in threading.enumerate():
        yield f"{thread.native_id or 0:7d} {_thread_state(thread.native_id)}    {thread.name}"
    for sd in stack.net.softnets:
        yield f"      - {_ksoftirqd_state(sd)}    [ksoftirqd/{sd.cpu}]"
    for name in sorted(_task_name(task) for task in _tasks() if not task.done()):
        yield f"      - S    {name} (task)"


SHOWN: dict[str, Callable[[Stack], Iterator[str]]] = {
    "ps": ps,
    "rps": rps,
    "softnet": softnet,
    "xps": xps,
}


def show_lines(stack: Stack, what: str, port: int = 0) -> Iterator[str]:
    """Return the lines of one table; ``port`` chooses among sockets, 0 takes all.

    Raises:
        LookupError: there is no such table; the client's fault.
    """
    if what in show_queues.SHOWN:
        return show_queues.show_lines(stack, what, port)
    if what not in SHOWN:
        tables = ", ".join(sorted((*SHOWN, *show_queues.SHOWN)))
        raise LookupError(f"show: no such table: {what} (there are {tables})")
    return SHOWN[what](stack)


def _queue(name: str, members: list[str]) -> str:
    return f"  {name:<17} {len(members)} {', '.join(members)}".rstrip()


def _napi_name(napi: Napi) -> str:
    if napi.dev is None:
        return "backlog"
    for vector in getattr(napi.dev, "q_vectors", ()):
        if vector.napi is napi:
            return f"{napi.dev.name}-TxRx-{vector.index}"
    return napi.dev.name


def _qdisc_name(qdisc: Qdisc) -> str:
    return f"{qdisc.dev.name} tx-{qdisc.queue}"


def _scheduled(napi: Napi) -> str:
    return "scheduled" if napi.scheduled else "idle"


def _ksoftirqd_state(sd: SoftnetData) -> str:
    return "R" if sd.ksoftirqd_running else "S"


def _thread_state(tid: int | None) -> str:
    """Return a thread's state letter as the kernel has it."""
    try:
        stat = (THREADS / str(tid) / "stat").read_text()
    except OSError:
        return "?"
    return stat[stat.rindex(")") + 2]


def _tasks() -> Iterable[asyncio.Task[Any]]:
    try:
        return asyncio.all_tasks()
    except RuntimeError:
        return ()  # no loop is running here


def _task_name(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    return getattr(coroutine, "__qualname__", task.get_name())
