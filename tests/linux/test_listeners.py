"""Listeners as Linux clients meet them: E-ACCQ, E-SYNQ, E-3ACK and E-TFO, in both profiles.

Times are the host's clock: only their order and a generous bound are looked at.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kit.lab import Namespace, stop, wait_for

PROGRAM = __file__.replace("test_listeners", "listener")
TAP = "tap7"
SERVER = "10.0.7.2"
BOTH = pytest.mark.parametrize("profile", ["linux-6", "linux-3.10"])
CONNECT = """
import socket, sys, time
socks = []
for n in range(int(sys.argv[1])):
    sk = socket.socket()
    sk.settimeout(60 if n < int(sys.argv[2]) else 0.4)
    try:
        sk.connect(("10.0.7.2", 80))
    except TimeoutError:
        pass
    socks.append(sk)
ok = 0
for sk in socks:
    try:
        sk.getpeername()
        ok += 1
    except OSError:
        pass
print(ok, flush=True)
sys.stdin.read()
"""
FLOOD = """
import random, socket, struct, sys
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
def csum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
dst = socket.inet_aton("10.0.7.2")
for i in range(int(sys.argv[1])):
    src = bytes((10, 0, 7, 100))
    tcp = struct.pack(">HHIIBBHHHBBH", 20000 + i, 80, i, 0, 0x60, 2, 65535, 0, 0, 2, 4, 1460)
    total = csum(src + dst + struct.pack(">BBH", 0, 6, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack(">H", total) + tcp[18:]
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), i, 0, 64, 6, 0) + src + dst
    raw.sendto(ip + tcp, ("10.0.7.2", 0))
