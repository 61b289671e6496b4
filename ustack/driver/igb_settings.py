"""What of an igb interface can be changed while it runs: ethtool's setters (igb_ethtool.c).

Each checks first, then acts at once. What needs other rings takes the device down for a
moment, without the rest of the stack noticing: received frames are handed up before, and
if the new rings do not fit into the arena the old ones come back. Errors are errno values
as the driver's, raised as OSError.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ustack.core.netdevice import NETIF_F_GRO, NETIF_F_GSO
from ustack.driver.igb_rx import igb_setup_rctl
from ustack.lib.socket_error import socket_error
from ustack.nic.igb import MAX_QUEUES

if TYPE_CHECKING:
    from ustack.config import NicConfig
    from ustack.driver.igb import IgbAdapter

MIN_RING = 64
MAX_RING = 4096
RING_MULTIPLE = 8
"""REQ_RX_DESCRIPTOR_MULTIPLE: other sizes are rounded up."""
MIN_USECS = 10
MAX_USECS = 10_000

CONFIG_FEATURES = {
    "rx": "rx_checksum",
    "tx": "tx_checksum",
    "tso": "tso",
    "lro": "large_receive",
}
"""ethtool -K's short names and the fields of NicConfig they switch."""
SOFT_FEATURES = {"gso": NETIF_F_GSO, "gro": NETIF_F_GRO}


def igb_reconfigure(adapter: IgbAdapter, config: NicConfig) -> None:
    """Go over to ``config``, with new rings if the interface is up (igb_reinit_locked).

    Raises:
        OSError: ENOMEM, the arena is too small for it; everything is as before.
    """
    old, was_running = adapter.config, adapter.is_running
    if was_running:
        adapter.igb_drain()
        adapter.ndo_stop()
    try:
        _adopt(adapter, config)
        if was_running:
            adapter.ndo_open()
    except (MemoryError, ValueError):
        _adopt(adapter, old)
        if was_running:
            adapter.ndo_open()
        raise socket_error(errno.ENOMEM) from None
    if was_running:
        adapter.wake_queue()


def _adopt(adapter: IgbAdapter, config: NicConfig) -> None:
    queues = config.queues != adapter.config.queues
    adapter.config = config
    if queues:
        adapter.set_queues(config.queues)
    adapter.set_features()


def igb_set_ringparam(adapter: IgbAdapter, rx: int | None = None, tx: int | None = None) -> None:
    """Change the rings' sizes (ethtool -G); they are clamped and rounded as igb does.

    Raises:
        OSError: EINVAL, more than the maximum; ENOMEM.
    """
    config = adapter.config
    wanted = replace(
        config,
        rx_ring=config.rx_ring if rx is None else _ring_size(rx),
        tx_ring=config.tx_ring if tx is None else _ring_size(tx),
    )
    if wanted != config:
        igb_reconfigure(adapter, wanted)


