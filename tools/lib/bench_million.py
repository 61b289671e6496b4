"""The million part of the bench: connections from Linux clients to a service on ustack.

A namespace of its own, a TAP in it, the stack in this process and some 53 client processes
(19,000 sockets each: a process may have 20,000 descriptors here). Plan A: many client
addresses and one server port. Plan B: one client address and many server ports. Then 1000
random ones echo, the cost of a round trip on 64 of them is taken, and all close.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rich.table import Table

from kit.crowd import rss_bytes
from kit.lab import LabError, Namespace
from ustack.config import StackConfig
from ustack.inet.sockets import InetSocket
from ustack.lib.addresses import parse_interface, parse_ipv4
from ustack.nic.tap import TapWire
from ustack.runtime.clock import monotonic_us
from ustack.stack import Stack

TAP = "million0"
PER_CLIENT = 19_000
SERVER = "10.7.255.254"
PORT = 8000
MARKS = (1000, 100_000, 1_000_000)
"""Where the cost of a round trip on 64 connections is taken."""
CLONE_NEWNET = 0x40000000
PATIENCE_S = 600.0

CLIENT = """
import errno, select, socket, sys
address, server, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
socks = []
def say(text):
    print(text, flush=True)
def connect_all():
    poll, waiting = select.epoll(), {}
    for i in range(count):
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        sock.bind((address, 0))
        sock.connect_ex((server, port))
        socks.append(sock)
        waiting[sock.fileno()] = sock
        poll.register(sock.fileno(), select.EPOLLOUT)
        while len(waiting) >= 32 or (waiting and i == count - 1):
            for fd, _ in poll.poll():
                error = waiting[fd].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    sys.exit(f"connect: {errno.errorcode[error]}")
                poll.unregister(fd)
                del waiting[fd]
    poll.close()
connect_all()
say("connected")
for line in sys.stdin:
    word, _, rest = line.partition(" ")
    if word == "echo":
        for number in map(int, rest.split()):
            socks[number].setblocking(True)
            socks[number].sendall(b"x" * 64)
            assert len(socks[number].recv(64, socket.MSG_WAITALL)) == 64
        say("echoed")
    elif word == "close\\n":
        while socks:
            socks.pop().close()
        say("closed")
        break
