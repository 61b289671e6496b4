"""Run as a program in a namespace: a stack on a TAP pings the kernel beside it.

``ping_host.py TAP vnet|bare``: prints one JSON object of what was seen.
"""

from __future__ import annotations

import json
import random
import select
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

from ustack.config import NicConfig, StackConfig
from ustack.ipv4.ping import Echo
from ustack.lib.addresses import parse_interface, parse_ipv4
from ustack.nic.tap import TapWire
from ustack.stack import Stack

HOST = parse_ipv4("10.0.0.1")
NOBODY = parse_ipv4("10.0.0.9")
SIZES = [0, 1, 56, 1472, 1473, 4000, 65_000, 65_507]


def now_us() -> int:
    """Stack time."""
    return time.monotonic_ns() // 1000


def run(stack: Stack, echoes: list[Echo], limit_s: float = 60.0) -> None:
    """Drive the stack until every request has its result."""
    end_us = now_us() + int(limit_s * 1e6)
    while not all(echo.done for echo in echoes) and now_us() < end_us:
        if not stack.poll(now_us()):
            due_us = stack.next_deadline_us()
            wait_s = 0.1 if due_us is None else max(0, min(due_us - now_us(), 100_000)) / 1e6
            select.select(stack.filenos(), [], [], wait_s)


def main(name: str, mode: str) -> None:
    """Ping the host with every size, then somebody who is not there."""
    wire = TapWire(name, vnet_hdr=mode == "vnet")
    for command in (f"address add 10.0.0.1/24 dev {name}", f"link set {name} up"):
        subprocess.run(["ip", *command.split()], check=True)
    config = StackConfig()
    if mode == "bare":
        nic = NicConfig(rx_checksum=False, tx_checksum=False, tso=False, large_receive=False)
        config = replace(config, nic=nic)
    stack = Stack(config, rng=random.Random(1), now_us=now_us())
    stack.add_igb(wire, address=parse_interface("10.0.0.2/24"))
    ping = stack.ip.icmp.ping
    seen: dict[str, Any] = {"intact": [], "ttl": set()}
    for seq, size in enumerate(SIZES):
        payload = random.Random(seq).randbytes(size)
        stack.clock.now_us = now_us()
        echo = ping.send_echo(HOST, ident=7, seq=seq, payload=payload, timeout_us=30_000_000)
        run(stack, [echo])
        if echo.intact and echo.reply_bytes == size + 8:
            seen["intact"].append(size)
        seen["ttl"].add(echo.ttl)
    stack.clock.now_us = now_us()
    burst = [ping.send_echo(HOST, seq=n, size=3000, timeout_us=30_000_000) for n in range(20)]
    run(stack, burst)
    seen["burst"] = sum(echo.intact for echo in burst)
    stack.clock.now_us = now_us()
    lost = ping.send_echo(NOBODY)
    run(stack, [lost])
    seen |= {"lost": lost.error, "ttl": sorted(seen["ttl"])}
    mib = stack.net.mib
    seen["counters"] = {
        "OutEchos": mib.icmp.OutEchos,
        "InEchoReps": mib.icmp.InEchoReps,
        "ReasmOKs": mib.ip.ReasmOKs,
        "ReasmFails": mib.ip.ReasmFails,
        "FragOKs": mib.ip.FragOKs,
    }
    stack.close()
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
