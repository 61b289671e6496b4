"""Run as a program in a namespace: an igb adapter on a TAP against a packet socket.

``tap_wire.py TAP vnet|bare [wrapped]``: prints one JSON object of what was seen.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from typing import Any

from ustack.config import StackConfig
from ustack.core.net import Net
from ustack.core.skb import Skb
from ustack.core.softirq import do_softirq
from ustack.driver.igb import IgbAdapter
from ustack.lib.clock import StackClock
from ustack.native.mem import Mem
from ustack.nic.impair import ImpairedWire
from ustack.nic.record import RecordingWire
from ustack.nic.tap import TapWire
from ustack.nic.wire import Wire

MAC = bytes.fromhex("020000000001")
HOST = bytes.fromhex("020000000099")
ETHERTYPE = 0x88B5


def ip(command: str) -> None:
    """Run ip."""
    subprocess.run(["ip", *command.split()], check=True)


def error_of(make: Any, *args: Any) -> int:
    """Return the errno that ``make`` raises, 0 if it succeeds."""
    try:
        make(*args)
    except OSError as error:
        return error.errno or -1
    return 0


def frames(dest: bytes, source: bytes) -> list[bytes]:
    """Return frames of many sizes, each different."""
    head = dest + source + ETHERTYPE.to_bytes(2, "big")
    return [head + size.to_bytes(2, "big") + bytes(size - 16) for size in range(60, 1514, 7)]


def settle(dev: IgbAdapter) -> None:
    """Receive what there is."""
    while dev.poll_hw() or dev.net.softnet.softirq_pending:
        do_softirq(dev.net)


def sent(dev: IgbAdapter, host: socket.socket) -> bool:
    """Whether frames that the adapter sends arrive in the kernel."""
    right = True
    for frame in frames(HOST, MAC):
        dev.ndo_start_xmit(Skb(frame, dev))
        right &= host.recv(2000) == frame
        do_softirq(dev.net)
    return right


def received(dev: IgbAdapter, host: socket.socket) -> bool:
    """Whether frames that the kernel sends arrive in the stack."""
    got: list[bytes] = []
    dev.net.dev_add_pack(ETHERTYPE, lambda skb: got.append(bytes(skb.data)))
    for frame in frames(MAC, HOST):
        host.send(frame)
    settle(dev)
    return got == frames(MAC, HOST)


class Counting:
    """A sink that counts what goes each way."""

    def __init__(self) -> None:
        self.frames = [0, 0]

    def packet(self, ts_us: int, length: int, data: bytes, *, device: str, outgoing: bool) -> None:
        self.frames[outgoing] += length == len(data)


def main(name: str, mode: str, wrapped: str = "") -> None:
    """Play the life of a TAP: down, up, deleted."""
    wire: Wire = TapWire(name, vnet_hdr=mode == "vnet")
    clock, counting = StackClock(), Counting()
    if wrapped:
        wire = RecordingWire(ImpairedWire(wire, clock, random.Random(1)), clock, counting)
        wire = ImpairedWire(wire, clock, random.Random(2), received=True)
    seen: dict[str, Any] = {
        "inherited": os.get_inheritable(wire.fileno()),
        "second open": error_of(TapWire, name),
        "not a tap": error_of(TapWire, "lo"),
    }
    config = StackConfig()
    net = Net(clock, random.Random(1), config, Mem(config.core.arena_bytes))
    dev = IgbAdapter(net, "eth0", wire, MAC, config.nic)
    net.register_netdev(dev)
    net.dev_open(dev)
    seen["features"] = dev.features
    dev.ndo_start_xmit(Skb(frames(HOST, MAC)[0], dev))
    seen["lost while down"] = dev.stats.tx_errors
    ip(f"link set {name} address 02:00:00:00:00:99 up")
    host = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
    host.bind((name, ETHERTYPE))
    host.settimeout(60)
    seen["received"] = received(dev, host)
    seen["sent"] = sent(dev, host)
    ip(f"link delete {name}")
    dev.poll_hw()
    dev.ndo_start_xmit(Skb(frames(HOST, MAC)[0], dev))
    seen |= {"wire error": dev.nic.wire_error, "watched": dev.fileno()}
    seen["lost when gone"] = dev.stats.tx_errors - seen["lost while down"]
    dev.close()
    if wrapped:
        seen["recorded"] = counting.frames
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
