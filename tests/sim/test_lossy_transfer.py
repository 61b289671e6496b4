"""Two hosts over a bad wire: every byte arrives, in virtual time, and a seed tells it all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pytest

from kit.host import Host, Impairment, two_hosts
from kit.transfer import Transfer, connected
from ustack.config import NicConfig

BAD = Impairment(loss=0.05, duplicate=0.05, reorder=0.05, delay_us=500, jitter_us=100)
HOUR_US = 3_600_000_000


@dataclass(frozen=True)
class Run:
    """What one run came to."""

    equal: bool
    elapsed_us: int
    wire_digest: str
    retransmitted: int
    mibs: tuple[dict[str, dict[str, int]], ...]


def exchange(total: int, seed: int, impair: Impairment = BAD, **parts: Any) -> Run:
    """Send ``total`` bytes each way at once; both directions end with FIN."""
    a, b = two_hosts(seed=seed, impair=impair, **parts)
    digest = record(a, b)
    near, far = connected(a, b)
    there = Transfer(near, far, total, seed=seed)
    back = Transfer(far, near, total, seed=seed + 1)
    a.world.moving += [there, back]
    start_us = a.world.now_us
    over = a.world.run_until(lambda: there.finished and back.finished, limit_us=HOUR_US)
    assert over, f"not over in an hour: {there.received} and {back.received} of {total}"
    return Run(
        there.equal and back.equal,
        a.world.now_us - start_us,
        digest.hexdigest(),
        a.mib.RetransSegs + b.mib.RetransSegs,
        (a.stack.net.mib.snapshot(), b.stack.net.mib.snapshot()),
    )


def record(*hosts: Host) -> hashlib._Hash:
    """Return a digest of every frame that the hosts put on the wire, and when."""
    digest = hashlib.sha256()
    for index, one in enumerate(hosts):
        wire = one.adapter.nic.wire
        send = wire.send_frame

        def send_and_note(unit: bytes, index: int = index, one: Host = one, send=send) -> bool:
            digest.update(b"%d %d " % (one.world.now_us, index) + unit)
            return bool(send(unit))

        wire.send_frame = send_and_note
    return digest


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_five_megabytes_each_way_over_five_percent_loss_reordering_and_duplicates():
    run = exchange(5_000_000, seed=1)
    assert run.equal
    assert run.retransmitted > 200


def test_the_same_seed_is_the_same_run():
    assert exchange(200_000, seed=3) == exchange(200_000, seed=3)


def test_another_seed_is_another_run():
    one, other = exchange(200_000, seed=3), exchange(200_000, seed=4)
    assert one.equal and other.equal
    assert one.wire_digest != other.wire_digest


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    "impair",
    [
        Impairment(),
        Impairment(loss=0.2, delay_us=1000),
        Impairment(duplicate=0.5, delay_us=1000),
        Impairment(reorder=0.5, delay_us=1000, jitter_us=3000),
        Impairment(loss=0.1, duplicate=0.1, reorder=0.3, delay_us=20_000, jitter_us=20_000),
    ],
    ids=["clean", "loss", "duplicates", "reordering", "everything"],
)
def test_any_wire_delivers_a_hundred_kilobytes_each_way(impair: Impairment, seed: int):
    assert exchange(100_000, seed, impair).equal


@pytest.mark.parametrize("seed", range(5))
def test_super_frames_over_a_bad_wire(seed: int):
    assert exchange(1_000_000, seed, nic=NicConfig()).equal


def test_a_clean_wire_needs_no_retransmission():
    run = exchange(2_000_000, seed=1, impair=Impairment(delay_us=500))
    assert run.equal
    assert run.retransmitted == 0


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_fifty_megabytes_each_way_ten_times(seed: int):
    assert exchange(50_000_000, seed=100 + seed).equal
