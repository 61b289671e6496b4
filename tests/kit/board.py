"""A board for hardware tests: a device, its memory and a wire, with no driver but the test."""

from __future__ import annotations

from struct import Struct

from ustack.native.lib import lib
from ustack.native.mem import Mem
from ustack.nic.igb import IgbNic
from ustack.nic.pair import wire_pair
from ustack.nic.wire import VNET_HDR_NONE, Wire

RX_READ = Struct("<QQ")
RX_WB = Struct("<HHIIHH")
TX_READ = Struct("<QII")
TX_CTXT = Struct("<IIII")
BUFFER = 2048
MAC = bytes.fromhex("020000000001")
PEER = bytes.fromhex("020000000002")


def ethernet(payload: bytes, dest: bytes = MAC, ethertype: int = 0x88B5) -> bytes:
    """Return an Ethernet frame; by default of an EtherType that is for experiments."""
    return dest + PEER + ethertype.to_bytes(2, "big") + payload


class Board:
    """Rings of ``count`` descriptors, programmed by hand."""

    def __init__(self, wire: Wire | None = None, count: int = 256, *, pause: bool = True) -> None:
        self.mem = Mem(16 << 20)
        if wire is None:
            wire, self.far = wire_pair()
        self.nic = IgbNic(self.mem, wire)
        self.regs = self.nic.regs
        self.count = count
        self.delivered: list[int] = []
        self.nic.request_irq(0, self.delivered.append)
        self._set_up_rx(pause)
        self._set_up_tx()
        self.regs.EIAC = self.regs.EIAM = 1
        self.nic.write_eims(1)

    def _set_up_rx(self, pause: bool) -> None:
        self.rxq = self.regs.rxq + 0
        self.rx_ring = self.mem.alloc_pages(4)
        self.rx_buffers = [self.mem.alloc_pages(0) for _ in range(self.count)]
        self.rxq.RDBAL, self.rxq.RDLEN = self.rx_ring, self.count * 16
        self.rxq.SRRCTL = BUFFER
        self.rxq.RXDCTL = lib.US_E1000_RXDCTL_QUEUE_ENABLE
        self.regs.RCTL = lib.US_E1000_RCTL_EN
        self.regs.RLPML = 1518
        self.regs.RXCSUM = lib.US_E1000_RXCSUM_IPOFL | lib.US_E1000_RXCSUM_TUOFL
        self.regs.CTRL = lib.US_E1000_CTRL_RFCE if pause else 0
        for i in range(self.count):
            self.post(i)
        self.rxq.RDT = self.count - 1

    def _set_up_tx(self) -> None:
        self.txq = self.regs.txq + 0
        self.tx_ring = self.mem.alloc_pages(4)
        self.tx_buffer = self.mem.alloc_pages(5)
        self.txq.TDBAL, self.txq.TDLEN = self.tx_ring, self.count * 16
        self.txq.TXDCTL = lib.US_E1000_TXDCTL_QUEUE_ENABLE
        self.regs.TCTL = lib.US_E1000_TCTL_EN

    # Receiving.

    def post(self, i: int, addr: int | None = None) -> None:
        """Write descriptor ``i`` in its read format."""
        addr = self.rx_buffers[i] if addr is None else addr
        RX_READ.pack_into(self.mem.view, self.rx_ring + 16 * i, addr, 0)

    def arrive(self, *frames: bytes, header: bytes = VNET_HDR_NONE) -> None:
        """Put frames on the wire and let the device move what it can."""
        for frame in frames:
            self.far.send_frame(header + frame)
        self.nic.dma_rx(limit=100_000)

    def write_back(self, i: int) -> tuple[int, int, int, int]:
        """Return pkt_info, hdr_info, status_error and length of descriptor ``i``."""
        info, hdr, _, status, length, _ = RX_WB.unpack_from(self.mem.view, self.rx_ring + 16 * i)
        return info, hdr, status, length

    def status(self, i: int) -> int:
        return self.write_back(i)[2]

    def buffer(self, i: int) -> bytes:
        length = self.write_back(i)[3]
        return bytes(self.mem.view[self.rx_buffers[i] : self.rx_buffers[i] + length])

    # Sending.

    def data(
        self, i: int, frame: bytes, *, at: int = 0, eop: bool = True, rs: bool = True,
        cmd: int = 0, olinfo: int = 0,
    ) -> None:  # fmt: skip
        """Put bytes at ``at`` of the transmit buffer and a data descriptor for them at ``i``."""
        addr = self.tx_buffer + at
        self.mem.view[addr : addr + len(frame)] = frame
        cmd |= lib.US_E1000_ADVTXD_DTYP_DATA | lib.US_E1000_ADVTXD_DCMD_DEXT | len(frame)
        cmd |= lib.US_E1000_ADVTXD_DCMD_EOP if eop else 0
        cmd |= lib.US_E1000_ADVTXD_DCMD_RS if rs else 0
        TX_READ.pack_into(self.mem.view, self.tx_ring + 16 * i, addr, cmd, olinfo)

    def context(self, i: int, maclen: int, iplen: int, l4len: int, mss: int, tcp: bool) -> None:
        """Write a context descriptor at ``i``."""
        kind = lib.US_E1000_ADVTXD_DTYP_CTXT | lib.US_E1000_ADVTXD_DCMD_DEXT
        kind |= lib.US_E1000_ADVTXD_TUCMD_L4T_TCP if tcp else 0
        TX_CTXT.pack_into(
            self.mem.view,
            self.tx_ring + 16 * i,
            maclen << 9 | iplen,
            0,
            kind,
            l4len << 8 | mss << 16,
        )

    def tx_is_done(self, i: int) -> bool:
        """Whether the device wrote DD into transmit descriptor ``i``."""
        return bool(TX_READ.unpack_from(self.mem.view, self.tx_ring + 16 * i)[2] & 1)
