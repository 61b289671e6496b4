"""Capture files: what is written is read back, by dpkt here and by tcpdump in tests/linux."""

from __future__ import annotations

import io
import struct

import dpkt
import pytest

from ustack.wire.pcap import PcapngWriter, PcapWriter, read_packets


def pcapng(*packets: tuple[int, int, bytes, str, bool], **options: str) -> bytes:
    stream = io.BytesIO()
    writer = PcapngWriter(stream, 65535, **options)
    writer.start()
    for ts_us, length, data, device, outgoing in packets:
        writer.packet(ts_us, length, data, device=device, outgoing=outgoing)
    writer.finish(7, 2)
    return stream.getvalue()


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    """Cut a pcapng file into (type, body), checking both lengths of each block."""
    found = []
    while data:
        kind, size = struct.unpack_from("<II", data)
        assert size % 4 == 0 and struct.unpack_from("<I", data, size - 4)[0] == size
        found.append((kind, data[8 : size - 4]))
        data = data[size:]
    return found


def test_pcapng_names_the_devices_and_the_direction():
    raw = pcapng((5_000_000_000_123, 90, b"abcde", "eth0", False), (6, 4, b"wxyz", "lo", True))
    kinds = [kind for kind, _ in blocks(raw)]
    assert kinds == [0x0A0D0D0A, 1, 6, 1, 6, 5]
    (_, idb0), (_, epb0), (_, idb1), (_, epb1), (_, isb) = blocks(raw)[1:]
    assert struct.unpack_from("<HHI", idb0) == (1, 0, 65535)
    assert b"eth0" in idb0 and b"lo" in idb1
    interface, high, low, caplen, length = struct.unpack_from("<IIIII", epb0)
    assert (interface, high << 32 | low, caplen, length) == (0, 5_000_000_000_123, 5, 90)
    assert epb0[20:28] == b"abcde\0\0\0"
    assert struct.unpack_from("<HHI", epb0, 28) == (2, 4, 1)
    assert struct.unpack_from("<I", epb1)[0] == 1
    assert struct.unpack_from("<HHI", epb1, 24) == (2, 4, 2)
    assert struct.unpack_from("<HHQHHQ", isb, 12) == (4, 8, 7, 5, 8, 2)


def test_pcapng_says_which_filter_was_used():
    assert b"\0tcp port 80" in pcapng((1, 1, b"x", "eth0", False), filter_text="tcp port 80")


def test_a_capture_of_nothing_is_a_file_all_the_same():
    assert [kind for kind, _ in blocks(pcapng())] == [0x0A0D0D0A]


def test_dpkt_reads_our_pcapng():
    raw = pcapng((1_700_000_000_000_001, 60, b"x" * 60, "eth0", False))
    ((ts, data),) = dpkt.pcapng.Reader(io.BytesIO(raw))
    assert (round(ts * 1_000_000), data) == (1_700_000_000_000_001, b"x" * 60)


@pytest.mark.parametrize("writer_type", [PcapWriter, PcapngWriter])
def test_either_format_is_read_back(writer_type: type):
    stream = io.BytesIO()
    writer = writer_type(stream, 100)
    writer.start()
    packets = [(1_700_000_000_000_000 + i, bytes([i]) * (60 + i)) for i in range(5)]
    for ts_us, data in packets:
        writer.packet(ts_us, len(data), data, device="eth0")
    writer.finish(5, 0)
    stream.seek(0)
    assert list(read_packets(stream)) == packets


@pytest.mark.parametrize("content", [b"", b"nonsense that is no capture file at all", bytes(100)])
def test_what_is_no_capture_is_refused(content: bytes):
    with pytest.raises(ValueError):
        list(read_packets(io.BytesIO(content)))
