"""Capture files: pcap and pcapng written as packets come, and read back.

``ustack tcpdump -w`` and the recording wire write them, tcpdump and Wireshark read them. Both
formats are dpkt's; pcapng's packet block is packed here, because dpkt's cannot say that a packet
was cut short. pcapng: draft-ietf-opsawg-pcapng, with a device's name and each packet's direction.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import chain, zip_longest
from typing import BinaryIO

import dpkt

EPB_FLAGS = 2
"""Option of a packet block: a 32-bit word whose lowest two bits are the direction."""
EPB_INBOUND = 1
EPB_OUTBOUND = 2
SHB_MAGIC = b"\n\r\r\n"
BYTE_ORDER_LE = b"\x4d\x3c\x2b\x1a"
ISB_TYPE = 5
ISB_IFRECV = 4
ISB_IFDROP = 5
_EPB_HEAD = struct.Struct("<IIIIIII")
_EPB_TAIL = struct.Struct("<HHIHHI")


class PcapWriter:
    """Writes pcap; the file is complete after each packet."""

    def __init__(self, stream: BinaryIO, snaplen: int) -> None:
        self._stream = stream
        self._snaplen = snaplen

    def start(self) -> None:
        """Write the file header: whoever sees it knows that the capture is running."""
        header = dpkt.pcap.LEFileHdr(
            magic=dpkt.pcap.TCPDUMP_MAGIC,
            snaplen=self._snaplen,
            linktype=dpkt.pcap.DLT_EN10MB,
        )
        self._stream.write(bytes(header))
        self._stream.flush()

    def packet(
        self, ts_us: int, length: int, data: bytes, *, device: str = "", outgoing: bool = False
    ) -> None:
        """Write one packet of ``length`` bytes, ``data`` being what was captured of it."""
        del device, outgoing  # this format has no place for them
        seconds, micros = divmod(ts_us, 1_000_000)
        record = dpkt.pcap.LEPktHdr(tv_sec=seconds, tv_usec=micros, caplen=len(data), len=length)
        self._stream.write(bytes(record) + data)
        self._stream.flush()

    def finish(self, received: int, dropped: int) -> None:
        """There is no trailer."""


class PcapngWriter:
    """Writes pcapng, one interface per device; the file is complete after each packet."""

    def __init__(self, stream: BinaryIO, snaplen: int, *, filter_text: str = "") -> None:
        self._stream = stream
        self._snaplen = snaplen
        self._filter_text = filter_text
        self._interfaces: dict[str, int] = {}

    def start(self) -> None:
        """Write the section header."""
        header = dpkt.pcapng.SectionHeaderBlockLE(
            opts=[option(dpkt.pcapng.PCAPNG_OPT_SHB_USERAPPL, b"ustack tcpdump"), option(0, b"")]
        )
        self._write(bytes(header))

    def packet(
        self, ts_us: int, length: int, data: bytes, *, device: str = "", outgoing: bool = False
    ) -> None:
        """Write one packet of ``length`` bytes, ``data`` being what was captured of it."""
        interface = self._interfaces.get(device)
        if interface is None:
            interface = self._add_interface(device)
        padding = -len(data) % 4
        size = _EPB_HEAD.size + len(data) + padding + _EPB_TAIL.size
        head = _EPB_HEAD.pack(
            dpkt.pcapng.PCAPNG_BT_EPB, size, interface,
            ts_us >> 32, ts_us & 0xFFFFFFFF, len(data), length,
        )  # fmt: skip
        direction = EPB_OUTBOUND if outgoing else EPB_INBOUND
        tail = _EPB_TAIL.pack(EPB_FLAGS, 4, direction, 0, 0, size)
        self._write(head + data + bytes(padding) + tail)

    def finish(self, received: int, dropped: int) -> None:
        """Say what the capture lost, in a statistics block of the first interface."""
        if not self._interfaces:
            return
        body = struct.pack("<III", 0, 0, 0)  # of which interface; no time
        for code, value in ((ISB_IFRECV, received), (ISB_IFDROP, dropped)):
            body += struct.pack("<HHQ", code, 8, value)
        body += bytes(4)
        size = 12 + len(body)
        self._write(struct.pack("<II", ISB_TYPE, size) + body + struct.pack("<I", size))

    def _add_interface(self, device: str) -> int:
        options = [option(dpkt.pcapng.PCAPNG_OPT_IF_NAME, device.encode())]
        if self._filter_text:
            options.append(
                option(dpkt.pcapng.PCAPNG_OPT_IF_FILTER, b"\0" + self._filter_text.encode())
            )
        options.append(option(0, b""))
        block = dpkt.pcapng.InterfaceDescriptionBlockLE(snaplen=self._snaplen, opts=options)
        self._write(bytes(block))
        number = self._interfaces[device] = len(self._interfaces)
        return number

    def _write(self, block: bytes) -> None:
        self._stream.write(block)
        self._stream.flush()


def option(code: int, data: bytes) -> dpkt.pcapng.PcapngOptionLE:
    """Return one pcapng option; code 0 ends a list."""
    return dpkt.pcapng.PcapngOptionLE(code=code, data=data)


def read_received(stream: BinaryIO, again: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield a capture's packets as ``read_packets``, but not those marked as outgoing.

    Args:
        stream: the file.
        again: the same file, opened once more: dpkt does not tell directions.

    Raises:
        ValueError: see ``read_packets``; at once.
    """
    packets = read_packets(stream)
    first = next(packets, None)
    whole = iter(()) if first is None else chain([first], packets)
    return (
        packet
        for packet, direction in zip_longest(whole, packet_directions(again))
        if packet is not None and direction != EPB_OUTBOUND
    )


def packet_directions(stream: BinaryIO) -> Iterator[int]:
    """Yield each packet's direction, 0 where the file does not say; nothing for a pcap."""
    order = "<"
    while len(head := stream.read(8)) == 8:
        if head[:4] == SHB_MAGIC:
            order = "<" if stream.read(4) == BYTE_ORDER_LE else ">"
            stream.seek(-4, 1)
        kind, size = struct.unpack(order + "II", head)
        if head[:4] != SHB_MAGIC and stream.tell() == 8:
            return  # not pcapng
        body = stream.read(max(size, 12) - 8)
        if kind == dpkt.pcapng.PCAPNG_BT_EPB and len(body) >= 24:
            yield _direction_of(body, order)
        elif kind in (dpkt.pcapng.PCAPNG_BT_PB, dpkt.pcapng.PCAPNG_BT_SPB):
            yield 0


def _direction_of(body: bytes, order: str) -> int:
    """Find EPB_FLAGS among a packet block's options."""
    at = 20 + (struct.unpack_from(order + "I", body, 12)[0] + 3 & ~3)
    while at + 4 <= len(body) - 4:
        code, size = struct.unpack_from(order + "HH", body, at)
        if code == EPB_FLAGS and size == 4 and at + 8 <= len(body):
            return int(struct.unpack_from(order + "I", body, at + 4)[0]) & 3
        if code == 0:
            break
        at += 4 + (size + 3 & ~3)
    return 0


def read_packets(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield (microseconds since the epoch, frame) of a pcap or pcapng file.

    Raises:
        ValueError: it is neither, or cut off in the middle of a header.
    """
    try:
        reader = dpkt.pcap.UniversalReader(stream)
    except dpkt.Error as error:
        raise ValueError(str(error)) from error
    for seconds, frame in reader:
        yield round(seconds * 1_000_000), bytes(frame)
