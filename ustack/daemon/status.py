"""The plain page at ``http://STACK/status``: who the stack is and everything it has counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.ipv4.devinet import address_records
from ustack.lib.addresses import format_mac

if TYPE_CHECKING:
    from ustack.stack import Stack


def status_text(stack: Stack, started_us: int) -> str:
    """Return the page: one ``Name value`` a line under a heading a group, zeros left out.

    Args:
        started_us: stack time when the stack was made.
    """
    seconds = (stack.clock.now_us - started_us) // 1_000_000
    lines = ["ustack status", "", f"uptime {seconds} s"]
    for device in stack.net.devices.values():
        records = address_records(stack.ip, device)
        addresses = " ".join(str(record.interface) for record in records)
        lines.append(f"{device.name} {format_mac(device.dev_addr)} mtu {device.mtu} {addresses}")
    groups = dict(stack.net.mib.snapshot())
    groups["Drops"] = stack.net.drops.nonzero()
    for device in stack.net.devices.values():
        groups[device.name] = device.ethtool_stats()
    for title, counters in groups.items():
        lines += ["", title]
        lines += [f"  {name} {value}" for name, value in counters.items() if value]
    return "\n".join(lines) + "\n"
