"""Two stacks on a pair of descriptors, in virtual time: devices that C polls, without a TAP."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from kit.seqpacket import seqpacket_pair
from ustack.config import NicConfig, StackConfig, UstackConfig
from ustack.lib.addresses import Ipv4Interface
from ustack.stack import Stack

NEAR, FAR = 0x0A000001, 0x0A000002
PORT = 80


@dataclass
class Pair:
    """Two stacks and a connection between them."""

    stacks: list[Stack] = field(default_factory=list)
    now_us: int = 1_000_000
    lsk: Any = None
    near: Any = None
    far: Any = None

    def settle(self, rounds: int = 400) -> None:
        """Let time pass until both have nothing to do."""
        for _ in range(rounds):
            self.now_us += 50
            for stack in self.stacks:
                stack.poll(self.now_us)

    def connect(self) -> tuple[Any, Any]:
        """Return both ends of a new connection."""
        near = self.stacks[0].socket()
        with pytest.raises(BlockingIOError):
            near.connect(FAR, PORT)
        self.settle()
        return near, self.lsk.accept()

    def close(self) -> None:
        """Close both stacks."""
        for stack in self.stacks:
            stack.close()

    @property
    def dev(self) -> Any:
        """The device of the far end."""
        return self.stacks[1].adapters[0]


def pair_of(fastpath: bool, **nic: int) -> Pair:
    """Return two stacks with a connection."""
    config = StackConfig(nic=NicConfig(**nic), ustack=UstackConfig(tcp_fastpath=fastpath))
    pair = Pair()
    for wire, addr in zip(seqpacket_pair(), (NEAR, FAR), strict=True):
        stack = Stack(config, rng=random.Random(addr), now_us=pair.now_us)
        stack.add_igb(wire, address=Ipv4Interface(addr, 24))
        pair.stacks.append(stack)
    pair.lsk = pair.stacks[1].socket()
    pair.lsk.bind(0, PORT)
    pair.lsk.listen(4)
    pair.near, pair.far = pair.connect()
    return pair
