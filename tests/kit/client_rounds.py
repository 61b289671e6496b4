"""Rounds of a daemon's life: start it, fork clients from a warm parent, kill half, stop it.

Run as a program in a process of its own (it forks):

    client_rounds.py FOLDER --rounds 20 --clients 50 [--tap NAME] [--seed N]

With ``--tap`` the daemon is ustackd itself, else its sockets on loopback alone. A leak of a
descriptor, process, file, device, page or socket, or anything that takes too long, ends it
with status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyroute2  # noqa: F401  the daemon needs it: loaded once, before all forks

import ustack
import ustack.api.remote
from kit.calls_daemon import CallsDaemon
from ustack import socket
from ustack.cli.client import is_alive
from ustack.daemon import main as ustackd
from ustack.stack import Stack

PATIENCE_S = 60.0
STEPS, STEP_US = 40, 30_000_000
"""Twenty minutes: more than the timers of a connection that nobody holds."""
REPORT_ROUNDS = 100
"""How often a line says how far it is."""
GROUP = 5
"""Clients to a group: one listens, the others connect to it."""


class LeakError(Exception):
    """Something stayed behind, or hung."""


def until(done: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > end:
            raise LeakError(what)
        time.sleep(0.005)


def forked(work: Callable[[], int]) -> int:
    """Run ``work`` in a child; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        status = work()
    except BaseException as error:
        print(f"child {os.getpid()}: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def daemon(path: Path, tap: str | None) -> int:
    """Be the daemon until SIGTERM."""
    if tap is not None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        net = ("--address", "10.0.0.2/24", "--host-address", "10.0.0.1/24")
        return ustackd.main(["--tap", tap, *net, "--socket", str(path)])
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    with CallsDaemon(path) as running:
        before = running.ask(lambda: memory_in_use(running.stack))
        signal.sigwait([signal.SIGTERM])
        running.ask(lambda: let_time_pass(running.stack))
        after = running.ask(lambda: memory_in_use(running.stack))
    lost = before["free pages"] - after["free pages"]
    if lost > 0 or after["objects"] or after["connections"]:
        raise LeakError(f"the stack keeps memory: {after}, {lost} pages less than at first")
    return 0


def memory_in_use(stack: Stack) -> dict[str, int]:
    """Return what the arena and the slabs have given out; empty slabs may stay with a cache."""
    tcp = stack.tcp
    slabs = [
        cache.info() for cache in (tcp.tcp_cache, tcp.bictcp_cache, tcp.request_cache, tcp.tw_cache)
    ]
    held = sum(slab.num_slabs * slab.pagesperslab for slab in slabs)
    return {
        "free pages": stack.net.mem.free_pages + held,
        "objects": sum(slab.active_objs for slab in slabs),
        "connections": len(tcp.diag()),
    }


def let_time_pass(stack: Stack) -> None:
    """Bring every connection to its end: TIME_WAIT, retransmissions of orphans, tables."""
    now_us = stack.clock.now_us
    for _ in range(STEPS):
        now_us += STEP_US
        while stack.poll(now_us):
            pass


def client(path: Path, number: int, rng: random.Random, stop: int) -> int:
    """Talk, or serve those who do, until there is nobody left or ``stop`` can be read."""
    ustack.connect(str(path))
    address = ("127.0.0.1", 10_000 + number // GROUP)
    with contextlib.suppress(OSError):  # the other end may be killed at any time
        if number % GROUP == 0:
            serve(address, stop)
        else:
            talk(address, rng, stop)
    return 0


def stopped(stop: int) -> bool:
    try:
        return os.read(stop, 1) == b""
    except BlockingIOError:
        return False


def serve(address: tuple[str, int], stop: int) -> None:
    with socket.create_server(address) as listener:
        listener.settimeout(0.05)
        held = []
        while not stopped(stop):
            with contextlib.suppress(TimeoutError):
                held.append(listener.accept()[0])
                held[-1].settimeout(0.05)
            for sock in held:
                with contextlib.suppress(OSError):
                    sock.send(sock.recv(65536))


def talk(address: tuple[str, int], rng: random.Random, stop: int) -> None:
    while not stopped(stop):
        try:
            sock = socket.create_connection(address, timeout=0.5)
        except OSError:
            time.sleep(0.01)
            continue
        with sock:
            for _ in range(rng.randrange(20)):
                sock.sendall(bytes(rng.randrange(1, 50_000)))
                sock.recv(rng.randrange(1, 50_000))
        send_datagrams(address, rng)


def send_datagrams(address: tuple[str, int], rng: random.Random) -> None:
    """To a port where nobody is, and to ourselves, who do not read."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        for target in (sock.getsockname(), address):
            sock.connect(target)
            with contextlib.suppress(ConnectionRefusedError):
                for _ in range(rng.randrange(10)):
                    sock.send(bytes(rng.randrange(5000)))


def descriptors(pid: int | str) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_kb(pid: int | str) -> int:
    """Return the memory that a process occupies."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def one_round(path: Path, tap: str | None, clients: int, rng: random.Random) -> int:
    """Play one round; return the memory in KB that the daemon occupied at its end.

    Raises:
        LeakError: something is wrong; the round's processes are gone all the same.
    """
    daemon_pid = forked(lambda: daemon(path, tap))
    try:
        return play(path, tap, daemon_pid, clients, rng)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(daemon_pid, signal.SIGKILL)
        raise


def play(path: Path, tap: str | None, daemon_pid: int, clients: int, rng: random.Random) -> int:
    until(lambda: is_alive(path), "the daemon does not start")
    before = descriptors(daemon_pid)
    stop, stop_writer = os.pipe()
    os.set_blocking(stop, False)

    def start(number: int) -> int:
        seed = rng.random()

        def work() -> int:
            os.close(stop_writer)
            return client(path, number, random.Random(seed), stop)

        return forked(work)

    pids = [start(number) for number in range(clients)]
    victims = rng.sample(pids, clients // 2)
    for pid in victims:
        time.sleep(rng.random() * 0.3 / clients)
        os.kill(pid, signal.SIGKILL)
    os.close(stop_writer)
    os.close(stop)
    for pid in pids:
        status = wait(pid)
        if status != 0 and not (pid in victims and status == signal.SIGKILL):
            raise LeakError(f"client {pid} ended with {status}")
    until(lambda: descriptors(daemon_pid) <= before, "the daemon keeps descriptors")
    resident = resident_kb(daemon_pid)
    os.kill(daemon_pid, signal.SIGTERM)
    if wait(daemon_pid):
        raise LeakError("the daemon did not end well")
    if path.exists() or (tap is not None and Path(f"/sys/class/net/{tap}").exists()):
        raise LeakError("the control socket or the TAP stayed")
    return resident


def wait(pid: int) -> int:
    """Return a child's wait status, which must come in time."""
    found = []

    def ended() -> bool:
        done, status = os.waitpid(pid, os.WNOHANG)
        found.append(status)
        return bool(done)

    until(ended, f"process {pid} does not end")
    return found[-1]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--tap")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    started = time.monotonic()
    before = descriptors("self")
    sizes = []
    try:
        for number in range(args.rounds):
            path = args.folder / f"{number}.sock"
            sizes.append(one_round(path, args.tap, args.clients, rng))
            if descriptors("self") != before:
                raise LeakError("the parent keeps descriptors")
            if sizes[-1] > 2 * sizes[0]:
                raise LeakError(f"the daemon has grown: {sizes[-1]} KB, {sizes[0]} at first")
            if len(sizes) % REPORT_ROUNDS == 0:
                print(report(sizes, args.clients, started), flush=True)
    except LeakError as leak:
        print(f"round {number} of seed {args.seed}: {leak}")
        return 1
    if len(sizes) % REPORT_ROUNDS:
        print(report(sizes, args.clients, started))
    return 0


def report(sizes: list[int], clients: int, started_s: float) -> str:
    """Say how far it is: time, and the memory of the daemons and of the parent they came from."""
    return (
        f"{len(sizes)} rounds of {clients} in {time.monotonic() - started_s:.1f} s; the daemon"
        f" occupied {min(sizes)} to {max(sizes)} KB, {sizes[-1]} in the last round, its parent"
        f" {resident_kb('self')} KB with {descriptors('self')} descriptors"
    )


if __name__ == "__main__":
    sys.exit(main())
