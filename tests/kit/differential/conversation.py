"""One scripted peer's view of a connection, whoever is at the other end, and what it saw."""

from __future__ import annotations

from kit.segment import (
    ACK,
    MASK,
    SYN,
    Option,
    Segment,
    flags_text,
    parse_script,
    pattern,
    with_relative_sack,
)


class Conversation:
    """Numbers relative to both ISNs, in lines as they are compared."""

    def __init__(self, addr: int, port: int, host: int, host_port: int, iss: int) -> None:
        self.addr = addr
        self.port = port
        self.host = host
        self.host_port = host_port
        """0 until the host's SYN says it."""
        self.iss = iss
        self.host_iss: int | None = None
        self.last_ts_val = 0

    def segment(self, line: str) -> Segment:
        """Build the segment that ``line`` says; its data is the pattern at that place."""
        said = parse_script(line)
        ack = 0 if said.ack is None else (self.host_iss or 0) + said.ack & MASK
        options = tuple(self._absolute(option) for option in said.options or ())
        return Segment(
            self.addr, self.host, self.port, self.host_port or 9, self.iss + said.seq & MASK, ack,
            said.flags, 65535 if said.win is None else said.win,
            pattern(max(said.seq - 1, 0), said.length), said.urg or 0, options,
        )  # fmt: skip

    def _absolute(self, option: Option) -> Option:
        name, values = option
        if name == "sack":
            values = tuple((self.host_iss or 0) + (v or 0) & MASK for v in values)
        elif name == "TS":
            values = (values[0], self.last_ts_val if values[1] is None else values[1])
        return (name, values)

    def takes(self, seg: Segment) -> bool:
        """Whether ``seg`` goes to this peer; a SYN of the host fixes its port."""
        if seg.dport != self.port:
            return False
        if seg.flags & (SYN | ACK) == SYN:
            self.host_port = seg.sport
        return True

    def describe(self, seg: Segment) -> str:
        """Write a segment of the host as it is compared: all but ISN and timestamp clock."""
        if seg.flags & SYN:
            self.host_iss = seg.seq
        if (ts := seg.option("TS")) is not None:
            self.last_ts_val = ts[0] or 0
        start = seg.seq - (self.host_iss or 0) & MASK if seg.seq else 0
        size = len(seg.payload)
        text = f"{flags_text(seg.flags)} {start}:{start + size}({size})"
        if seg.flags & ACK or seg.ack:
            text += f" ack {seg.ack - self.iss & MASK}"
        text += f" win {seg.window}"
        if seg.urgent:
            text += f" urg {seg.urgent}"
        if seg.options:
            text += f" <{self._options(seg)}>"
        return text + self._remarks(seg, start)

    def _options(self, seg: Segment) -> str:
        words = []
        for name, values in with_relative_sack(seg, self.iss).options:
            if name == "TS":
                words.append(f"TS val * ecr {values[1]}")
            elif name == "sack":
                pairs = zip(values[::2], values[1::2], strict=True)
                words.append("sack " + " ".join(f"{a}:{b}" for a, b in pairs))
            else:
                words.append(" ".join([name, *map(str, values)]))
        return ",".join(words)

    def _remarks(self, seg: Segment, start: int) -> str:
        """What is not as always: time to live, type of service, fragments, data, checksum."""
        out = ""
        if seg.ttl != 64:
            out += f" ttl {seg.ttl}"
        if seg.tos:
            out += f" tos {seg.tos}"
        if not seg.df:
            out += " no-df"
        if not seg.checksum_ok:
            out += " bad-checksum"
        if seg.payload and seg.payload != pattern(max(start - 1, 0), len(seg.payload)):
            out += " other-data"
        return out
