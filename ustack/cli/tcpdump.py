"""``ustack tcpdump``: packets as the stack's taps see them, decoded live or into a file.

The daemon streams frames until -c packets have come or we send a stop, which Ctrl-C and
SIGTERM do; it then delivers what is queued and says how many were lost. Messages about the
capture go to stderr, packets to stdout or the file, as with tcpdump.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import BinaryIO

from ustack.cli.client import Client, ClientError
from ustack.cli.decode import Decoder, format_time
from ustack.cli.streaming import note, stop_signals
from ustack.daemon.bpf import compile_filter
from ustack.daemon.messages import (
    CaptureRequest,
    Done,
    PacketPiece,
    Started,
)
from ustack.wire.pcap import PcapngWriter, PcapWriter

DEFAULT_SNAPLEN = 262_144
DECODE_SNAPLEN = 512
"""Enough for every header; what is only printed need not travel."""


class PacketPrinter:
    """Prints packets as they come."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._decoder = Decoder(link_header=args.link_header, absolute=args.absolute)
        self._no_time = args.no_time
        self._any_device = args.interface in ("", "any")

    def start(self) -> None:
        """There is no heading."""

    def packet(
        self, ts_us: int, length: int, data: bytes, *, device: str = "", outgoing: bool = False
    ) -> None:
        """Print one packet of ``length`` bytes, ``data`` being what was captured of it."""
        line = self._decoder.line(data, length)
        if self._any_device:
            line = f"{device} {'Out' if outgoing else 'In '} {line}"
        print(line if self._no_time else f"{format_time(ts_us)} {line}", flush=True)

    def finish(self, received: int, dropped: int) -> None:
        """There is no last line."""


Sink = PacketPrinter | PcapWriter | PcapngWriter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare tcpdump's options."""
    flag = parser.add_argument
    flag("-i", "--interface", default="", metavar="DEVICE", help="only this device; default all")
    flag(
        "-w",
        dest="file",
        metavar="FILE",
        help="write packets, not text: pcapng if FILE ends in .pcapng, else pcap; - is stdout",
    )
    flag("--pcapng", action="store_true", help="write pcapng whatever the file is called")
    flag("-Q", "--direction", choices=("in", "out", "inout"), default="inout", help="which way")
    flag("-c", dest="count", type=int, default=0, metavar="N", help="stop after N packets")
    flag("-s", dest="snaplen", type=int, default=0, metavar="BYTES", help="bytes a packet")
    flag("-e", dest="link_header", action="store_true", help="print the Ethernet header")
    flag("-S", dest="absolute", action="store_true", help="absolute sequence numbers")
    flag("-t", dest="no_time", action="store_true", help="no time")
    flag("-n", dest="numeric", action="count", help="numbers, as always here")
    flag("-l", dest="line_buffered", action="store_true", help="flush each line, as always here")
    flag("-U", dest="unbuffered", action="store_true", help="flush each packet, as always here")
    flag("filter", nargs="*", help="pcap-filter(7) expression, e.g. tcp port 80")


def run(args: argparse.Namespace, client: Client) -> int:
    """Capture until told to stop.

    Raises:
        ClientError: a bad filter, the file cannot be written, no such device.
    """
    program, expression = b"", " ".join(args.filter)
    if expression:
        try:
            program = compile_filter(expression)
        except ValueError as error:
            raise ClientError(f"tcpdump: {error}") from error
    if args.count < 0 or args.snaplen < 0:
        raise ClientError("tcpdump: -c and -s take positive numbers")
    snaplen = args.snaplen or DEFAULT_SNAPLEN
    with open_output(args.file) as stream:
        sink: Sink
        wanted = snaplen
        if stream is None:
            sink, wanted = PacketPrinter(args), min(snaplen, DECODE_SNAPLEN)
        elif args.pcapng or args.file.endswith(".pcapng"):
            sink = PcapngWriter(stream, snaplen, filter_text=expression)
        else:
            sink = PcapWriter(stream, snaplen)
        device = "" if args.interface == "any" else args.interface
        client.wait_forever()
        request = CaptureRequest(device, wanted, args.count, args.direction, program)
        with stop_signals(client, request):
            capture(client, sink, device or "any", snaplen)
    return 0


def capture(client: Client, sink: Sink, device: str, snaplen: int) -> None:
    """Hand every packet to ``sink``, report at the end."""
    captured = 0
    pieces: list[bytes] = []
    while True:
        reply = client.receive()
        if isinstance(reply, PacketPiece):
            pieces.append(reply.data)
            if reply.last:
                captured += 1
                sink.packet(
                    reply.ts_us,
                    reply.length,
                    b"".join(pieces),
                    device=reply.device,
                    outgoing=reply.outgoing,
                )
                pieces.clear()
        elif isinstance(reply, Started):
            sink.start()
            note(
                f"listening on {device}, link-type EN10MB (Ethernet), "
                f"snapshot length {snaplen} bytes"
            )
        elif isinstance(reply, Done):
            break
    sink.finish(reply.received, reply.dropped)
    note(f"{captured} packet{'' if captured == 1 else 's'} captured")
    note(f"{reply.received} packet{'' if reply.received == 1 else 's'} received by filter")
    note(f"{reply.dropped} packet{'' if reply.dropped == 1 else 's'} dropped by kernel")


@contextlib.contextmanager
def open_output(name: str | None) -> Iterator[BinaryIO | None]:
    """Open the capture file; None where packets are printed.

    Raises:
        ClientError: it cannot be written.
    """
    if name is None:
        yield None
    elif name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        try:
            stream = open(name, "wb")  # noqa: SIM115 (closed below)
        except OSError as error:
            raise ClientError(f"{name}: {error.strerror}") from error
        with stream:
            yield stream
