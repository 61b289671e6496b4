"""The daemon's side of ``ustack ethtool``: a device's views, and changes to it while it runs.

The names are those of Linux's ethtool structs (``rx_pending``, ``combined_count``). Who asks
for what a device does not have hears what Linux's ethtool would say.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ustack.core import netdevice
from ustack.daemon.messages import EthtoolRequest, EthtoolSetRequest, ValueRow
from ustack.driver.igb import IgbAdapter

if TYPE_CHECKING:
    from ustack.core.netdevice import NetDevice
    from ustack.stack import Stack

Values = Mapping[str, int | str | bool]

FEATURE_NAMES = (
    ("rx-checksumming", netdevice.NETIF_F_RXCSUM),
    ("tx-checksumming", netdevice.NETIF_F_IP_CSUM),
    ("tcp-segmentation-offload", netdevice.NETIF_F_TSO),
    ("generic-segmentation-offload", netdevice.NETIF_F_GSO),
    ("generic-receive-offload", netdevice.NETIF_F_GRO),
    ("large-receive-offload", netdevice.NETIF_F_LRO),
)
"""In the order of ``ethtool -k``."""


def ethtool_rows(stack: Stack, request: EthtoolRequest) -> Iterator[ValueRow]:
    """Return one view of a device.

    Raises:
        LookupError: no such device or view, or the device does not have it.
    """
    device = find_device(stack, request.device)
    values = ETHTOOL_VIEWS.get(request.view)
    if values is None:
        raise LookupError(f"unknown ethtool view {request.view!r}")
    found = values(device)
    if not found and request.view != "stats":
        raise LookupError("netlink error: Operation not supported")
    return (ValueRow(name, value) for name, value in found.items())


def ethtool_set(stack: Stack, request: EthtoolSetRequest) -> None:
    """Change a device.

    Raises:
        LookupError: no such device, setting or value; the driver's errno as text.
    """
    device = find_device(stack, request.device)
    change = ETHTOOL_SETTINGS.get(request.setting)
    if change is None or not isinstance(device, IgbAdapter):
        raise LookupError("netlink error: Operation not supported")
    try:
        change(stack, device, dict(request.values))
    except OSError as error:
        raise LookupError(f"netlink error: {error.strerror}") from error
    except (TypeError, ValueError) as error:
        raise LookupError("netlink error: Invalid argument") from error


def find_device(stack: Stack, name: str) -> NetDevice:
    """Return the device of that name.

    Raises:
        LookupError: there is none.
    """
    device = stack.net.devices.get(name)
    if device is None:
        raise LookupError("netlink error: no device matches name (offset 24)")
    return device


def ethtool_features(device: NetDevice) -> dict[str, bool]:
    """Return the switches of ``ethtool -k``."""
    return {name: bool(device.features & bit) for name, bit in FEATURE_NAMES}


def ethtool_drvinfo(device: NetDevice) -> dict[str, str]:
    """Return the fields of ``ethtool -i``, empty for a device that has no driver."""
    info = device.ethtool_drvinfo()
    return info and {"supports-statistics": "yes" if device.ethtool_stats() else "no", **info}


def _of_driver(method: str) -> Callable[[NetDevice], Values]:
    """Return a view that only some drivers have."""

    def view(device: NetDevice) -> Values:
        values: Values = getattr(device, method, dict)()
        return values

    return view


ETHTOOL_VIEWS: dict[str, Callable[[NetDevice], Values]] = {
    "stats": lambda device: device.ethtool_stats(),
    "drvinfo": ethtool_drvinfo,
    "ring": _of_driver("ethtool_ringparam"),
    "channels": _of_driver("ethtool_channels"),
    "coalesce": _of_driver("ethtool_coalesce"),
    "pause": _of_driver("ethtool_pauseparam"),
    "rxfh": _of_driver("ethtool_rxfh"),
    "features": ethtool_features,
}


def _set_rxfh(stack: Stack, device: IgbAdapter, values: dict[str, Any]) -> None:
    del stack
    if "key" in values:
        values["key"] = bytes.fromhex(values["key"].replace(":", ""))
    device.set_rxfh(**values)


def _set_link(stack: Stack, device: IgbAdapter, *, up: bool) -> None:
    try:
        (stack.net.dev_open if up else stack.net.dev_close)(device)
    except MemoryError:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from None


ETHTOOL_SETTINGS: dict[str, Callable[[Stack, IgbAdapter, dict[str, Any]], None]] = {
    "ring": lambda stack, device, values: device.set_ringparam(**values),
    "channels": lambda stack, device, values: device.set_channels(**values),
    "coalesce": lambda stack, device, values: device.set_coalesce(**values),
    "pause": lambda stack, device, values: device.set_pauseparam(**values),
    "features": lambda stack, device, values: device.set_offload(**values),
    "rxfh": _set_rxfh,
    "irq": lambda stack, device, values: device.irq_set_affinity(**values),
    "link": lambda stack, device, values: _set_link(stack, device, **values),
    "mtu": lambda stack, device, values: stack.set_mtu(device, **values),
}
"""What can be changed, by the name of the view that shows it."""
