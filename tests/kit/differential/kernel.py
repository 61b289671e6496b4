"""Run as a program in a namespace: plays scripts against the kernel's TCP, many at a time.

The program is the peer behind a TAP (it answers ARP itself and forges every frame) and also
the application that makes the socket calls. A line of JSON on stdin is a batch of scripts'
texts, a line on stdout what happened: calls' results and the host's segments, each with the
time since the event before it. A script that the machine made late is marked.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import pytun

from kit.differential.app import App
from kit.differential.conversation import Conversation
from kit.differential.script import Script, parse
from kit.segment import build_ip, parse_ip
from ustack.lib.addresses import format_ipv4, parse_ipv4

PEER, HOST = parse_ipv4("10.0.0.1"), parse_ipv4("10.0.0.2")
PEER_MAC = bytes.fromhex("020000000001")
HOST_MAC = bytes.fromhex("020000000002")
POLL_EVENTS = 0x27DF
"""Every one there is; of them ERR and HUP would come unasked."""


class KernelSocket:
    """A kernel socket with InetSocket's interface."""

    def __init__(self, sock: socket.socket | None = None) -> None:
        self._sock = sock or socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._sock.setblocking(False)
        self.send, self.recv = self._sock.send, self._sock.recv
        self.shutdown, self.listen = self._sock.shutdown, self._sock.listen
        self.setsockopt, self.getsockopt = self._sock.setsockopt, self._sock.getsockopt

    def bind(self, addr: int, port: int) -> None:
        self._sock.bind((format_ipv4(addr), port))

    def connect(self, addr: int, port: int) -> None:
        self._sock.connect((format_ipv4(addr), port))

    def accept(self) -> KernelSocket:
        return KernelSocket(self._sock.accept()[0])

    def getsockname(self) -> Any:
        return self._sock.getsockname()

    def close(self) -> None:
        self._sock.close()

    def poll(self) -> int:
        poller = select.poll()
        poller.register(self._sock, POLL_EVENTS)
        return next((mask for _, mask in poller.poll(0)), 0)

    def abort(self) -> None:
        """End whatever is left of it at once."""
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()


@dataclass
class Play:
    """One script being played."""

    script: Script
    app: App
    peers: dict[str, Conversation]
    start_s: float
    event_s: float = 0.0
    late_ms: float = 0.0
    log: list[tuple[str, float, float, str]] = field(default_factory=list)

    def note(self, kind: str, text: str, now_s: float) -> None:
        """Remember an event: when, and how long after the last one that was ours, in ms."""
        since_start, since_event = now_s - self.start_s, now_s - self.event_s
        self.log.append((kind, since_start * 1000, since_event * 1000, text))


class Player:
    """The TAP and everything that is being played over it."""

    def __init__(self, name: str) -> None:
        self.tap = pytun.TunTapDevice(name=name, flags=pytun.IFF_TAP | pytun.IFF_NO_PI)
        self.fd = self.tap.fileno()
        os.set_blocking(self.fd, False)
        fcntl.fcntl(self.fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        link = f"link set {name} address 02:00:00:00:00:02 up"
        for command in (link, f"addr add 10.0.0.2/24 dev {name}",
                        f"neigh add 10.0.0.1 lladdr 02:00:00:00:00:01 dev {name}"):  # fmt: skip
            subprocess.run(["ip", *command.split()], check=True)
        self.by_port: dict[int, tuple[Play, Conversation]] = {}
        self.count = 0

    def batch(self, scripts: list[Script], spread_s: float) -> list[dict[str, Any]]:
        """Play all of them, their starts spread over ``spread_s`` seconds."""
        begin = time.monotonic() + 0.05
        plays = [
            self._play(script, begin + spread_s * i / len(scripts))
            for i, script in enumerate(scripts)
        ]
        due = [
            (play.start_s + step.at_ms / 1000, i, j)
            for i, play in enumerate(plays)
            for j, step in enumerate(play.script.steps)
        ]
        due += [(p.start_s + p.script.end_ms / 1000, i, -1) for i, p in enumerate(plays)]
        heapq.heapify(due)
        while due:
            now = time.monotonic()
            if due[0][0] > now:
                select.select([self.fd], [], [], due[0][0] - now)
                self._receive()
                continue
            self._receive()
            when, i, j = heapq.heappop(due)
            self._step(plays[i], j, when)
            self._receive()
        return [{"log": p.log, "late_ms": p.late_ms} for p in plays]

    def _play(self, script: Script, start_s: float) -> Play:
        n = self.count = self.count + 1
        host_port, first = 1024 + n % 30_000, 1024 + 4 * n % 60_000
        peers = {
            name: Conversation(PEER, first + k, HOST, host_port, script.iss + 77_777 * k)
            for k, name in enumerate("abcd")
        }
        app = App(KernelSocket, host_port, PEER, first)
        play = Play(script, app, peers, start_s, start_s)
        for peer in peers.values():
            self.by_port[peer.port] = (play, peer)
        return play

    def _step(self, play: Play, index: int, when: float) -> None:
        now = time.monotonic()
        play.late_ms = max(play.late_ms, (now - when) * 1000)
        if index < 0:
            self._end(play)
            return
        step = play.script.steps[index]
        play.event_s = now
        if step.kind == "send":
            peer = play.peers[step.peer]
            packet = build_ip(peer.segment(step.text))
            play.note(f"{step.peer}>", step.text, now)
            os.write(self.fd, HOST_MAC + PEER_MAC + b"\x08\x00" + packet)
        else:
            play.note("call", f"{step.text} = {play.app.call(step.text)}", now)

    def _end(self, play: Play) -> None:
        for peer in play.peers.values():
            del self.by_port[peer.port]
        for sock in [*play.app.sockets, play.app.listener]:
            if sock is not None:
                sock.abort()

    def _receive(self) -> None:
        while True:
            try:
                frame = os.read(self.fd, 70_000)
            except BlockingIOError:
                return
            now = time.monotonic()
            if frame[12:14] == b"\x08\x00" and frame[23] == 6:
                seg = parse_ip(frame[14:])
                play, peer = self.by_port.get(seg.dport, (None, None))
                if play is not None and peer is not None and peer.takes(seg):
                    play.note("<", peer.describe(seg), now)


def main() -> None:
    """Serve batches until stdin ends, before everybody else who wants the processor."""
    with contextlib.suppress(PermissionError):
        os.nice(-20)
    player = Player("tap0")
    for line in sys.stdin:
        order = json.loads(line)
        scripts = [parse(*script) for script in order["scripts"]]
        print(json.dumps(player.batch(scripts, order["spread_s"])), flush=True)


if __name__ == "__main__":
    main()
