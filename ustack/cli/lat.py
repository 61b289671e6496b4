"""``ustack lat``: how long things take, as a histogram by powers of two.

``handshake`` counts in a daemon from the first SYN until the connection is there, at both
sides; ``connect`` counts how long connect() of the daemon's clients keeps the processor, which
grows when local ports are scarce. Both begin when asked, and end after so many seconds or with
Ctrl-C. ``wakeup`` asks no daemon: two threads on a stack of their own answer each other, and
what is shown is how long each slept, and how long after being woken it ran.
"""

from __future__ import annotations

import argparse
import select
from collections.abc import Iterator, Sequence
from threading import Thread
from typing import Any, Literal

from ustack.api.descriptors import socketpair
from ustack.api.stacks import StackHandle, build_stack, use
from ustack.cli.client import Client, find_socket
from ustack.cli.streaming import note, stop_signals
from ustack.daemon.messages import Done, LatencyRequest, LatencyResult, StopRequest
from ustack.lib.histogram import Log2Histogram
from ustack.runtime.threaded import ThreadedRuntime

ROUNDS = 1000
BAR = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare lat's arguments."""
    kinds = ("handshake", "connect", "wakeup")
    parser.add_argument("what", choices=kinds, metavar="|".join(kinds))
    how_long = f"seconds to count (until Ctrl-C); wakeup: how often to wait ({ROUNDS})"
    parser.add_argument("n", nargs="?", type=float, metavar="N", help=how_long)


def run(args: argparse.Namespace) -> int:
    """Count, then print the histogram."""
    if args.what == "wakeup":
        slept, ran = measure_wakeups(int(args.n or ROUNDS))
        print("asleep, from blocking to running:")
        print_histogram(slept.buckets, slept.total)
        print("from being woken to running:")
        print_histogram(ran.buckets, ran.total)
        return 0
    with Client(find_socket(args.socket)) as client:
        return count(client, args.what, args.n)


def count(client: Client, what: Literal["handshake", "connect"], seconds: float | None) -> int:
    """Have the daemon count for ``seconds``, None: until Ctrl-C."""
    client.wait_forever()
    with stop_signals(client, LatencyRequest(what)):
        client.receive()
        note(f"counting ({what})")
        if not select.select([client], [], [], seconds)[0]:
            client.send(StopRequest())
        while not isinstance(reply := client.receive(), Done):
            if isinstance(reply, LatencyResult):
                print_histogram(reply.buckets, reply.total_us)
    return 0


def print_histogram(buckets: Sequence[int], total_us: int) -> None:
    """Print the lines of a histogram of microseconds."""
    print("\n".join(histogram_lines(buckets, total_us)), flush=True)


def histogram_lines(buckets: Sequence[int], total_us: int) -> Iterator[str]:
    """Yield a line for each bucket from the first that is not empty, and one for all."""
    if not (number := sum(buckets)):
        yield "count = 0"
        return
    yield f"{'usecs':>24} : count    distribution"
    for i in range(next(i for i, n in enumerate(buckets) if n), len(buckets)):
        low, high = (1 << i) & ~1, (2 << i) - 1
        bar = "*" * (buckets[i] * BAR // max(buckets))
        yield f"{low:>10} -> {high:<10} : {buckets[i]:<8} |{bar:<{BAR}}|"
    yield f"avg = {total_us // number} usecs, total: {total_us} usecs, count: {number}"


def measure_wakeups(rounds: int) -> tuple[Log2Histogram, Log2Histogram]:
    """Let two threads answer each other ``rounds`` times over lo, each asleep for the other.

    Returns:
        How long threads slept, and how long after being woken they ran, in microseconds.
    """
    slept, ran = Log2Histogram(), Log2Histogram()

    def probe(slept_us: int, late_us: int) -> None:
        slept.add(slept_us)
        ran.add(late_us)

    handle = StackHandle(ThreadedRuntime(build_stack()))
    use(handle)
    try:
        near, far = socketpair()
        with near, far:
            handle.runtime.crew.trace_wakeup.attach(probe)
            other = Thread(target=answer, args=(far,))
            other.start()
            for _ in range(rounds):
                near.sendall(b"?")
                near.recv(1)
            near.shutdown(1)
            other.join()
    finally:
        handle.close()
    return slept, ran


def answer(sock: Any) -> None:
    """Send back what comes until the end of the stream."""
    while data := sock.recv(1):
        sock.sendall(data)
