"""A host in one line: a Stack with one igb, in virtual time, with a seeded generator.

``host()`` has scripted peers at the other end of its wire (kit.peer); ``two_hosts()`` are
two stacks on one wire, which may lose, delay, reorder and duplicate.
"""

from __future__ import annotations

import random
from dataclasses import asdict, replace
from typing import Any

from kit.bottleneck import chance
from kit.peer import Peer, PeerNet
from kit.world import World
from ustack.config import CoreConfig, NicConfig, StackConfig
from ustack.lib.addresses import parse_interface, parse_ipv4
from ustack.nic.impair import ImpairedWire, Impairment
from ustack.nic.pair import wire_pair
from ustack.stack import Stack

PLAIN_NIC = NicConfig(
    tso=False, tx_checksum=False, rx_checksum=False, large_receive=False, rx_usecs=0
)
"""Segments as they go over a real wire: no super-frames, checksums complete, and every frame
interrupts at once: scripts expect an answer within the same microsecond."""

TEST_CONFIG = StackConfig(nic=PLAIN_NIC, core=CoreConfig(arena_bytes=32 << 20))


class AnyMib:
    """A stack's counters by name alone: ``mib.ListenOverflows``, whichever table has it."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def __getattr__(self, name: str) -> int:
        mib = self._stack.net.mib
        for table in ("tcp_ext", "tcp", "ip", "ip_ext", "icmp", "udp"):
            value = getattr(getattr(mib, table), name, None)
            if value is not None:
                return int(value)
        raise AttributeError(f"no counter {name}")


class Host:
    """A stack under test and the world around it."""

    def __init__(self, world: World, stack: Stack, address: str, mac: bytes, adapter: Any) -> None:
        self.world = world
        self.stack = stack
        self.address = address
        self.addr = parse_interface(address).addr
        self.mac = mac
        self.adapter = adapter
        self.mib = AnyMib(stack)
        self.net: PeerNet | None = None
        self._next_port = 40_000

    # The application's side.

    def socket(self) -> Any:
        """Return a new TCP socket of this host."""
        self.stack.clock.now_us = self.world.now_us
        return self.stack.socket()

    def listen(self, port: int = 80, backlog: int = 128) -> Any:
        """Return a socket that listens on ``port`` of any address."""
        lsk = self.socket()
        lsk.bind(0, port)
        lsk.listen(backlog)
        return lsk

    def connect(self, addr: str | int = "10.0.0.1", port: int = 80) -> Any:
        """Begin a connection; its SYN is out when this returns."""
        sk = self.socket()
        try:
            sk.connect(parse_ipv4(addr) if isinstance(addr, str) else addr, port)
        except BlockingIOError:
            pass
        self.world.settle()
        return sk

    # The wire's side.

    def peer(self, port: int | None = None, addr: str = "10.0.0.1", to: int | None = 80) -> Peer:
        """Return a scripted endpoint at ``addr``; ``to=None``: the host's SYN says its port."""
        assert self.net is not None, "a host of two_hosts() has no scripted peers"
        if port is None:
            port = self._next_port
            self._next_port += 1
        return Peer(self.net, addr, port, to, iss=(port * 2_654_435_761) & 0xFFFFFFFF)

    def established(self, options: str = "mss 1460", win: int = 65535) -> tuple[Any, Peer]:
        """Return an accepted socket and its scripted peer, the handshake done."""
        lsk = self.listen(80)
        peer = self.peer()
        peer.handshake(options, win)
        return lsk.accept(), peer

    def advance_us(self, delta_us: int) -> None:
        """Let virtual time pass."""
        self.world.advance_us(delta_us)

    def settle(self) -> None:
        """Let everything happen that happens now."""
        self.world.settle()


def host(
    config: StackConfig = TEST_CONFIG, *, address: str = "10.0.0.2/24", seed: int = 1, **parts: Any
) -> Host:
    """Return a host with scripted peers; ``tcp=TcpConfig(...)`` and the like replace a part."""
    world = World()
    near, far = wire_pair()
    one = _add_host(world, near, replace(config, **parts), address, seed)
    one.net = PeerNet(one, far)
    world.moving.append(one.net)
    return one


def two_hosts(
    config: StackConfig = TEST_CONFIG,
    *,
    seed: int = 1,
    impair: Impairment | tuple[Impairment, Impairment] | None = None,
    **parts: Any,
) -> tuple[Host, Host]:
    """Return 10.0.0.1 and 10.0.0.2 on one wire; ``impair``: both ways, or what each one sends."""
    world = World()
    config = replace(config, **parts)
    ends = wire_pair()
    hosts = []
    ways = impair if isinstance(impair, tuple) else (impair, impair)
    for index, (end, faults) in enumerate(zip(ends, ways, strict=True)):
        wire: Any = end
        if faults is not None:
            rng = chance(seed, index)
            wire = ImpairedWire(end, _WorldClock(world), rng, **asdict(faults))
        hosts.append(_add_host(world, wire, config, f"10.0.0.{index + 1}/24", seed * 10 + index))
    return hosts[0], hosts[1]


class _WorldClock:
    """The world's time as the stack clock that wires read."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def now_us(self) -> int:
        return self._world.now_us


def _add_host(world: World, wire: Any, config: StackConfig, address: str, seed: int) -> Host:
    stack = Stack(config, rng=random.Random(seed), now_us=world.now_us)
    interface = parse_interface(address)
    mac = bytes.fromhex("0200000000") + bytes([interface.addr & 255])
    adapter = stack.add_igb(wire, mac=mac, address=interface)
    world.stacks.append(stack)
    one = Host(world, stack, address, mac, adapter)
    return one
