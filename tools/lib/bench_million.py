"""The million part of the bench: connections from Linux clients to a service on ustack.

A namespace of its own, a TAP in it, the stack in this process and some 53 client processes
(``crowd.c``; 19,000 sockets each: a process may have 20,000 descriptors here). Plan A: many
client addresses and one server port. Plan B: one client address and many server ports. With
1,000, 100,000 and all of them open, the processor time of a round trip is taken on 64 of them
and over all, and that of a connection more; then all close.
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
from select import EPOLLIN
from typing import Any

from compiling import compile_program
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
"""How many are open when costs are taken."""
CLONE_NEWNET = 0x40000000
PATIENCE_S = 600.0


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
        lsk.listen(65535)
        return lsk

    def _accept(self, lsk: InetSocket) -> None:
        sock = lsk.accept()
        sock.set_upcall(self._is_ready)
        if sock.poll() & EPOLLIN:
            self._is_ready(sock, EPOLLIN)

    def _is_ready(self, sock: InetSocket, _events: int) -> None:
        self._ready.setdefault(sock.handle, sock)

    def turn(self) -> None:
        """Let the stack work, then serve whoever has something."""
        stack, ready = self.stack, self._ready
        busy = stack.poll(monotonic_us())
        for lsk in self.listeners:
            while lsk.poll():
                self._accept(lsk)
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

    def __init__(self, ns: Namespace, program: str, number: int, plan: str) -> None:
        address = f"10.0.{number // 200}.{1 + number % 200}" if plan == "A" else "10.0.0.1"
        port = PORT if plan == "A" else PORT + number
        self.open = 0
        self._process = ns.start(
            program, address, SERVER, str(port), stdin=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def tell(self, line: str) -> None:
        """Give an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def is_done(self) -> bool:
        """Whether it has carried out an order since it was last asked."""
        assert self._process.stdout is not None
        if self._process.poll() is not None:
            raise LabError("a client has ended")
        return bool(self._process.stdout.readline())


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
        program = compile_program("crowd", ns.folder)
        crowd = -(-connections // PER_CLIENT)
        ports = [PORT] if plan == "A" else [PORT + i for i in range(crowd)]
        service = Service(ports)
        _prepare(ns, crowd)
        clients = [Client(ns, program, number, plan) for number in range(crowd)]
        return _measure(service, clients, connections)


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
    ns.output("ip", "link", "set", TAP, "up", "txqueuelen", "20000")
    for number in range(clients):
        address = f"10.0.{number // 200}.{1 + number % 200}/13"
        ns.output("ip", "addr", "add", address, "dev", TAP)
    ns.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
    ns.sysctl("net.ipv4.tcp_fin_timeout", 5)


def _measure(service: Service, clients: list[Client], total: int) -> dict[str, Any]:
    stack = service.stack
    before, rss = service.slabs(), rss_bytes()
    opened_s = 0.0
    costs: dict[str, float] = {}
    for mark in sorted({min(mark, total) for mark in MARKS}):
        opened_s += _open_up_to(service, clients, mark)
        costs[f"seconds to {mark:,}"] = opened_s
        if mark == total:
            service.until(_after(1.5), "idling")
            memory = _memory(service, rss)
        costs |= _costs(service, clients, f"{mark:,} open")
    closed_s = sum(_order(service, {client: "close"}) for client in clients)
    closed_s += service.until(lambda: not len(stack.tcp.ehash), "closing")
    service.until(_after(0.5), "settling")
    return {
        "connections": total,
        "seconds to open": opened_s,
        "connections/s": total / opened_s,
        **memory,
        **costs,
        "seconds to close": closed_s,
        "slabs as before": service.slabs() == before,
        "Python objects at the end": len(stack.tcp.socks),
    }


def _memory(service: Service, rss: int) -> dict[str, float]:
    tcp = service.stack.tcp
    found: dict[str, float] = {
        "bytes each (RSS)": (rss_bytes() - rss) / len(tcp.ehash),
        "Python objects": len(tcp.socks),
    }
    return found | {f"slab {name}": count for name, count in service.slabs().items()}


def _after(seconds: float) -> Any:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _order(service: Service, lines: dict[Client, str]) -> float:
    """Have clients carry out a line each, all at once; return how many seconds it took."""
    for client, line in lines.items():
        client.tell(line)
    waiting = list(lines)

    def done() -> bool:
        waiting[:] = [client for client in waiting if not client.is_done()]
        return not waiting

    return service.until(done, next(iter(lines.values())))


def _open_up_to(service: Service, clients: list[Client], mark: int) -> float:
    """Open connections until there are ``mark``, the clients one after the other in number."""
    lines = {}
    missing = mark - sum(client.open for client in clients)
    for client in clients:
        more = min(missing, PER_CLIENT - client.open)
        if more:
            lines[client] = f"open {more}"
            client.open += more
            missing -= more
    return _order(service, lines)


def _costs(service: Service, clients: list[Client], when: str) -> dict[str, float]:
    """Return the processor time, in microseconds, of what one does among many."""
    crowd = [client for client in clients if client.open]
    some = -(-1000 // len(crowd))
    orders = {
        "round trip, random": ({client: f"echo {some} 1" for client in crowd}, some * len(crowd)),
        "round trip, 64 active": ({crowd[0]: "echo 64 200"}, 64 * 200),
        "connection more": ({crowd[0]: "churn 1000"}, 1000),
    }
    found = {}
    for name, (lines, count) in orders.items():
        spent = time.process_time()
        _order(service, lines)
        spent = time.process_time() - spent
        found[f"us a {name}, {when}"] = 1e6 * spent / count
    return found


if __name__ == "__main__":
    import json

    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
