"""The softirq, GRO and lo under load: what a transfer in virtual time makes them count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, two_hosts
from kit.transfer import Transfer, connected
from ustack.config import CoreConfig, NicConfig, StackConfig
from ustack.core.napi import NET_RX_SOFTIRQ, NET_TX_SOFTIRQ
from ustack.core.netdevice import NETIF_F_GRO, NETIF_F_GSO
from ustack.lib.addresses import INADDR_LOOPBACK

MB = 1 << 20


def transfer(a: Host, b: Host, total: int) -> None:
    near, far = connected(a, b)
    there = Transfer(near, far, total, chunk=MB, read=MB)
    a.world.moving.append(there)
    assert a.world.run_until(lambda: there.finished, limit_us=600_000_000)
    assert there.equal


def switch(host: Host, bit: int, on: bool) -> None:
    """ethtool -K."""
    dev = host.adapter
    dev.features = dev.features | bit if on else dev.features & ~bit


# E-GRO: 10 MB in frames of 1500 bytes.


def gro_run(gro: bool) -> tuple[int, int]:
    """Return the frames that the receiver's device took, and the segments that TCP got."""
    a, b = two_hosts(config=TEST_CONFIG)
    switch(b, NETIF_F_GRO, gro)
    transfer(a, b, 10 * MB)
    return b.adapter.stats.rx_packets, b.mib.InSegs


def test_gro_on_hands_tcp_a_tenth_of_the_frames_and_off_every_one():
    frames, segments = gro_run(True)
    assert frames > 10 * MB // 1448
    assert frames / segments > 10
    frames, segments = gro_run(False)
    assert 0 <= frames - segments <= 2  # ARP


def test_gro_can_be_switched_while_data_flow():
    a, b = two_hosts(config=TEST_CONFIG)
    near, far = connected(a, b)
    ratios = []
    for on in (False, True, False):
        switch(b, NETIF_F_GRO, on)
        frames, segments = b.adapter.stats.rx_packets, b.mib.InSegs
        there = Transfer(near, far, MB, finish=False)
        a.world.moving = [there]
        assert a.world.run_until(lambda t=there: t.received == MB)
        ratios.append((b.adapter.stats.rx_packets - frames) / (b.mib.InSegs - segments))
    assert ratios[0] == ratios[2] == 1
    assert ratios[1] > 5


# GSO: TCP's super-frames over a device that cannot cut them.


def gso_run(gso: bool) -> tuple[int, int]:
    """Return the packets that IP made of 2 MB, and the frames that the device sent."""
    a, b = two_hosts(config=TEST_CONFIG)
    switch(a, NETIF_F_GSO, gso)
    near, far = connected(a, b)
    sizes: set[int] = set()
    a.stack.net.dev_add_pack(None, lambda skb, dev, outgoing: sizes.add(len(skb)))
    packets, frames = a.mib.OutRequests, a.adapter.stats.tx_packets
    there = Transfer(near, far, 2 * MB)
    a.world.moving.append(there)
    assert a.world.run_until(lambda: there.finished, limit_us=600_000_000)
    assert there.equal
    assert max(sizes) == 1514  # no super-frame comes as far as the driver
    return a.mib.OutRequests - packets, a.adapter.stats.tx_packets - frames


def test_gso_on_ip_sends_a_tenth_of_the_packets_and_the_wire_has_the_same_frames():
    packets, frames = gso_run(True)
    assert frames / packets > 10
    packets, frames_off = gso_run(False)
    assert frames_off == packets
    assert abs(frames - frames_off) < frames_off / 100


# E-SOFTIRQ: a pure sender and a pure receiver of 100 MB.


def softirqs(host: Host) -> tuple[int, int]:
    counts = host.stack.net.softnet.softirq_counts
    return counts[NET_RX_SOFTIRQ], counts[NET_TX_SOFTIRQ]


def test_net_rx_far_outnumbers_net_tx_on_both_sides():
    """Completion of transmits raises NET_RX; NET_TX is for a queue that had to stop."""
    nic = NicConfig(rx_usecs=0)  # moderation would gather completions and frames
    config = StackConfig(nic=nic, core=CoreConfig(arena_bytes=64 << 20))
    a, b = two_hosts(config=config)
    transfer(a, b, 100 * MB)
    for host in (a, b):
        rx, tx = softirqs(host)
        assert rx > 1000
        assert rx / max(tx, 1) >= 100, (rx, tx)


