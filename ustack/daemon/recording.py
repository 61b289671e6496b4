"""``ustackd --record FILE`` and ``--replay FILE``: wires that write down and play back.

From the TAP to the NIC: TAP, replay, impairments, recorder. So a recording holds what the NIC
received and sent, and a replayed frame meets the same faults as one of the host's. A recording
that was made with ``--record`` can be replayed: what the stack itself sent is left out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ustack.daemon.impair import ImpairOptions, impaired
from ustack.lib.clock import StackClock
from ustack.nic.record import RecordingWire, ReplayWire
from ustack.nic.wire import Wire

SNAPLEN = 262_144


class Recorder:
    """A sink that ends, with one line on stderr, when the file takes no more."""

    def __init__(self, path: Path) -> None:
        """Raises OSError: the file cannot be written."""
        from ustack.wire.pcap import PcapngWriter  # dpkt takes its time to load

        self._path = path
        self._stream: BinaryIO | None = path.open("wb")
        self._writer = PcapngWriter(self._stream, SNAPLEN)
        self._received = 0
        self._writer.start()

    def packet(
        self, ts_us: int, length: int, data: bytes, *, device: str = "", outgoing: bool = False
    ) -> None:
        """Write one frame."""
        if self._stream is None:
            return
        try:
            self._writer.packet(ts_us, length, data, device=device, outgoing=outgoing)
            self._received += 1
        except OSError as error:
            print(f"ustackd: recording ends: {self._path}: {error.strerror}", file=sys.stderr)
            self._stream = None

    def close(self) -> None:
        """Finish the file."""
        if self._stream is not None:
            try:
                self._writer.finish(self._received, 0)
                self._stream.close()
            except OSError:
                pass  # the disk is full: what there is stays readable
            self._stream = None


class WireChain:
    """The wires between the TAP and the NIC, as the options want them."""

    def __init__(
        self,
        tap: Wire,
        clock: StackClock,
        *,
        impair: ImpairOptions | None = None,
        record: Path | None = None,
        replay: Path | None = None,
    ) -> None:
        """Put them together.

        Raises:
            OSError: a file cannot be opened. ValueError: ``replay`` is no capture.
        """
        self._recorder: Recorder | None = None
        self._replay: ReplayWire | None = None
        self.wire = tap
        if replay is not None:
            self.wire = self._replay = ReplayWire(tap, clock, read_capture(replay), paused=True)
        self.wire = impaired(self.wire, clock, impair)
        if record is not None:
            self._recorder = Recorder(record)
            epoch_us = time.time_ns() // 1000 - clock.now_us
            self.wire = RecordingWire(self.wire, clock, self._recorder, epoch_us=epoch_us)

    def start_replay(self) -> None:
        """The stack is ready: the first frame arrives now."""
        if self._replay is not None:
            self._replay.resume()

    def close(self) -> None:
        """Finish the recording."""
        if self._recorder is not None:
            self._recorder.close()


def read_capture(path: Path) -> Iterator[tuple[int, bytes]]:
    """Return a capture's received frames, read as they are wanted.

    Raises:
        OSError: the file cannot be opened. ValueError: it is no capture.
    """
    from ustack.wire.pcap import read_received

    return read_received(path.open("rb"), path.open("rb"))
