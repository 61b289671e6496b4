"""The kernel's side of a TAP: its address and its being up, through netlink.

This is the one place where ustack changes the host, and only the interface that it was told
to use. Called by ``ustack.up()`` and the daemon, also from within a running loop: pyroute2
brings a loop along, so it works in a thread of its own.
"""

from __future__ import annotations

import asyncio
import errno
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ustack.lib.addresses import format_ipv4

if TYPE_CHECKING:
    from ustack.lib.addresses import Ipv4Interface

IFF_UP = 1


def set_up_host(tap_name: str, address: Ipv4Interface | None) -> None:
    """Bring the kernel's side of ``tap_name`` up, with ``address`` if one is given.

    An interface that is up and has the address is left as it is, so that who may use a TAP
    but not configure it can still do so when somebody else has.

    Raises:
        OSError: in one line what could not be done: EPERM, ENODEV, or what netlink says.
    """
    with ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(_set_up, tap_name, address).result()


def _set_up(tap_name: str, address: Ipv4Interface | None) -> None:
    from pyroute2 import IPRoute  # it takes a fifth of a second to load
    from pyroute2.netlink.exceptions import NetlinkError

    loop = asyncio.SelectorEventLoop()  # uvloop's, which a policy may make, cannot do netlink
    try:
        with IPRoute(use_event_loop=loop) as ipr:
            found = ipr.link_lookup(ifname=tap_name)
            if not found:
                raise OSError(errno.ENODEV, f"the kernel has no interface {tap_name}")
            if address is not None:
                _add_address(ipr, found[0], address)
            if not ipr.get_links(found[0])[0]["flags"] & IFF_UP:
                ipr.link("set", index=found[0], state="up")
    except NetlinkError as exc:
        raise OSError(exc.code, f"cannot set up {tap_name}: {exc.args[-1]}") from None
    finally:
        loop.run_until_complete(asyncio.sleep(0))  # lets pyroute2 close its socket
        loop.close()


def _add_address(ipr: Any, index: int, address: Ipv4Interface) -> None:
    wanted = (format_ipv4(address.addr), address.prefix_len)
    for row in ipr.get_addr(index=index):
        if (row.get_attr("IFA_LOCAL"), row["prefixlen"]) == wanted:
            return
    ipr.addr("add", index=index, address=wanted[0], prefixlen=wanted[1])
