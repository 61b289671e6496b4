"""A device's files in /sys/class/net: its counters, and the masks of its queues.

``ustack cat /sys/class/net/eth0/queues/rx-0/rps_cpus`` and ``ustack sysctl`` with that path
and ``=MASK`` behind it end here. Masks are hexadecimal; a bit is a softnet context. Counters
(``/sys/class/net/eth0/statistics/rx_packets``) are those of ``ip -s link``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING

from ustack.core import steering
from ustack.core.netdevice import NetDeviceStats

if TYPE_CHECKING:
    from ustack.core.netdevice import NetDevice
    from ustack.stack import Stack

_QUEUE_PATH = re.compile(r"/sys/class/net/([^/]+)/queues/([rt]x)-(\d+)/(rps_cpus|xps_cpus)")

_COUNTER_PATH = re.compile(r"/sys/class/net/([^/]+)/statistics/(\w+)")

_FILES: dict[
    tuple[str, str],
    tuple[Callable[[NetDevice, int], int], Callable[[NetDevice, int, int], None]],
] = {
    ("rx", "rps_cpus"): (steering.rps_mask, steering.store_rps_map),
    ("tx", "xps_cpus"): (steering.xps_mask, steering.netif_set_xps_queue),
}


def is_sysfs(path: str) -> bool:
    """Whether ``path`` is a name in /sys."""
    return path.startswith("/sys/")


def sysfs_read(stack: Stack, path: str) -> str:
    """Return a counter, or a queue's mask as /sys shows it.

    Raises:
        LookupError: there is no such file.
    """
    counter = _COUNTER_PATH.fullmatch(path)
    if counter is not None:
        return _counter(stack, path, counter[1], counter[2])
    device, side, queue, name = _find(stack, path)
    try:
        mask = _FILES[side, name][0](device, queue)
    except OSError as error:
        raise LookupError(f"{path}: {os.strerror(error.errno or 0)}") from None
    return f"{mask:0{-(-len(stack.net.softnets) // 4)}x}"


def sysfs_write(stack: Stack, path: str, text: str) -> None:
    """Set a queue's mask; nothing is none, as 0 is.

    Raises:
        LookupError: there is no such file, or the text is no mask of our contexts.
    """
    device, side, queue, name = _find(stack, path)
    try:
        mask = int(text.strip().replace(",", "") or "0", 16)
        _FILES[side, name][1](device, queue, mask)
    except ValueError:
        raise LookupError(f"{path}: Invalid argument") from None
    except OSError as error:
        raise LookupError(f"{path}: {os.strerror(error.errno or 0)}") from None


def _counter(stack: Stack, path: str, name: str, counter: str) -> str:
    """Return one of a device's statistics (netstat_show)."""
    device = stack.net.devices.get(name)
    if device is None or counter not in {f.name for f in fields(NetDeviceStats)}:
        raise LookupError(f"{path}: No such file or directory")
    return str(getattr(device.stats, counter))


def _find(stack: Stack, path: str) -> tuple[NetDevice, str, int, str]:
    match = _QUEUE_PATH.fullmatch(path)
    device = stack.net.devices.get(match[1]) if match else None
    if match is None or device is None or (match[2], match[4]) not in _FILES:
        raise LookupError(f"{path}: No such file or directory")
    return device, match[2], int(match[3]), match[4]
