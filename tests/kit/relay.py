"""Run as a program in a namespace: two TAPs, and the bottleneck between them in real time.

``relay.py PATH SEED FAR_NAMESPACE``: makes ``tap0`` here and ``tap1`` in the other namespace, sets
them up (10.0.7.1 and 10.0.7.2), prints "ready" and shuttles frames until killed; then it prints
one JSON object of what it did. Data flows from ``tap1`` to ``tap0``. It has real-time priority:
a frame that waits for the relay has a longer path than was asked for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from types import FrameType
from typing import NoReturn

from kit.bottleneck import Path, chance
from ustack.lib.clock import StackClock
from ustack.native.lib import lib
from ustack.nic.impair import ImpairedWire
from ustack.nic.tap import TapWire
from ustack.nic.wire import Wire
from ustack.nic.wrapped import earlier

HERE, THERE = "10.0.7.1", "10.0.7.2"


class Relay:
    """Two wires, each with what goes out of it impaired."""

    def __init__(self, here: Wire, there: Wire, path: Path, seed: int) -> None:
        self.clock = StackClock()
        self.down = ImpairedWire(here, self.clock, chance(seed, 0), **asdict(path.there))
        self.up = ImpairedWire(there, self.clock, chance(seed, 1), **asdict(path.back))
        self.frames = 0
        self.longest = 0
        self.late_us = 0
        """The longest that a frame was late."""

    def run(self) -> NoReturn:
        """Shuttle frames for ever."""
        fds = self.down.fileno(), self.up.fileno()
        while True:
            now_us = self.clock.now_us = time.monotonic_ns() // 1000
            for wire in (self.down, self.up):
                due_us = wire.next_deadline_us()
                if due_us is not None and due_us <= now_us:
                    self.late_us = max(self.late_us, now_us - due_us)
                    wire.flush(now_us)
            self._shuttle(self.up, self.down)
            self._shuttle(self.down, self.up)
            due_us = earlier(self.down.next_deadline_us(), self.up.next_deadline_us())
            left_us = -1 if due_us is None else due_us - time.monotonic_ns() // 1000
            if due_us is None or left_us > 0:
                lib.us_wait(*fds, 0, left_us)

    def _shuttle(self, source: Wire, sink: Wire) -> None:
        while (unit := source.recv_frame()) is not None:
            self.frames += 1
            self.longest = max(self.longest, len(unit) - 10)
            sink.send_frame(unit)

    def report(self) -> dict[str, int]:
        """Return what happened so far."""
        down = self.down
        return {
            "frames": self.frames, "longest": self.longest, "late_us": self.late_us,
            "lost": down.lost, "reordered": down.reordered, "overlimits": down.overlimits,
        }  # fmt: skip


def ip(command: str) -> None:
    """Run ip."""
    subprocess.run(["ip", *command.split()], check=True)


def plugged(name: str, address: str, namespace: str = "") -> TapWire:
    """Make a TAP, which carries no super-frames without virtio headers, and set it up."""
    wire = TapWire(name, vnet_hdr=False)
    where = ""
    if namespace:
        ip(f"link set {name} netns {namespace}")
        where = f"-n {namespace} "
    ip(f"{where}addr add {address}/24 dev {name}")
    ip(f"{where}link set {name} up")
    return wire


def main(path: str, seed: str, far: str) -> None:
    """Join the namespaces."""
    relay = Relay(plugged("tap0", HERE), plugged("tap1", THERE, far), Path.parse(path), int(seed))

    def stop(signum: int, frame: FrameType | None) -> None:
        print(json.dumps(relay.report()), flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))
    print("ready", flush=True)
    relay.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
