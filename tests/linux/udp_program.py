"""Run as a program in a namespace: UDP, ping and raw sockets of a stack of its own, on a TAP.

Prints "ready", echoes datagrams on port 7 until one says "end", then plays the client.
"""

from __future__ import annotations

import errno
import json
import struct
import sys

import ustack
from ustack import socket
from ustack.config import IpConfig, StackConfig

HOST = "10.0.8.1"
ECHO = struct.pack("!BBHHH", 8, 0, 0, 0, 1) + bytes(5000)


def serve() -> int:
    """Echo until "end"; return how many datagrams there were."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 7))
        print("ready", flush=True)
        count = 0
        while True:
            data, peer = sock.recvfrom(65535)
            if data == b"end":
                return count
            count += 1
            sock.sendto(data, peer)


def closed_port() -> str:
    """Send to a port that nobody has, until that is known."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(30)
        sock.connect((HOST, 9))
        sock.send(b"x")
        try:
            sock.recv(1)
        except OSError as exc:
            return errno.errorcode[exc.errno or 0]
    return ""


def ping() -> int:
    """Ping with a datagram socket, in fragments; return the reply's length."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(30)
        sock.sendto(ECHO, (HOST, 0))
        return len(sock.recv(65535))


def raw() -> int:
    """Ping with a raw socket; return the IP protocol of what comes back."""
    request = struct.pack("!BBHHH", 8, 0, 0xF7FF - 1, 0, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(30)
        sock.connect((HOST, 0))
        sock.send(request)
        return sock.recv(100)[9]


def main(tap: str) -> None:
    """Serve, then be a client."""
    config = StackConfig(ip=IpConfig(ping_group_range=(0, 2**31 - 1)))
    handle = ustack.up(tap, "10.0.8.2/24", host_address=HOST + "/24", config=config)
    served = serve()
    seen = {"served": served, "closed": closed_port(), "ping": ping(), "raw": raw()}
    udp = handle.stack.net.mib.udp
    seen |= {"InDatagrams": udp.InDatagrams, "InCsumErrors": udp.InCsumErrors}
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
