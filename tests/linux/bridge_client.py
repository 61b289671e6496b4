"""Run as a program in a namespace: a stack of its own, client of other stacks' echo service.

``bridge_client.py TAP ADDRESS on|off BYTES SERVER ...``: sends BYTES to each server's port 7 and
receives them again, both at once; prints one JSON object of what each has given back.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import threading

import ustack
from ustack import socket
from ustack.config import NicConfig, StackConfig


def echo(server: str, total: int) -> bool:
    """Send ``total`` bytes and read them back; whether they are the same."""
    data = random.Random(server).randbytes(1 << 20)
    want, have = hashlib.sha256(), hashlib.sha256()
    with socket.create_connection((server, 7), timeout=120) as sk:

        def send() -> None:
            for start in range(0, total, len(data)):
                piece = data[: total - start]
                want.update(piece)
                sk.sendall(piece)
            sk.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        received = 0
        while piece := sk.recv(1 << 16):
            have.update(piece)
            received += len(piece)
        sender.join()
    return received == total and want.digest() == have.digest()


def main(tap: str, address: str, offloads: str, total: str, *servers: str) -> None:
    """Bring a stack up, fetch from each server, take it down."""
    on = offloads == "on"
    nic = NicConfig(rx_checksum=on, tx_checksum=on, tso=on, large_receive=on)
    handle = ustack.up(tap=tap, address=f"{address}/24", config=StackConfig(nic=nic))
    seen = {server: echo(server, int(total)) for server in servers}
    mac = handle.stack.net.devices["eth0"].dev_addr
    print(json.dumps({"same": seen, "mac": mac.hex(":")}))
    ustack.down()


if __name__ == "__main__":
    main(*sys.argv[1:])
