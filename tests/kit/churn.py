"""Connections that come and go through every state, for the tests of memory and the bench."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from kit.crowd import ACK, FIN, PSH, RST, Crowd, rss_bytes

ROUND = 500
FEW = 20
MSL2_US = 61_000_000
SYN_ACKS_US = 130_000_000
"""Until a request is given up whose SYN-ACK nobody answers."""
WAYS = 9


class Memory(NamedTuple):
    """What is in use when nobody is connected."""

    connections: int
    """How many have come and gone."""
    rss_bytes: int
    python_objects: int
    """What the garbage collector watches over."""
    left: tuple[Any, ...]
    """See ``figures``."""


def play(crowd: Crowd, rng: random.Random, first: int) -> None:
    """``ROUND`` connections, each ended in one of the ways there are; nothing is left of them."""
    peers = list(range(first, first + ROUND - 2 * FEW))
    accepted: dict[int, Any] = {}
    crowd.open(peers)
    crowd.accept_all(lambda sock: accepted.setdefault(crowd.number(*sock.getpeername()), sock))
    assert len(accepted) == len(peers)
    crowd.wait(1_000_000)  # all idle
    ways: dict[int, list[int]] = {way: [] for way in range(WAYS)}
    for peer in peers:
        ways[rng.randrange(WAYS)].append(peer)

    talkers = ways[0] + ways[1]
    crowd.tell(talkers, PSH | ACK, b"x" * 100)
    for peer in talkers:
        accepted[peer].send(accepted[peer].recv(1000))
    crowd.poll()
    crowd.tell(talkers, ACK)
    _peer_closes_first(crowd, ways[0], accepted)
    _we_close_first(crowd, ways[1] + ways[2], accepted)
    crowd.tell(ways[3], RST | ACK)  # the peer resets
    crowd.tell(ways[4], PSH | ACK, b"unread")  # close() with unread text resets
    for peer in ways[3] + ways[4]:
        accepted[peer].close()
    for peer in ways[5]:  # FIN_WAIT2 for a peer that never closes
        accepted[peer].close()
    crowd.poll()
    crowd.tell(ways[5], ACK)
    _both_close(crowd, ways[6], accepted)
    for peer in ways[7]:  # FIN_WAIT1 with text that is never acknowledged
        accepted[peer].send(b"x" * 100)
        accepted[peer].close()
    crowd.tell(ways[8], ACK | PSH, b"the end", ahead=10)  # closed with a hole before it
    for peer in ways[8]:
        accepted[peer].close()
    _listener_closes(crowd, range(first + ROUND - 2 * FEW, first + ROUND))
    crowd.wait(MSL2_US)
    crowd.tell(ways[7] + ways[8], RST | ACK)
    crowd.wait(SYN_ACKS_US)


def _both_close(crowd: Crowd, peers: list[int], accepted: dict[int, Any]) -> None:
    """Both FINs are on the way at once: CLOSING, then TIME_WAIT."""
    for peer in peers:
        accepted[peer].close()
    crowd.tell(peers, FIN | ACK, unheard=1)
    crowd.tell(peers, ACK)


def _listener_closes(crowd: Crowd, peers: range) -> None:
    """Some wait to be accepted, some are half open, and half of those when nobody listens."""
    crowd.open(peers[:FEW])
    crowd.knock(peers[FEW:])
    crowd.listen()
    crowd.knock(peers[FEW:])
    crowd.poll()


def _peer_closes_first(crowd: Crowd, peers: list[int], accepted: dict[int, Any]) -> None:
    crowd.tell(peers, FIN | ACK)
    for peer in peers:
        assert accepted[peer].recv(1) == b""
        accepted[peer].close()
    crowd.poll()
    crowd.tell(peers, ACK)


def _we_close_first(crowd: Crowd, peers: list[int], accepted: dict[int, Any]) -> None:
    for peer in peers:
        accepted[peer].close()
    crowd.poll()
    crowd.tell(peers, FIN | ACK)


def figures(crowd: Crowd) -> tuple[Any, ...]:
    """All that connections can leave behind."""
    tcp = crowd.stack.tcp
    slabs = {name: info.active_objs for name, info in crowd.stack.memory_info().items()}
    tables = [len(tcp.ehash), len(tcp.twhash), len(tcp.reqsk_hash), len(tcp.socks), len(tcp.bhash)]
    port = tcp.bhash[80]
    shares = tcp.fast.ptr.shares
    sharers = [shares[index].count for index in port.shares.values()]
    left = [sum(sharers), len(port.owners), len(tcp.parking.ca_priv), tcp.orphan_count]
    return slabs, tables, left, crowd.stack.net.mem.free_pages


def churn(crowd: Crowd, connections: int, samples: int = 8) -> Iterator[Memory]:
    """Let connections come and go; yield what is in use after the first few, then now and then.

    Args:
        connections: how many, in whole rounds.
        samples: how often at most, beside the first.
    """
    rng = random.Random(1)
    rounds = max(connections // ROUND, 2)
    step = max(rounds // samples, 1)
    for number in range(1, rounds + 1):
        play(crowd, rng, (number - 1) * ROUND)
        if number == 1 or number % step == 0:
            gc.collect()
            yield Memory(number * ROUND, rss_bytes(), len(gc.get_objects()), figures(crowd))
