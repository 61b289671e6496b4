"""The emulated NIC on a real TAP: frames both ways, a TAP that is down, busy, deleted."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

import pytest

from kit.lab import Namespace
from ustack.core.netdevice import (
    NETIF_F_GRO,
    NETIF_F_GSO,
    NETIF_F_IP_CSUM,
    NETIF_F_LRO,
    NETIF_F_RXCSUM,
    NETIF_F_TSO,
)

PROGRAM = Path(__file__).with_name("tap_wire.py")
SOFTWARE = NETIF_F_GRO | NETIF_F_GSO
BARE = NETIF_F_RXCSUM | SOFTWARE
ALL = BARE | NETIF_F_LRO | NETIF_F_IP_CSUM | NETIF_F_TSO


@pytest.mark.tap
@pytest.mark.parametrize(("mode", "features"), [("vnet", ALL), ("bare", BARE)])
def test_the_life_of_a_tap(ns: Namespace, mode: str, features: int):
    seen = json.loads(ns.output(sys.executable, str(PROGRAM), f"tap-{mode}", mode))
    assert seen == {
        "inherited": False,
        "second open": errno.EBUSY,
        "not a tap": errno.EINVAL,
        "features": features,
        "lost while down": 1,
        "received": True,
        "sent": True,
        "wire error": errno.EBADFD,
        "watched": -1,
        "lost when gone": 1,
    }


@pytest.mark.tap
@pytest.mark.parametrize(("mode", "features"), [("vnet", ALL), ("bare", BARE | NETIF_F_LRO)])
def test_a_tap_inside_other_wires_is_the_same_tap(ns: Namespace, mode: str, features: int):
    seen = json.loads(ns.output(sys.executable, str(PROGRAM), f"tap-w-{mode}", mode, "wrapped"))
    count = len(range(60, 1514, 7))
    assert seen.pop("recorded") == [count, count + 2]
    assert seen == {
        "inherited": False,
        "second open": errno.EBUSY,
        "not a tap": errno.EINVAL,
        "features": features,
        "lost while down": 1,
        "received": True,
        "sent": True,
        "wire error": errno.EBADFD,
        "watched": -1,
        "lost when gone": 1,
    }
