"""bind(), listen() and connect() in random order: the kernel and ustack say the same."""

from __future__ import annotations

import errno
import json
import random
import subprocess
from typing import Any

import pytest

from kit.host import TEST_CONFIG, host
from kit.lab import Namespace

ADDRESSES = ["0.0.0.0", "127.0.0.1", "10.0.0.2"]
PORTS = [5000, 5001]
SOL_SOCKET, SO_REUSEADDR, SO_REUSEPORT = 1, 2, 15
Step = tuple[str, int, Any]

PLAYER = """
import errno, json, socket, sys
socks = {}
out = []
for name, n, value in json.loads(sys.stdin.read()):
    sk = socks.get(n)
    try:
        if name == "new":
            socks[n] = socket.socket()
            socks[n].setblocking(False)
            if value & 1: socks[n].setsockopt(1, 2, 1)
            if value & 2: socks[n].setsockopt(1, 15, 1)
        elif name == "set":
            sk.setsockopt(1, value[0], value[1])
        elif name == "bind":
            sk.bind((value[0], value[1]))
        elif name == "listen":
            sk.listen(5)
        elif name == "connect":
            sk.connect((value[0], value[1]))
        elif name == "close":
            sk.close()
        out.append(0)
    except OSError as e:
        out.append(e.errno)
print(json.dumps(out))
"""


def scenario(seed: int, length: int = 40) -> list[Step]:
    """A random life of up to six sockets; connections go where nobody is."""
    rng = random.Random(seed)
    alive: list[int] = []
    steps: list[Step] = []
    for n in range(length):
        kind = rng.choice(["new", "bind", "bind", "listen", "set", "close", "connect"])
        if kind == "new" or not alive:
            if len(alive) < 6:
                alive.append(n)
                steps.append(("new", n, rng.randrange(4)))
                steps.append(("bind", n, (rng.choice(ADDRESSES), rng.choice(PORTS))))
            continue
        sk = rng.choice(alive)
        value: Any = None
        if kind == "bind":
            value = (rng.choice(ADDRESSES), rng.choice(PORTS))
        elif kind == "set":
            value = (rng.choice([SO_REUSEADDR, SO_REUSEPORT]), rng.randrange(2))
        elif kind == "connect":
            value = ("10.0.0.9", 80)
        elif kind == "close":
            alive.remove(sk)
        steps.append((kind, sk, value))
    return steps


def by_kernel(ns: Namespace, steps: list[Step]) -> list[int]:
    """What Linux returns."""
    run = ns.run("python3", "-c", PLAYER, input=json.dumps(steps))
    assert isinstance(run, subprocess.CompletedProcess)
    return list(json.loads(run.stdout))


def by_ustack(steps: list[Step]) -> list[int]:
    """What our stack returns."""
    h = host(TEST_CONFIG)
    socks: dict[int, Any] = {}
    out = []
    for name, n, value in steps:
        try:
            if name == "new":
                sk = socks[n] = h.socket()
                for bit, option in ((1, SO_REUSEADDR), (2, SO_REUSEPORT)):
                    if value & bit:
                        sk.setsockopt(SOL_SOCKET, option, 1)
            elif name == "set":
                socks[n].setsockopt(SOL_SOCKET, *value)
            elif name in ("bind", "connect"):
                addr = int.from_bytes(bytes(map(int, value[0].split("."))), "big")
                getattr(socks[n], name)(addr, value[1])
            elif name == "listen":
                socks[n].listen(5)
            else:
                socks[n].close()
            out.append(0)
        except OSError as error:
            out.append(error.errno or 0)
    return out


@pytest.fixture(scope="module")
def ns() -> Any:
    with Namespace("bind") as space:
        space.output("ip", "tuntap", "add", "d0", "mode", "tap")
        space.output("ip", "addr", "add", "10.0.0.2/24", "dev", "d0")
        space.output("ip", "link", "set", "d0", "up")
        yield space


@pytest.mark.parametrize("seed", range(40))
def test_random_lives_of_sockets_end_alike(ns: Namespace, seed: int):
    steps = scenario(seed)
    kernel, ours = by_kernel(ns, steps), by_ustack(steps)
    for step, theirs, own in zip(steps, kernel, ours, strict=True):
        names = [errno.errorcode.get(e, str(e)) for e in (theirs, own)]
        assert theirs == own, f"{step}: Linux {names[0]}, ustack {names[1]}"
