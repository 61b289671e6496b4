"""Run as a program: one end of a measured conversation on Linux's own sockets.

``traffic.py MODE ADDRESS PORT [SECONDS]``. Clients print one JSON object: ``send`` fills the
connection for a while, ends it and waits until the server has read it all; ``receive`` reads;
``fetch`` reads too, but its time begins with connect(); ``pingpong`` bounces 64 bytes. Servers
(``discard``, ``chargen``, ``echo``) print "ready".
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from typing import Any

CHUNK = 1 << 18


def pin(cpu: int) -> None:
    """Run on one processor, if there are two."""
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[cpu % len(cpus)]})


def send(sk: Any, seconds: float) -> dict[str, float]:
    """Send zeros for ``seconds``; the clock stops when the server has closed."""
    data = bytes(CHUNK)
    begin = time.perf_counter()
    total = 0
    while time.perf_counter() - begin < seconds:
        sk.sendall(data)
        total += CHUNK
    sk.shutdown(socket.SHUT_WR)
    while sk.recv(CHUNK):
        pass
    return {"bytes": total, "seconds": time.perf_counter() - begin}


def receive(sk: Any, seconds: float) -> dict[str, float]:
    """Read whatever comes for ``seconds`` after the first byte."""
    buffer = bytearray(CHUNK)
    sk.recv_into(buffer)
    begin = time.perf_counter()
    total = 0
    while (now := time.perf_counter()) - begin < seconds:
        got = sk.recv_into(buffer)
        if not got:
            break
        total += got
    return {"bytes": total, "seconds": now - begin}


def fetch(address: tuple[str, int], seconds: float) -> dict[str, float]:
    """Connect and read whatever comes; the time runs from connect()."""
    buffer = bytearray(CHUNK)
    begin = time.perf_counter()
    total = 0
    with (
        socket.create_connection(address, timeout=seconds) as sk,
        contextlib.suppress(TimeoutError),
    ):
        while (left := begin + seconds - time.perf_counter()) > 0:
            sk.settimeout(left)
            total += sk.recv_into(buffer)
    return {"bytes": total, "seconds": seconds}


def pingpong(sk: Any, seconds: float) -> dict[str, float]:
    """Bounce 64 bytes; the times are of single round trips, in microseconds."""
    sk.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = bytes(64)
    times: list[float] = []
    begin = time.perf_counter()
    while (start := time.perf_counter()) - begin < seconds:
        sk.sendall(data)
        left = 64
        while left:
            left -= len(sk.recv(left))
        times.append(time.perf_counter() - start)
    times = sorted(times[len(times) // 10 :])
    return {
        "p50_us": times[len(times) // 2] * 1e6,
        "p99_us": times[len(times) * 99 // 100] * 1e6,
        "round_trips": len(times),
    }


def discard(sk: Any) -> None:
    """Read to the end."""
    buffer = bytearray(CHUNK)
    while sk.recv_into(buffer):
        pass


def chargen(sk: Any) -> None:
    """Send until the client has had enough."""
    data = bytes(CHUNK)
    while True:
        sk.sendall(data)


def echo(sk: Any) -> None:
    """Send back what comes."""
    sk.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := sk.recv(65536):
        sk.sendall(data)


def serve(module: Any, mode: str, address: str, port: int) -> None:
    """Serve one connection after the other on ``module``'s sockets, until killed."""
    handler = {"discard": discard, "chargen": chargen, "echo": echo}[mode]
    lsk = module.create_server((address, port))
    print("ready", flush=True)
    while True:
        sk, _ = lsk.accept()
        with sk, contextlib.suppress(ConnectionError):
            handler(sk)


def main(mode: str, address: str, port: str, seconds: str = "1") -> None:
    """Be a server or a client."""
    if mode in ("discard", "chargen", "echo"):
        pin(0)
        serve(socket, mode, address, int(port))
    pin(1)
    if mode == "fetch":
        print(json.dumps(fetch((address, int(port)), float(seconds))))
        return
    client = {"send": send, "receive": receive, "pingpong": pingpong}[mode]
    with socket.create_connection((address, int(port)), timeout=20) as sk:
        print(json.dumps(client(sk, float(seconds))))


if __name__ == "__main__":
    main(*sys.argv[1:])