# E-LO: ping-pong over 127.0.0.1 and over an own address.


def lo_ping_pong(address: Callable[[Host], int], rounds: int, *, sockmap: bool = False) -> Host:
    host, _ = two_hosts(config=TEST_CONFIG)
    host.stack.redirect_sockmap(sockmap)
    world = host.world
    lsk = host.stack.socket()
    lsk.bind(address(host), 7)
    lsk.listen(1)
    near = host.connect(address(host), 7)
    world.settle()
    far = lsk.accept()
    before = hardware(host)
    for _ in range(rounds):
        for one, other in ((near, far), (far, near)):
            one.send(b"ping")
            world.settle()
            assert other.recv(10) == b"ping"
    assert hardware(host) == before
    return host


def hardware(host: Host) -> tuple[Any, ...]:
    """Everything that would show that the card took part."""
    nic = host.adapter.nic
    stats = host.adapter.stats
    return list(nic.irq_counts), host.adapter.ethtool_stats(), stats.rx_packets, stats.tx_packets


@pytest.mark.parametrize(
    "address", [lambda host: INADDR_LOOPBACK, lambda host: host.addr], ids=["127.0.0.1", "own"]
)
def test_lo_leaves_rings_and_interrupts_untouched(address: Callable[[Host], int]):
    host = lo_ping_pong(address, 100)
    lo = host.stack.lo.stats
    assert lo.rx_packets == lo.tx_packets >= 200
    assert softirqs(host)[0] >= 200
    assert softirqs(host)[1] == 0
    assert host.stack.net.softnet.processed >= 200
    assert host.stack.net.softnet.time_squeeze == 0


def test_a_sockmap_leaves_lo_and_the_softirq_untouched_too():
    """But for the handshake's three packets and the delayed ACKs that nothing else carries."""
    host = lo_ping_pong(lambda host: host.addr, 100, sockmap=True)
    assert host.stack.lo.stats.rx_packets <= 6
    assert host.stack.net.softnet.processed <= 6
    assert host.stack.net.mib.ustack.SockmapRedirects == 200


def test_bulk_over_lo_is_copied_once_and_leaves_no_page_behind():
    host, _ = two_hosts(config=TEST_CONFIG)
    lsk = host.stack.socket()
    lsk.bind(INADDR_LOOPBACK, 7)
    lsk.listen(1)
    near = host.connect(INADDR_LOOPBACK, 7)
    host.world.settle()
    far = lsk.accept()
    free = host.stack.net.mem.free_pages
    in_pieces = 0

    def tap(skb: Any, dev: Any, outgoing: bool) -> None:
        nonlocal in_pieces
        in_pieces += not outgoing and bool(skb.frags)

    host.stack.net.dev_add_pack(None, tap)
    there = Transfer(near, far, 20 * MB, finish=False)
    host.world.moving.append(there)
    assert host.world.run_until(lambda: there.received == 20 * MB)
    assert there.equal
    assert in_pieces > 100
    host.advance_us(1_000_000)
    assert host.stack.net.mem.free_pages == free - 1  # what CUBIC remembers of the connection


def test_bulk_over_lo_survives_a_backlog_that_drops():
    """Pieces of super-frames out of order, repeated and overlapping: every byte arrives."""
    config = StackConfig(
        nic=TEST_CONFIG.nic, core=CoreConfig(arena_bytes=32 << 20, netdev_max_backlog=0)
    )
    host, _ = two_hosts(config=config)
    lsk = host.stack.socket()
    lsk.bind(INADDR_LOOPBACK, 7)
    lsk.listen(1)
    near = host.connect(INADDR_LOOPBACK, 7)
    host.world.settle()
    there = Transfer(near, lsk.accept(), 20 * MB, finish=False, chunk=MB)
    host.world.moving.append(there)
    assert host.world.run_until(lambda: there.received == 20 * MB, limit_us=3_600_000_000)
    assert there.equal
    assert host.stack.net.softnet.dropped > 10
    assert host.mib.TCPOFOQueue > 10
