"""Why a packet was dropped: a value, counted, never an exception.

The names are Linux's ``enum skb_drop_reason`` (include/net/dropreason-core.h) where it has
one. Each stack counts them in ``DropCounters``; ``ustack netstat --drops`` prints them.
"""

from __future__ import annotations

import enum


class DropReason(enum.IntEnum):
    """One reason for which a packet or a segment goes no further."""

    NOT_SPECIFIED = 0
    NO_SOCKET = enum.auto()
    PKT_TOO_SMALL = enum.auto()
    SOCKET_RCVBUFF = enum.auto()
    OTHERHOST = enum.auto()
    UNHANDLED_PROTO = enum.auto()
    DEV_READY = enum.auto()
    FULL_RING = enum.auto()
    NOMEM = enum.auto()
    HDR_TRUNC = enum.auto()
    CPU_BACKLOG = enum.auto()
    QDISC_DROP = enum.auto()
    IP_CSUM = enum.auto()
    IP_INHDR = enum.auto()
    IP_NOPROTO = enum.auto()
    IP_OUTNOROUTES = enum.auto()
    IP_INADDRERRORS = enum.auto()
    IP_INVALID_SOURCE = enum.auto()
    IP_OPTIONS = enum.auto()
    DUP_FRAG = enum.auto()
    FRAG_REASM_TIMEOUT = enum.auto()
    FRAG_TOO_FAR = enum.auto()
    FRAG_OVERLAP = enum.auto()
    FRAG_INVALID = enum.auto()
    FRAG_NOMEM = enum.auto()
    PKT_TOO_BIG = enum.auto()
    NEIGH_CREATEFAIL = enum.auto()
    NEIGH_FAILED = enum.auto()
    NEIGH_QUEUEFULL = enum.auto()
    NEIGH_DEAD = enum.auto()
    ARP_MALFORMED = enum.auto()
    ARP_NOT_FOR_US = enum.auto()
    ICMP_CSUM = enum.auto()
    ICMP_MALFORMED = enum.auto()
    ICMP_IGNORED = enum.auto()
    UDP_CSUM = enum.auto()
    TCP_CSUM = enum.auto()
    TCP_HDR = enum.auto()
    TCP_FLAGS = enum.auto()
    TCP_OVERWINDOW = enum.auto()
    TCP_OLD_SEQUENCE = enum.auto()
    TCP_INVALID_SEQUENCE = enum.auto()
    TCP_INVALID_END_SEQUENCE = enum.auto()
    TCP_RFC7323_PAWS = enum.auto()
    TCP_RFC7323_PAWS_ACK = enum.auto()
    TCP_TOO_OLD_ACK = enum.auto()
    TCP_ACK_UNSENT_DATA = enum.auto()
    TCP_INVALID_SYN = enum.auto()
    TCP_INVALID_ACK_SEQUENCE = enum.auto()
    TCP_RESET = enum.auto()
    TCP_NO_ACK = enum.auto()
    TCP_ZEROWINDOW = enum.auto()
    TCP_OLD_DATA = enum.auto()
    TCP_OFOMERGE = enum.auto()
    PROTO_MEM = enum.auto()
    TCP_ABORT_ON_DATA = enum.auto()
    TCP_LISTEN_OVERFLOW = enum.auto()
    TCP_REQQ_FULL = enum.auto()
    TCP_TIMEWAIT = enum.auto()
    TCP_LISTEN_NOT_SYN = enum.auto()
    TCP_DEFER_ACCEPT = enum.auto()
    TCP_RFC7323_TSECR = enum.auto()
    TCP_AUTH_HDR = enum.auto()
    TCP_MD5NOTFOUND = enum.auto()
    TCP_MD5UNEXPECTED = enum.auto()
    TCP_MD5FAILURE = enum.auto()


class DropCounters:
    """How many packets each reason has cost; one per stack."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts = [0] * len(DropReason)

    def count(self, reason: DropReason) -> None:
        """Add one packet to ``reason``."""
        self.counts[reason] += 1

    def __getitem__(self, reason: DropReason) -> int:
        return self.counts[reason]

    def nonzero(self) -> dict[str, int]:
        """Return the reasons that have cost something, by name."""
        return {reason.name: n for reason, n in zip(DropReason, self.counts, strict=True) if n}