"""
FAST_OPEN = """
import socket, sys
sk = socket.socket()  # blocking: else the first time, without a cookie, is EINPROGRESS
sk.sendto(sys.argv[1].encode(), socket.MSG_FASTOPEN, ("10.0.7.2", 80))
print(sk.recv(100).decode(), flush=True)
"""


Call = Callable[..., Any]


@contextmanager
def listener(ns: Namespace, backlog: int, *settings: str) -> Iterator[Call]:
    """Run the program; yields a function that calls it."""
    child = ns.start(
        sys.executable, PROGRAM, TAP, str(backlog), *settings,
        stdin=subprocess.PIPE, stderr=None, text=True,
    )  # fmt: skip

    def call(*words: Any) -> Any:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(json.dumps(words) + "\n")
        child.stdin.flush()
        return json.loads(child.stdout.readline())

    try:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "ready"
        yield call
    finally:
        stop(child)


def connected(ns: Namespace, count: int, sure: int = 1) -> tuple[Any, int]:
    """Let a Linux client open ``count`` connections; the process, and how many it believes in.

    It has all the time it needs for the first ``sure`` ones.
    """
    child = ns.python(CONNECT, str(count), str(sure), stdin=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, int(child.stdout.readline())


@BOTH
def test_one_connection_more_than_the_backlog_is_established(ns: Namespace, profile: str):
    """Under linux-3.10 two more are let into the SYN queue, whose third ACK is then ignored."""
    with listener(ns, 5, f"net.ustack.profile={profile}") as call:
        room = 6 if profile == "linux-6" else 8
        child, believed = connected(ns, 9, sure=room)
        assert believed == room
        wait_for(lambda: call("queues") == [room - 6, 6, 5], "six to wait")
        counters = wait_for(
            lambda: (c := call("counters")).get("ListenOverflows", 0) >= 3 and c, "three refusals"
        )
        assert counters["ListenOverflows"] == counters["ListenDrops"]
        stop(child)


@BOTH
def test_an_ignored_client_gets_in_once_there_is_room(ns: Namespace, profile: str):
    with listener(ns, 0, f"net.ustack.profile={profile}") as call:
        first = ns.python(FAST_OPEN, "first", text=True)
        wait_for(lambda: call("queues")[1] == 1, "the first to wait")
        second = ns.python(FAST_OPEN, "second", text=True)
        wait_for(lambda: call("counters").get("ListenOverflows"), "the second to be refused")
        assert call("accept", "one")[1] == "first"
        assert call("accept", "two")[1] == "second"
        assert first.stdout is not None and second.stdout is not None
        assert (first.stdout.readline(), second.stdout.readline()) == ("one\n", "two\n")


def test_abort_on_overflow_is_a_reset_for_the_client(ns: Namespace):
    settings = ("net.ustack.profile=linux-3.10", "net.ipv4.tcp_abort_on_overflow=1")
    with listener(ns, 0, *settings) as call:
        child, _ = connected(ns, 1)
        run = ns.run(
            sys.executable, "-c",
            "import socket\n"
            f"try: print(socket.create_connection(('{SERVER}', 80), 60).recv(1))\n"
            "except ConnectionResetError as error: print(error.strerror)\n",
        )  # fmt: skip
        assert run.stdout == "Connection reset by peer\n", run.stderr
        assert call("counters")["EmbryonicRsts"] == 1
        stop(child)


@BOTH
@pytest.mark.parametrize("cookies", [0, 1, 2])
def test_a_flood_of_syns_and_a_client_behind_it(ns: Namespace, profile: str, cookies: int):
    settings = (f"net.ustack.profile={profile}", f"net.ipv4.tcp_syncookies={cookies}")
    with listener(ns, 5, *settings) as call:
        ns.run("ip", "address", "add", "10.0.7.100/24", "dev", TAP)
        ns.run("iptables", "-A", "OUTPUT", "-s", "10.0.7.100", "-p", "tcp", "--tcp-flags", "RST",
               "RST", "-j", "DROP")  # fmt: skip
        ns.output("ip", "address", "del", "10.0.7.100/24", "dev", TAP)
        ns.output("ip", "neigh", "flush", "all")
        ns.output(sys.executable, "-c", FLOOD, "120")
        room = {"linux-6": 6, "linux-3.10": 16}[profile] if cookies < 2 else 0
        wait_for(lambda: call("queues")[0] == room, "the SYN queue to fill")
        counters = wait_for(
            lambda: (
                (c := call("counters"))
                and (c.get("TCPReqQFullDrop", 0) + c.get("TCPReqQFullDoCookies", 0) == 120 - room)
                and c
            ),
            "the flood to be over",
        )
        assert counters.get("SyncookiesSent", 0) == (120 - room if cookies else 0)
        if cookies:
            for _ in range(3):
                child = ns.python(FAST_OPEN, "hello", text=True)
                assert call("accept", "welcome")[1] == "hello"
                assert child.stdout is not None and child.stdout.readline() == "welcome\n"
                if call("counters").get("SyncookiesRecv"):
                    break
                ns.output(sys.executable, "-c", FLOOD, "120")  # its requests have timed out
            assert call("counters")["SyncookiesRecv"] == 1
        else:
            assert counters["ListenDrops"] == 120 - room
            assert "ListenOverflows" not in counters


def test_a_linux_client_opens_fast_the_second_time(ns: Namespace):
    ns.sysctl("net.ipv4.tcp_fastopen", 1)
    ns.run("ip", "tcp_metrics", "flush")
    with listener(ns, 5, "net.ipv4.tcp_fastopen=3") as call:
        call("opt", 6, 23, 5)
        for text in ("one", "two", "three"):
            child = ns.python(FAST_OPEN, text, text=True)
            assert call("accept", text.upper())[1] == text
            assert child.stdout is not None and child.stdout.readline().strip() == text.upper()
        counters = call("counters")
        assert counters["TCPFastOpenCookieReqd"] == 1
        assert counters["TCPFastOpenPassive"] == 2
        assert "TCPFastOpenPassiveFail" not in counters


def test_curls_request_comes_with_its_syn(ns: Namespace):
    ns.sysctl("net.ipv4.tcp_fastopen", 1)
    ns.run("ip", "tcp_metrics", "flush")
    answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    with listener(ns, 5, "net.ipv4.tcp_fastopen=3") as call:
        call("opt", 6, 23, 5)
        for _ in range(2):
            child = ns.start("curl", "-s", "--tcp-fastopen", f"http://{SERVER}/", text=True)
            assert call("accept", answer)[1].startswith("GET / HTTP/1.1")
            assert child.wait(60) == 0
        assert call("counters")["TCPFastOpenPassive"] == 1


@BOTH
def test_a_client_that_says_nothing_is_not_accepted(ns: Namespace, profile: str):
    with listener(ns, 5, f"net.ustack.profile={profile}") as call:
        call("opt", 6, 9, 5)
        child, believed = connected(ns, 1)
        assert believed == 1
        wait_for(lambda: call("counters").get("TCPDeferAcceptDrop"), "its ACK to be dropped")
        assert call("queues")[:2] == [1, 0]
        stop(child)
