"""UDP across a TAP: nc and a Python program on Linux's side, the stack's sockets on ours."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kit.lab import Namespace

PROGRAM = Path(__file__).with_name("udp_program.py")
PEER = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(30)
sock.connect(("10.0.8.2", 7))
for size in (0, 1, 1472, 1473, 20000, 65507):
    sock.send(bytes([size % 251]) * size)
    print(len(sock.recv(70000)))
sock.send(b"end")
closed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
closed.settimeout(30)
closed.connect(("10.0.8.2", 9))
closed.send(b"x")
try:
    closed.recv(1)
except ConnectionRefusedError:
    print("refused")
"""


def test_datagrams_of_every_size_go_both_ways(ns: Namespace):
    server = ns.start(sys.executable, str(PROGRAM), "tap8", text=True)
    assert server.stdout is not None
    assert server.stdout.readline().strip() == "ready"
    answer = ns.run("nc", "-u", "-w", "1", "10.0.8.2", "7", input="from nc")
    assert answer.stdout == "from nc"
    lines = ns.output(sys.executable, "-c", PEER).split()
    assert lines == ["0", "1", "1472", "1473", "20000", "65507", "refused"]
    assert json.loads(server.stdout.readline()) == {
        "served": 7, "closed": "ECONNREFUSED", "ping": 5008, "raw": 1,
        "InDatagrams": 8, "InCsumErrors": 0,
    }  # fmt: skip
    assert server.wait(60) == 0
