"""Capture files: pcap and pcapng written as packets come, and read back.

``ustack tcpdump -w`` and the recording wire write them, tcpdump and Wireshark read them. Both
formats are dpkt's; pcapng's packet block is packed here, because dpkt's cannot say that a packet
was cut short. pcapng: draft-ietf-opsawg-pcapng, with a device's name and each packet's direction.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import dpkt

EPB_FLAGS = 2
"""Option of a packet block: a 32-bit word whose lowest two bits are the direction."""
EPB_INBOUND = 1
EPB_OUTBOUND = 2
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
