"""Putting fragments together again (RFC 791 §3.2, RFC 815; net/ipv4/ip_fragment.c).

``ip_rcv`` hands each fragment of a packet for us to ``IpFrags.ip_defrag`` and goes on with the
whole packet once it is there. Nobody may rewrite what has come: a fragment that overlaps
another ends its packet (RFC 5722; Linux since 4.19), one that adds nothing is a duplicate.
What is kept costs bounded memory (``ipfrag_high_thresh``) for a bounded time (``ipfrag_time``).
"""

from __future__ import annotations

from bisect import bisect_right
from struct import Struct
from typing import TYPE_CHECKING

from ustack.core.skb import CHECKSUM_NONE, Skb, kfree_skb
from ustack.core.timer import Timer
from ustack.lib.drop_reason import DropReason
from ustack.link.neigh_table import SKB_TRUESIZE_OVERHEAD
from ustack.native.checksum import ip_fast_csum
from ustack.wire.icmp import ICMP_EXC_FRAGTIME, ICMP_TIME_EXCEEDED
from ustack.wire.ipv4 import IP_DF, IP_MAX_LEN, IP_MF, IP_OFFSET, IPV4_HEADER

if TYPE_CHECKING:
    from ustack.ipv4.protocol import Ipv4

IPQ_TRUESIZE = 1024
"""Bytes charged for an IpQueue beside its fragments: the object, its dict and lists."""

_ECN_MASK = 3
_ECN_NOT_ECT, _ECN_CE = 1 << 0, 1 << 3
_TOS_LEN = Struct("!BH")
_FRAG_OFF = Struct("!H")

FragKey = tuple[int, int, int, int]
"""(saddr, daddr, identification, protocol): RFC 791's identity of a packet."""


class IpQueue:
    """The fragments of one packet (struct ipq)."""

    __slots__ = (
        "ecn",
        "ends",
        "expires_us",
        "fragments",
        "key",
        "last_in",
        "len",
        "max_df_size",
        "max_size",
        "rid",
        "starts",
        "truesize",
    )

    def __init__(self, key: FragKey, rid: int) -> None:
        self.key = key
        self.rid = rid
        """The peer's fragment count when the last fragment came (``ipfrag_max_dist``)."""
        self.expires_us = 0
        self.max_size = 0
        self.max_df_size = 0
        self.clear()

    def clear(self) -> None:
        """Forget all fragments; the caller has freed them."""
        self.fragments: dict[int, Skb] = {}
        """By offset in bytes."""
        self.starts: list[int] = []
        self.ends: list[int] = []
        """Runs without a gap, in order: bytes ``starts[i]`` to ``ends[i]`` have come."""
        self.len = 0
        """Bytes of payload that are known to exist."""
        self.last_in = False
        self.ecn = 0
        self.truesize = IPQ_TRUESIZE

    def insert(self, offset: int, end: int) -> DropReason | None:
        """Enter bytes ``offset`` to ``end`` (inet_frag_queue_insert); return why not."""
        starts, ends = self.starts, self.ends
        after = bisect_right(starts, offset)
        joins_last = False
        if after:
            last_end = ends[after - 1]
            if end <= last_end:
                return DropReason.DUP_FRAG
            if offset < last_end:
                return DropReason.FRAG_OVERLAP
            joins_last = offset == last_end
        joins_next = False
        if after < len(starts):
            if end > starts[after]:
                return DropReason.FRAG_OVERLAP
            joins_next = end == starts[after]
        if joins_last and joins_next:
            ends[after - 1] = ends.pop(after)
            del starts[after]
        elif joins_last:
            ends[after - 1] = end
        elif joins_next:
            starts[after] = offset
        else:
            starts.insert(after, offset)
            ends.insert(after, end)
        return None

    @property
    def is_complete(self) -> bool:
        """Whether every byte has come."""
        return self.last_in and self.starts == [0] and self.ends == [self.len]


