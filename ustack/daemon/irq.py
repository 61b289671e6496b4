"""Interrupts by number: which softnet context serves one (/proc/irq/N/smp_affinity).

``ustack sysctl irq.24.smp_affinity=2`` and ``ustack cat /proc/irq/24/smp_affinity`` end here;
the numbers are those of /proc/interrupts. A mask is hexadecimal; of several contexts the
first one serves the vector.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ustack.driver.igb import IgbAdapter

if TYPE_CHECKING:
    from ustack.stack import Stack

FIRST_IRQ = 24
"""Number of the first message-signalled interrupt, behind the 24 pins of an I/O APIC."""
AFFINITY_NAME = re.compile(r"irq\.(\d+)\.smp_affinity")
AFFINITY_PATH = re.compile(r"/proc/irq/(\d+)/smp_affinity")


def find_vector(stack: Stack, irq: int) -> tuple[IgbAdapter, int]:
    """Return the device and the vector of an interrupt.

    Raises:
        LookupError: there is no such interrupt.
    """
    index = irq - FIRST_IRQ
    for device in stack.net.devices.values():
        if not isinstance(device, IgbAdapter):
            continue
        if 0 <= index < len(device.q_vectors):
            return device, index
        index -= len(device.q_vectors)
    raise LookupError(f"/proc/irq/{irq}/smp_affinity: No such file or directory")


def read_affinity(stack: Stack, irq: int) -> str:
    """Return the mask as /proc shows it.

    Raises:
        LookupError: there is no such interrupt.
    """
    device, vector = find_vector(stack, irq)
    digits = -(-len(stack.net.softnets) // 4)
    return f"{1 << device.q_vectors[vector].napi.cpu:0{digits}x}"


def write_affinity(stack: Stack, irq: int, mask: str) -> None:
    """Have the first context of ``mask`` serve an interrupt.

    Raises:
        LookupError: there is no such interrupt, or no such context.
    """
    device, vector = find_vector(stack, irq)
    try:
        device.irq_set_affinity(vector, int(mask, 16))
    except (OSError, ValueError):
        raise LookupError(f'setting key "irq.{irq}.smp_affinity": Invalid argument') from None
