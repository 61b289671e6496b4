"""How much memory what waits to be read of all UDP sockets may take (udp_mem, net/core/sock.c).

Pages are counted socket by socket, as what its queue holds fills them. UDP knows no pressure:
the second limit is there because tcp_mem has three.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ustack.sock.mem import limits_by_arena, sk_mem_pages

if TYPE_CHECKING:
    from ustack.config import StackConfig
    from ustack.core.net import Net


def udp_init_mem(config: StackConfig) -> StackConfig:
    """Set ``udp_mem`` by the size of the arena unless somebody has (udp_init)."""
    if any(config.udp.udp_mem):
        return config
    limits = limits_by_arena(config.core.arena_bytes)
    return replace(config, udp=replace(config.udp, udp_mem=limits))


class UdpMemory:
    """What all UDP sockets of one stack hold."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self.allocated = 0
        """Pages (udp_memory_allocated)."""

    def schedule(self, held: int, size: int) -> bool:
        """Let a socket that holds ``held`` bytes have ``size`` more, or refuse them.

        Up to the first limit nobody is refused, up to the third who holds less than
        udp_rmem_min is not (__sk_mem_raise_allocated).
        """
        pages = sk_mem_pages(held + size) - sk_mem_pages(held)
        allocated = self.allocated + pages
        config = self._net.config.udp
        low, _, most = config.udp_mem
        if pages and allocated > low and (allocated > most or held >= config.udp_rmem_min):
            return False
        self.allocated = allocated
        return True

    def uncharge(self, held: int, size: int) -> None:
        """Take back ``size`` of a socket's ``held`` bytes (__sk_mem_reduce_allocated)."""
        self.allocated -= sk_mem_pages(held) - sk_mem_pages(held - size)
