"""A flight of segments to lose, delay and acknowledge piece by piece: loss recovery's scripts.

The path has a round trip of its own (100 ms by default): the handshake takes it, so srtt and
the least RTT are known. Segments are 1000 bytes; segment 0 is bytes 1 to 1001.
"""

from __future__ import annotations

from typing import Any

from kit.host import Host
from kit.segment import MASK, pattern

RTT_US = 100_000


class Flight:
    """One connection of ``host`` with ``segments`` segments in flight."""

    def __init__(
        self, host: Host, segments: int = 10, *, sack: bool = True, ts: bool = False,
        rtt_us: int = RTT_US, win: int = 65535,
    ) -> None:  # fmt: skip
        self.host = host
        lsk = host.listen(80)
        lsk.setsockopt(6, 13, b"reno")  # half of cwnd on a loss, whatever the default is
        self.peer = host.peer()
        self.ts = ts
        if ts:
            options = "mss 1012,sackOK,TS val 1 ecr 0,nop,wscale 7"
        else:
            options = "mss 1000,nop,nop,sackOK,nop,wscale 7" if sack else "mss 1000,nop,wscale 7"
        self.peer.send(f"S 0:0(0) win 65535 <{options}>")
        self.peer.expect("S. 0:0(0) ack 1")
        host.advance_us(rtt_us)
        self.peer.send(f". 1:1(0) ack 1 win {win}" + (" <nop,nop,TS val 1 ecr *>" if ts else ""))
        self.sk = lsk.accept()
        self.written = 0
        self.first_ts = 0
        if segments:
            self.write(segments)
            self.first_ts = self.peer.last_ts_val
            sent = self.out()
            assert sent == [(1000 * i + 1, 1000 * i + 1001) for i in range(len(sent))]
            host.advance_us(rtt_us)

    @property
    def tp(self) -> Any:
        """The control block."""
        return self.sk._sk.tp

    @property
    def recovery(self) -> Any:
        """What loss recovery remembers."""
        return self.sk._sk.recovery

    @property
    def mib(self) -> Any:
        """The host's counters."""
        return self.host.mib

    def write(self, segments: int) -> None:
        """Let the application write so many segments more."""
        self.sk.send(pattern(self.written, 1000 * segments))
        self.written += 1000 * segments

    def wait(self, delta_us: int) -> None:
        """Let time pass."""
        self.host.advance_us(delta_us)

    def ack(self, segments: int, *sacks: tuple[int, int], ecr: int | None = None) -> None:
        """Acknowledge the first ``segments`` segments, SACK others by their numbers.

        Args:
            sacks: ranges of segments: (2, 4) is segments 2 and 3.
            ecr: TSecr where there are timestamps; by default that of the newest segment.
        """
        options = []
        if self.ts:
            options.append(f"nop,nop,TS val 1 ecr {'*' if ecr is None else ecr}")
        if sacks:
            blocks = " ".join(f"{1000 * a + 1}:{1000 * b + 1}" for a, b in sacks)
            options.append(f"nop,nop,sack {blocks}")
        text = f" <{','.join(options)}>" if options else ""
        self.peer.send(f". 1:1(0) ack {1000 * segments + 1}{text}")

    def dup(self, times: int = 1, segments: int = 0) -> None:
        """Send plain duplicate ACKs."""
        for _ in range(times):
            self.ack(segments)

    def out(self) -> list[tuple[int, int]]:
        """Return the data segments that came since the last look, as (start, end) in bytes."""
        iss = self.peer.host_iss or 0
        taken = []
        for seg in self.peer.drain():
            start = seg.seq - iss & MASK
            if seg.payload:
                assert seg.payload == pattern(start - 1, len(seg.payload)), "foreign bytes"
                taken.append((start, start + len(seg.payload)))
        return taken

    def segs(self) -> list[int]:
        """Return the numbers of the whole segments that came since the last look."""
        numbers = []
        for start, end in self.out():
            assert start % 1000 == 1 and end == start + 1000, f"an odd segment {start}:{end}"
            numbers.append(start // 1000)
        return numbers
