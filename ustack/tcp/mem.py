"""How much memory all connections may hold, and who is refused when it is too much (tcp_mem).

What counts are the pages of send and receive queues, counted where chunks are taken and given
back (``bytequeue.c``), and what out-of-order queues hold. Below the first limit nobody asks;
above the second TCP is under pressure: windows and send buffers do not grow, and who holds more
than his share is refused; above the third whoever can wait is. The rules are those of
__sk_mem_raise_allocated, sk_stream_wait_memory and tcp_enter_memory_pressure. While memory
abounds C does not even ask (``us_tcp_memory_abounds``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ustack.core.timer import Timer
from ustack.native.lib import lib
from ustack.sock.mem import limits_by_arena, sk_mem_pages

if TYPE_CHECKING:
    from ustack.config import StackConfig
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock

SOCK_MIN_SNDBUF = 4608
SKB_FRAG_BYTES = 32_768
"""What a writer asks for at a time when memory does not abound (SKB_FRAG_PAGE_ORDER)."""
VM_WAIT_MIN_US = 2_000
VM_WAIT_MAX_US = 200_000


def tcp_init_mem(config: StackConfig) -> StackConfig:
    """Set ``tcp_mem`` by the size of the arena unless somebody has (tcp_init_mem)."""
    if any(config.tcp.tcp_mem):
        return config
    limits = limits_by_arena(config.core.arena_bytes)
    return replace(config, tcp=replace(config.tcp, tcp_mem=limits))


class MemoryPressure:
    """Whether TCP is under memory pressure, and who waits for that to end."""

    def __init__(self, prot: TcpProt) -> None:
        self._prot = prot
        self.since_us = 0
        """When it began; 0: there is none (tcp_memory_pressure)."""
        self._vm_wait: dict[TcpSock, None] = {}
        """Writers whose buffers have room, but TCP has not."""
        self._timer = Timer(self._wake)

    @property
    def allocated(self) -> int:
        """Pages that count against tcp_mem (tcp_memory_allocated)."""
        pages: int = lib.us_tcp_memory_allocated(self._prot.fast.ptr)
        return pages

    def enter(self) -> None:
        """There is too much (tcp_enter_memory_pressure)."""
        if not self.since_us:
            self.since_us = self._prot.clock.now_us or 1
            self._prot.fast.ptr.memory_pressure = 1
            self._prot.mib_ext.TCPMemoryPressures += 1

    def leave(self) -> None:
        """There is enough again (tcp_leave_memory_pressure)."""
        if self.since_us:
            lasted_us = self._prot.clock.now_us - self.since_us
            self._prot.mib_ext.TCPMemoryPressuresChrono += lasted_us // 1000
            self.since_us = 0
            self._prot.fast.ptr.memory_pressure = 0

    def reclaim(self) -> None:
        """Memory may have been given back: perhaps that ends it (__sk_mem_reduce_allocated)."""
        if self.since_us and self.allocated < self._prot.config.tcp_mem[0]:
            self.leave()

    def is_near(self) -> bool:
        """Whether buffers must not grow any more: pressure, or all but that."""
        return bool(self.since_us) or self.allocated >= self._prot.config.tcp_mem[0]

    def sk_stream_wait_memory(self, sk: TcpSock) -> None:
        """Have a writer woken in a while who waits for memory, not for ACKs.

        What he waits for is others': nothing of his own may be there to be acknowledged.
        """
        sk.nospace = True
        self._vm_wait[sk] = None
        if not self._timer.pending:
            prot = self._prot
            delay_us = VM_WAIT_MIN_US + prot.rng.randrange(VM_WAIT_MAX_US)
            prot.timers.mod_timer(self._timer, prot.clock.now_us + delay_us)

    def _wake(self, _arg: object) -> None:
        waiting, self._vm_wait = self._vm_wait, {}
        self.reclaim()
        for sk in waiting:
            if sk.nospace:
                sk.sk_write_space()


def sk_mem_held(sk: TcpSock) -> int:
    """Return the bytes of memory that a connection's data occupies."""
    tp = sk.tp
    held: int = tp.write_queue.truesize + tp.receive_queue.truesize
    return held + sk.ofo.truesize if sk.ofo is not None else held


def _raise_allocated(sk: TcpSock, size: int, least: int, held: int) -> bool:
    """Whether a connection may have ``size`` more bytes (__sk_mem_raise_allocated).

    Args:
        least: what nobody is refused below the third limit, ``held`` being what he has.
    """
    prot = sk.prot
    pressure = prot.pressure
    low, high, most = prot.config.tcp_mem
    allocated = pressure.allocated + sk_mem_pages(size)
    if allocated <= low:
        pressure.leave()
        return True
    if allocated > high:
        pressure.enter()
    if allocated > most:
        return False
    if held < least or not pressure.since_us:
        return True
    return prot.tcp_cache.info().active_objs * sk_mem_pages(sk_mem_held(sk)) < most


def sk_rmem_schedule(sk: TcpSock, size: int, held: int) -> bool:
    """Whether ``size`` more bytes may be kept for a reader, for whom ``held`` are."""
    if lib.us_tcp_memory_is_low(sk.prot.fast.ptr, size):
        return True
    return _raise_allocated(sk, size, sk.prot.config.tcp_rmem[0], held)


def sk_wmem_schedule(sk: TcpSock, size: int) -> bool:
    """Whether ``size`` more bytes may be queued to be sent.

    Who is refused has a smaller buffer from now on, and is let through this once if that is
    full: then he waits for his own ACKs.
    """
    tp = sk.tp
    if _raise_allocated(sk, size, sk.prot.config.tcp_wmem[0], tp.write_queue.len):
        return True
    sk_stream_moderate_sndbuf(sk)
    return bool(tp.write_queue.len + size >= tp.sk_sndbuf)


def tcp_wmem_schedule(sk: TcpSock, count: int) -> int:
    """Return how many of ``count`` bytes a writer may queue now (tcp_wmem_schedule)."""
    prot = sk.prot
    if lib.us_tcp_memory_is_low(prot.fast.ptr, count):
        return count
    count = min(count, SKB_FRAG_BYTES)
    if sk_wmem_schedule(sk, count):
        return count
    return max(min(prot.config.tcp_wmem[0] - sk.tp.write_queue.len, count), 0)


def sk_stream_moderate_sndbuf(sk: TcpSock) -> None:
    """Make the send buffer half of what is in it (sk_stream_moderate_sndbuf)."""
    tp = sk.tp
    if not tp.sndbuf_locked:
        tp.sk_sndbuf = max(min(tp.sk_sndbuf, tp.write_queue.len >> 1), SOCK_MIN_SNDBUF)


def sk_page_frag_failed(sk: TcpSock) -> None:
    """The arena had no page for a writer (sk_page_frag_refill)."""
    sk.prot.pressure.enter()
    sk_stream_moderate_sndbuf(sk)
    sk.prot.pressure.sk_stream_wait_memory(sk)


def tcp_out_of_memory(sk: TcpSock) -> bool:
    """Whether TCP holds more than it may, and this one has data to be sent (tcp_out_of_memory)."""
    if sk.tp.write_queue.len <= SOCK_MIN_SNDBUF:
        return False
    return sk.prot.pressure.allocated > sk.prot.config.tcp_mem[2]