def _ring_size(count: int) -> int:
    if not 0 <= count <= MAX_RING:
        raise socket_error(errno.EINVAL)
    return max(MIN_RING, -(-count // RING_MULTIPLE) * RING_MULTIPLE)


def igb_set_channels(adapter: IgbAdapter, combined: int) -> None:
    """Change the number of queue pairs (ethtool -L combined); flows are spread evenly again.

    Raises:
        OSError: EINVAL, not from 1 to 8; ENOMEM.
    """
    if not 1 <= combined <= MAX_QUEUES:
        raise socket_error(errno.EINVAL)
    if combined != adapter.config.queues:
        igb_reconfigure(adapter, replace(adapter.config, queues=combined))


def igb_set_coalesce(
    adapter: IgbAdapter,
    rx_usecs: int | None = None,
    adaptive_rx: bool | None = None,
    tx_usecs: int = 0,
) -> None:
    """Change interrupt moderation (ethtool -C).

    Args:
        rx_usecs: 0 none, 1 and 3 adaptive, 10 to 10000 microseconds.
        adaptive_rx: igb has no such switch: on is rx-usecs 3, off is 0.
        tx_usecs: 0: a queue pair has one vector, whose time is rx-usecs (IGB_FLAG_QUEUE_PAIRS).

    Raises:
        OSError: EINVAL, any other number, or both contradict each other.
    """
    if tx_usecs:
        raise socket_error(errno.EINVAL)
    is_adaptive = adapter.config.rx_usecs in (1, 3)
    if rx_usecs is None and adaptive_rx is not None and adaptive_rx != is_adaptive:
        rx_usecs = 3 if adaptive_rx else 0
    if rx_usecs is None:
        return
    if rx_usecs not in (0, 1, 3) and not MIN_USECS <= rx_usecs <= MAX_USECS:
        raise socket_error(errno.EINVAL)
    if adaptive_rx is not None and adaptive_rx != (rx_usecs in (1, 3)):
        raise socket_error(errno.EINVAL)
    adapter.config = replace(adapter.config, rx_usecs=rx_usecs)
    adapter.write_moderation()
    for vector in adapter.q_vectors:
        vector.set_rx_usecs(rx_usecs)


def igb_set_pauseparam(
    adapter: IgbAdapter, rx: bool | None = None, tx: bool | None = None,
    autoneg: bool | None = None,
) -> None:  # fmt: skip
    """Switch pause (ethtool -A): whether a full ring leaves frames on the wire or drops them.

    Raises:
        OSError: EINVAL, rx and tx differ or autonegotiation is wanted: the wire has neither.
    """
    if autoneg or (rx is not None and tx is not None and rx != tx):
        raise socket_error(errno.EINVAL)
    pause = rx if rx is not None else tx
    if pause is None:
        return
    adapter.config = replace(adapter.config, pause=pause)
    if adapter.is_running:
        igb_setup_rctl(adapter)


def igb_set_features(adapter: IgbAdapter, switches: Mapping[str, bool]) -> None:
    """Switch offloads (ethtool -K): rx, tx, tso, lro, gso, gro.

    What depends on another one goes and comes with it, as in Linux: tso with tx, lro with rx.

    Raises:
        OSError: EOPNOTSUPP, there is no such switch, or the wire cannot carry it; ENOMEM.
    """
    if not switches.keys() <= CONFIG_FEATURES.keys() | SOFT_FEATURES.keys():
        raise socket_error(errno.EOPNOTSUPP)
    for name, bit in SOFT_FEATURES.items():
        if name in switches:
            adapter.features = adapter.features | bit if switches[name] else adapter.features & ~bit
    adapter.update_xmit_queues()
    fields: dict[str, Any] = {
        field: switches[name] for name, field in CONFIG_FEATURES.items() if name in switches
    }
    config = replace(adapter.config, **fields)
    if config == adapter.config:
        return
    had_large_buffers = adapter.has_large_buffers
    old = adapter.config
    _adopt(adapter, config)
    if not adapter.is_running:
        return
    if adapter.has_large_buffers != had_large_buffers:
        _adopt(adapter, old)
        igb_reconfigure(adapter, config)
        return
    adapter.wire.set_offloads(config.rx_checksum, adapter.has_large_buffers)
    igb_setup_rctl(adapter)


def igb_set_rxfh(
    adapter: IgbAdapter,
    *,
    equal: int | None = None,
    weight: Sequence[int] = (),
    default: bool = False,
    key: bytes = b"",
) -> None:
    """Change the hash's key or the indirection table (ethtool -X).

    Args:
        equal: spread over the first so many rings.
        weight: spread over the rings in these proportions.
        default: spread over all rings.

    Raises:
        OSError: EINVAL, rings that are not there, no weight at all, a key of another length.
    """
    queues = adapter.config.queues
    size = len(adapter.rss_indir_tbl)
    if key:
        if len(key) != len(adapter.rss_key):
            raise socket_error(errno.EINVAL)
        adapter.rss_key = key
    if default:
        equal = queues
    if equal is not None:
        if not 1 <= equal <= queues:
            raise socket_error(errno.EINVAL)
        adapter.rss_indir_tbl = bytes(i % equal for i in range(size))
    elif weight:
        adapter.rss_indir_tbl = _weighted(weight, queues, size)
    if adapter.is_running:
        adapter.write_rss()


def _weighted(weight: Sequence[int], queues: int, size: int) -> bytes:
    """Give each ring its share of the table, in one piece (fill_indir_table of ethtool)."""
    total = sum(weight)
    if len(weight) > queues or total <= 0 or min(weight) < 0:
        raise socket_error(errno.EINVAL)
    table, ring, reached = bytearray(), -1, 0
    for i in range(size):
        while i >= size * reached // total:
            ring += 1
            reached += weight[ring]
        table.append(ring)
    return bytes(table)


def igb_change_mtu(adapter: IgbAdapter, mtu: int) -> None:
    """Change the MTU (ip link set mtu): longer frames span more buffers, the rings stay.

    Raises:
        OSError: EINVAL, not from 68 to 65535.
    """
    if not adapter.min_mtu <= mtu <= adapter.max_mtu:
        raise socket_error(errno.EINVAL)
    adapter.mtu = mtu
    adapter.config = replace(adapter.config, mtu=mtu)
    if adapter.is_running:
        igb_setup_rctl(adapter)