class IpFrags:
    """All packets of one stack that are being put together (struct fqdir)."""

    def __init__(self, ip: Ipv4) -> None:
        self.ip = ip
        self.net = ip.net
        self.mem = 0
        """Bytes charged for all queues: ``FRAG: memory`` of /proc/net/sockstat."""
        self._queues: dict[FragKey, IpQueue] = {}
        """The one that expires first is first, so that one timer serves all."""
        self._peers: dict[int, list[int]] = {}
        """Source -> [fragments that came from it, its queues] while it has queues."""
        self._timer = Timer(self._expire)

    def __len__(self) -> int:
        return len(self._queues)

    def ip_defrag(self, skb: Skb) -> Skb | None:
        """Take a fragment; it is consumed.

        Returns:
            The whole packet, owned by the caller, if this was the last piece that lacked.
        """
        mib = self.ip.mib
        mib.ReasmReqds += 1
        _, tos, _, ident, frag, _, proto, _, saddr, daddr = IPV4_HEADER.unpack_from(
            skb.data, skb.network_offset
        )
        qp = self._find((saddr, daddr, ident, proto))
        if qp is None:
            mib.ReasmFails += 1
            kfree_skb(self.net, skb, DropReason.FRAG_NOMEM)
            return None
        if self._is_too_far(qp):
            mib.ReasmFails += 1
            self._reinit(qp)
        reason = self._queue(qp, skb, tos, frag)
        if reason is not None:
            if reason is not DropReason.DUP_FRAG:
                self._fail(qp, reason)
            kfree_skb(self.net, skb, reason)
            return None
        return self._reasm(qp) if qp.is_complete else None

    def _find(self, key: FragKey) -> IpQueue | None:
        """Return the queue of a packet, a new one if need be (inet_frag_find)."""
        config = self.ip.config
        if self.mem > config.ipfrag_high_thresh:
            if not config.ipfrag_evict:
                return None
            self._evict(config.ipfrag_low_thresh)
        qp = self._queues.get(key)
        if qp is None:
            peer = self._peers.setdefault(key[0], [0, 0])
            peer[1] += 1
            qp = self._queues[key] = IpQueue(key, peer[0])
            qp.expires_us = self.net.clock.now_us + config.ipfrag_time_us
            self.mem += qp.truesize
            if not self._timer.pending:
                self.net.timers.mod_timer(self._timer, qp.expires_us)
        return qp

    def _evict(self, low_thresh: int) -> None:
        while self.mem > low_thresh and self._queues:
            self._fail(next(iter(self._queues.values())), DropReason.FRAG_NOMEM)

    # One fragment.

    def _queue(self, qp: IpQueue, skb: Skb, tos: int, frag: int) -> DropReason | None:
        """Put a fragment in its place (ip_frag_queue); return why it has none."""
        offset = (frag & IP_OFFSET) << 3
        payload_bytes = len(skb.data) - skb.transport_offset
        if frag & IP_MF:
            payload_bytes &= ~7
        end = offset + payload_bytes
        if not payload_bytes or not _note_end(qp, end, last=not frag & IP_MF):
            return DropReason.FRAG_INVALID
        reason = qp.insert(offset, end)
        if reason is not None:
            if reason is DropReason.FRAG_OVERLAP:
                self.ip.ext.ReasmOverlaps += 1
            return reason
        skb.data = bytes(skb.data[: skb.transport_offset + payload_bytes])
        qp.fragments[offset] = skb
        qp.ecn |= 1 << (tos & _ECN_MASK)
        size = skb.transport_offset - skb.network_offset + payload_bytes
        qp.max_size = max(qp.max_size, size)
        if frag & IP_DF:
            qp.max_df_size = max(qp.max_df_size, size)
        truesize = len(skb.data) + SKB_TRUESIZE_OVERHEAD
        qp.truesize += truesize
        self.mem += truesize
        return None

    def _is_too_far(self, qp: IpQueue) -> bool:
        """Count a fragment of its source; whether too many came since the last of ``qp``.

        Identifications are 16 bits wide: on a fast link a lost fragment's packet would be
        completed with a piece of a later one (ip_frag_too_far, RFC 4963).
        """
        peer = self._peers[qp.key[0]]
        peer[0] += 1
        distance, qp.rid = peer[0] - qp.rid, peer[0]
        most = self.ip.config.ipfrag_max_dist
        return bool(most and qp.fragments and distance > most)

    def _reinit(self, qp: IpQueue) -> None:
        """Begin anew with the fragment at hand, and with its time (ip_frag_reinit)."""
        for old in qp.fragments.values():
            kfree_skb(self.net, old, DropReason.FRAG_TOO_FAR)
        self.mem -= qp.truesize
        qp.clear()
        self.mem += qp.truesize
        qp.expires_us = self.net.clock.now_us + self.ip.config.ipfrag_time_us
        self._queues[qp.key] = self._queues.pop(qp.key)

    # The end of a packet.

    def _kill(self, qp: IpQueue) -> None:
        """Take a queue out; its fragments are the caller's (inet_frag_kill)."""
        del self._queues[qp.key]
        self.mem -= qp.truesize
        peer = self._peers[qp.key[0]]
        peer[1] -= 1
        if not peer[1]:
            del self._peers[qp.key[0]]
        if not self._queues:
            self.net.timers.del_timer(self._timer)

    def _fail(self, qp: IpQueue, reason: DropReason) -> None:
        self._kill(qp)
        self.ip.mib.ReasmFails += 1
        for skb in qp.fragments.values():
            kfree_skb(self.net, skb, reason)

    def _reasm(self, qp: IpQueue) -> Skb | None:
        """Join a complete packet (ip_frag_reasm)."""
        head = qp.fragments[0]
        if head.transport_offset - head.network_offset + qp.len > IP_MAX_LEN or (
            qp.ecn & _ECN_NOT_ECT and qp.ecn != _ECN_NOT_ECT
        ):
            # RFC 3168 §5.3: fragments that disagree whether ECN is in use
            self._fail(qp, DropReason.FRAG_INVALID)
            return None
        self._kill(qp)
        self.ip.mib.ReasmOKs += 1
        pieces = [self._whole_header(qp, head)]
        for offset in sorted(qp.fragments):
            skb = qp.fragments[offset]
            pieces.append(bytes(skb.data[skb.transport_offset :]))
        head.data = b"".join(pieces)
        head.ip_summed = CHECKSUM_NONE  # no device has seen the whole
        return head

    def _whole_header(self, qp: IpQueue, head: Skb) -> bytes:
        """Return the first fragment's headers as they were before fragmentation."""
        at, end = head.network_offset, head.transport_offset
        header = bytearray(head.data[:end])
        tos = header[at + 1]
        if qp.ecn & _ECN_CE:
            tos |= _ECN_MASK
        _TOS_LEN.pack_into(header, at + 1, tos, end - at + qp.len)
        was_df = qp.max_df_size == qp.max_size
        _FRAG_OFF.pack_into(header, at + 6, IP_DF if was_df else 0)
        _FRAG_OFF.pack_into(header, at + 10, 0)
        _FRAG_OFF.pack_into(header, at + 10, ip_fast_csum(header[at:end]))
        return bytes(header)

    def _expire(self, _arg: object) -> None:
        """Give up what has waited for ``ipfrag_time`` (ip_expire).

        RFC 1122 §3.3.2: the sender hears of it if the first fragment is there to be quoted.
        """
        now_us = self.net.clock.now_us
        while self._queues:
            qp = next(iter(self._queues.values()))
            if qp.expires_us > now_us:
                self.net.timers.mod_timer(self._timer, qp.expires_us)
                return
            self.ip.mib.ReasmTimeout += 1
            head = qp.fragments.get(0)
            if head is not None:
                self.ip.icmp.icmp_send(head, ICMP_TIME_EXCEEDED, ICMP_EXC_FRAGTIME, 0)
            self._fail(qp, DropReason.FRAG_REASM_TIMEOUT)


def _note_end(qp: IpQueue, end: int, *, last: bool) -> bool:
    """Learn from a fragment how long the packet is; return whether it fits what is known."""
    if last:
        if end < qp.len or (qp.last_in and end != qp.len):
            return False
        qp.last_in = True
        qp.len = end
        return True
    if end > qp.len:
        if qp.last_in:
            return False
        qp.len = end
    return True
