"""What lies in a ring, descriptor by descriptor, as igb_dump() writes it into the kernel's log.

Nothing is kept for it: the descriptors are read from ring memory, where driver and device
share them, and the driver's own array beside them. A receive descriptor that was posted holds
an address; once written back (DD) a length and status bits stand in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import TYPE_CHECKING, Any

from ustack.native.lib import lib

if TYPE_CHECKING:
    from ustack.driver.igb import IgbAdapter

_RX_WB = Struct("=HHIIHH")
"""struct us_adv_rx_wb: pkt_info, hdr_info, rss, status_error, length, vlan."""
_TX_READ = Struct("=QII")
"""struct us_adv_tx_read: buffer_addr, cmd_type_len, olinfo_status."""

_RX_BITS = (
    (lib.US_E1000_RXD_STAT_DD, "DD"),
    (lib.US_E1000_RXD_STAT_EOP, "EOP"),
    (lib.US_E1000_RXD_STAT_IPCS, "IPCS"),
    (lib.US_E1000_RXD_STAT_TCPCS, "TCPCS"),
    (lib.US_E1000_RXD_STAT_UDPCS, "UDPCS"),
    (lib.US_E1000_RXDEXT_STATERR_L4E, "L4E"),
    (lib.US_E1000_RXDEXT_STATERR_IPE, "IPE"),
    (lib.US_E1000_RXDEXT_STATERR_RXE, "RXE"),
)
_TX_BITS = (
    (lib.US_E1000_ADVTXD_DCMD_EOP, "EOP"),
    (lib.US_E1000_ADVTXD_DCMD_IFCS, "IFCS"),
    (lib.US_E1000_ADVTXD_DCMD_RS, "RS"),
    (lib.US_E1000_ADVTXD_DCMD_TSE, "TSE"),
)


def igb_dump(adapter: IgbAdapter, direction: str, queue: int) -> Iterator[str]:
    """Yield the lines of one ring: its figures, then each descriptor.

    Raises:
        LookupError: no such ring, or none while the interface is down.
    """
    if direction not in ("rx", "tx") or not 0 <= queue < len(adapter.q_vectors):
        raise LookupError(f"{adapter.name} has no ring {direction} {queue}")
    vector = adapter.q_vectors[queue]
    if vector.rx is None or vector.tx is None:
        raise LookupError(f"{adapter.name} is down: it has no rings")
    mem = adapter.net.mem.view
    if direction == "rx":
        return _dump_rx(f"{adapter.name} rx {queue}", mem, vector.rx.ring, vector.rxq)
    return _dump_tx(f"{adapter.name} tx {queue}", mem, vector.tx.ring, vector.txq)


def _dump_rx(title: str, mem: memoryview, ring: Any, rxq: Any) -> Iterator[str]:
    # Every buffer is used again in its place: all up to the one that stays unused are there.
    next_to_alloc = (ring.next_to_clean - 1) % ring.count
    yield (
        f"{title}: {ring.count} descriptors at {ring.dma:#x}, {ring.buffer_bytes}-byte buffers, "
        f"{ring.descriptors} cleaned for {ring.packets} packets"
    )
    yield (
        f"next_to_use {ring.next_to_use} next_to_clean {ring.next_to_clean} "
        f"next_to_alloc {next_to_alloc} head {rxq.RDH} tail {rxq.RDT}"
    )
    yield "desc   buffer           length  status"
    for i in range(ring.count):
        posted = _is_between(i, ring.next_to_clean, ring.next_to_use)
        _, _, _, status, length, _ = _RX_WB.unpack_from(mem, ring.dma + i * _RX_WB.size)
        done = status & lib.US_E1000_RXD_STAT_DD
        words = [name for bit, name in _RX_BITS if status & bit] if done else []
        if posted and not done:
            words.append("posted")
        elif done and not posted:
            words.append("cleaned")
        words += _marks(i, ring.next_to_use, ring.next_to_clean)
        page = ring.buffer_info[i].page
        yield _line(i, page, length if done else 0, words)


def _dump_tx(title: str, mem: memoryview, ring: Any, txq: Any) -> Iterator[str]:
    yield (
        f"{title}: {ring.count} descriptors at {ring.dma:#x}, "
        f"{ring.descriptors} used, {ring.packets} packets sent"
    )
    yield (
        f"next_to_use {ring.next_to_use} next_to_clean {ring.next_to_clean} "
        f"head {txq.TDH} tail {txq.TDT} stopped {ring.stopped}"
    )
    yield "desc   buffer           length  status"
    for i in range(ring.count):
        addr, command, status = _TX_READ.unpack_from(mem, ring.dma + i * _TX_READ.size)
        words: list[str] = []
        length = 0
        if command & lib.US_E1000_ADVTXD_DTYP_MASK == lib.US_E1000_ADVTXD_DTYP_CTXT:
            addr = 0
            words.append("context")
        elif command:
            length = command & lib.US_E1000_ADVTXD_DTALEN_MASK
            words = [name for bit, name in _TX_BITS if command & bit]
            if command & lib.US_E1000_ADVTXD_DCMD_RS and status & lib.US_E1000_TXD_STAT_DD:
                words.append("DD")
        if _is_between(i, ring.next_to_clean, ring.next_to_use):
            words.append("in-use")
        words += _marks(i, ring.next_to_use, ring.next_to_clean)
        yield _line(i, addr, length, words)


def _is_between(i: int, first: int, end: int) -> bool:
    """Whether ``i`` lies in [first, end) of a ring."""
    return first <= i < end if first <= end else i >= first or i < end


def _marks(i: int, next_to_use: int, next_to_clean: int) -> list[str]:
    marks = []
    if i == next_to_use:
        marks.append("<-next_to_use")
    if i == next_to_clean:
        marks.append("<-next_to_clean")
    return marks


def _line(i: int, addr: int, length: int, words: list[str]) -> str:
    return f"0x{i:03x}  {addr:016x} {length:6d}  {' '.join(words)}".rstrip()