"""


class Service:
    """An echo service that keeps nothing of a connection that idles."""

    def __init__(self, ports: list[int]) -> None:
        core = StackConfig().core
        core = replace(core, arena_bytes=2 << 30, somaxconn=65535)
        wire = TapWire(TAP)
        self.stack = Stack(StackConfig(core=core), rng=random.Random(), now_us=monotonic_us())
        self.stack.add_igb(wire, address=parse_interface(f"{SERVER}/13"))
        self._ready: dict[int, InetSocket] = {}
        """Connections with something to read, by handle: each once, however often it is told."""
        self._buffer = bytearray(65536)
        self.listeners = [self._listen(port) for port in ports]

    def _listen(self, port: int) -> InetSocket:
        lsk = self.stack.socket()
        lsk.bind(parse_ipv4(SERVER), port)
        lsk.set_upcall(lambda sock, _events: self._ready.setdefault(sock.handle, sock))
        lsk.listen(65535)
        return lsk

    def turn(self) -> None:
        """Let the stack work, then serve whoever has something."""
        stack, ready = self.stack, self._ready
        busy = stack.poll(monotonic_us())
        for lsk in self.listeners:
            while lsk.poll():
                lsk.accept()
        for lsk in self.listeners:
            ready.pop(lsk.handle, None)
        for sock in ready.values():
            self._serve(sock)
        ready.clear()
        if not busy:
            time.sleep(0.0002)

    def _serve(self, sock: InetSocket) -> None:
        try:
            count = sock.recv_into(self._buffer)
            if count:
                sock.send(memoryview(self._buffer)[:count])
            else:
                sock.close()
        except BlockingIOError:
            pass
        except OSError:
            sock.close()

    def until(self, done: Any, what: str) -> float:
        """Turn until ``done()``; return how many seconds it took."""
        began = time.monotonic()
        turns = 0
        while turns % 32 or not done():
            self.turn()
            turns += 1
            if time.monotonic() - began > PATIENCE_S:
                raise LabError(f"{what}: not within {PATIENCE_S:g} s")
        return time.monotonic() - began

    def slabs(self) -> dict[str, int]:
        """Return the objects in use by cache."""
        return {name: info.active_objs for name, info in self.stack.memory_info().items()}


class Client:
    """One process of clients."""

    def __init__(self, ns: Namespace, number: int, plan: str, count: int) -> None:
        address = f"10.0.{number // 200}.{1 + number % 200}" if plan == "A" else "10.0.0.1"
        port = PORT if plan == "A" else PORT + number
        self.count = count
        self._process = ns.start(
            sys.executable, "-c", CLIENT, address, SERVER, str(port), str(count),
            stdin=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def tell(self, line: str) -> None:
        """Give an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def says(self, word: str) -> bool:
        """Whether it has said ``word``, and nothing else."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line and line.strip() != word:
            raise LabError(f"a client: {line.strip()}")
        return bool(line)


def run(chosen: argparse.Namespace) -> dict[str, Any]:
    """Run the chosen plans, each in a process of its own: it lives in the namespace."""
    import json

    answer: dict[str, Any] = {}
    for plan in chosen.plan:
        command = [sys.executable, __file__, plan, str(chosen.connections)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"plan {plan}: {done.stderr.strip()[-2000:]}")
        answer[plan] = json.loads(done.stdout)
    return answer


def table(answer: dict[str, Any]) -> Table:
    """Lay the plans out side by side."""
    out = Table("", title="million: connections from Linux to a service", title_justify="left")
    for plan in answer:
        out.add_column(f"plan {plan}", justify="right")
    rows = next(iter(answer.values()))
    for name in rows:
        cells = [found[name] for found in answer.values()]
        out.add_row(name, *(f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells))
    return out


def measure(plan: str, connections: int) -> dict[str, Any]:
    """Open, echo, close; return the figures by name."""
    with Namespace("million") as ns, _inside(ns):
        counts = [PER_CLIENT] * (connections // PER_CLIENT)
        if connections % PER_CLIENT:
            counts.append(connections % PER_CLIENT)
        ports = [PORT] if plan == "A" else [PORT + i for i in range(len(counts))]
        service = Service(ports)
        _prepare(ns, len(counts))
        return _measure(ns, service, plan, counts)


@contextlib.contextmanager
def _inside(ns: Namespace) -> Iterator[None]:
    """Let this process live in ``ns``, and leave it before it is taken down."""
    with open("/proc/self/ns/net", "rb") as outside, open(f"/run/netns/{ns.name}", "rb") as inside:
        _setns(inside.fileno())
        try:
            yield
        finally:
            _setns(outside.fileno())


def _setns(fd: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _prepare(ns: Namespace, clients: int) -> None:
    ns.output("ip", "link", "set", TAP, "up", "txqueuelen", "20000")  # all clients close at once
    for number in range(clients):
        address = f"10.0.{number // 200}.{1 + number % 200}/13"
        ns.output("ip", "addr", "add", address, "dev", TAP)
    ns.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
    ns.sysctl("net.ipv4.tcp_fin_timeout", 5)


def _measure(ns: Namespace, service: Service, plan: str, counts: list[int]) -> dict[str, Any]:
    stack = service.stack
    total = sum(counts)
    before, rss = service.slabs(), rss_bytes()
    began = time.monotonic()
    clients = []
    costs = {}
    for number, count in enumerate(counts):
        clients.append(Client(ns, number, plan, count))
    for mark in sorted({min(mark, total) for mark in MARKS}):
        service.until(lambda mark=mark: len(stack.tcp.ehash) >= mark, f"{mark} connections")
        costs[mark] = round(time.monotonic() - began, 2)
    for client in clients:
        service.until(lambda client=client: client.says("connected"), "connecting")
    opened_s = time.monotonic() - began
    service.until(_after(1.5), "idling")
    found: dict[str, Any] = {
        "connections": len(stack.tcp.ehash),
        "seconds to open": opened_s,
        "connections/s": total / opened_s,
        "bytes each (RSS)": (rss_bytes() - rss) / total,
        "Python objects": len(stack.tcp.socks),
    }
    found |= {f"seconds to {mark}": at_s for mark, at_s in costs.items()}
    found |= {f"slab {name}": count for name, count in service.slabs().items()}
    found |= _echoes(service, clients, 1000, "1000 at random")
    found |= _echoes(service, clients, 64, "64, first", again=1)
    found |= _echoes(service, clients, 64, "64, active", again=20)
    began = time.monotonic()
    for client in clients:
        client.tell("close")
    service.until(lambda: not len(stack.tcp.ehash), "closing")
    found["seconds to close"] = time.monotonic() - began
    service.until(_after(0.5), "settling")
    after = service.slabs()
    found["slabs as before"] = after == before
    found["objects at the end"] = len(stack.tcp.socks)
    return found


def _after(seconds: float) -> Any:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _echoes(
    service: Service, clients: list[Client], count: int, name: str, again: int = 1
) -> dict[str, float]:
    """Have ``count`` connections echo in turn; return what a round trip takes."""
    rng = random.Random(count)
    numbers: dict[Client, list[int]] = {}
    for _ in range(count):
        client = rng.choice(clients)
        numbers.setdefault(client, []).append(rng.randrange(client.count))
    spent = time.process_time()
    for client, some in numbers.items():
        client.tell("echo " + " ".join(map(str, some * again)))
        service.until(lambda client=client: client.says("echoed"), "echoing")
    spent = time.process_time() - spent
    return {f"us a round trip, {name}": 1e6 * spent / (count * again)}


if __name__ == "__main__":
    import json

    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
