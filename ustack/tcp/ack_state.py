"""What one acknowledgment has told so far: Linux's FLAG_* and struct tcp_sacktag_state.

``tcp_ack`` makes one for every ACK that is not plainly in order and hands it down through
SACK tagging, the retransmission queue, RACK and the state machine.
"""

from __future__ import annotations

FLAG_DATA = 0x01
"""The segment contained data."""
FLAG_WIN_UPDATE = 0x02
FLAG_DATA_ACKED = 0x04
FLAG_RETRANS_DATA_ACKED = 0x08
"""Something of what it acknowledges was repeated."""
FLAG_SYN_ACKED = 0x10
FLAG_DATA_SACKED = 0x20
FLAG_ECE = 0x40
FLAG_LOST_RETRANS = 0x80
"""A repetition is lost as well."""
FLAG_ORIG_SACK_ACKED = 0x200
"""Never repeated data of before the loss has arrived."""
FLAG_SND_UNA_ADVANCED = 0x400
FLAG_DSACKING_ACK = 0x800
FLAG_SET_XMIT_TIMER = 0x1000
FLAG_SACK_RENEGING = 0x2000
FLAG_DSACK_TLP = 0x20000

FLAG_ACKED = FLAG_DATA_ACKED | FLAG_SYN_ACKED
FLAG_NOT_DUP = FLAG_DATA | FLAG_WIN_UPDATE | FLAG_ACKED
FLAG_CA_ALERT = FLAG_DATA_SACKED | FLAG_ECE | FLAG_DSACKING_ACK
FLAG_FORWARD_PROGRESS = FLAG_ACKED | FLAG_DATA_SACKED

REXMIT_NONE = 0
REXMIT_LOST = 1
"""Repeat what is marked lost."""
REXMIT_NEW = 2
"""Send new data first: F-RTO's test (RFC 5682 §3.1 step 2b)."""


class AckState:
    """One ACK under way."""

    __slots__ = (
        "first_sackt_us",
        "flag",
        "last_sackt_us",
        "newest_us",
        "prior_una",
        "reord",
        "rexmit",
        "rtt_us",
        "tsecr",
    )

    def __init__(self, flag: int, prior_una: int, tsecr: int | None) -> None:
        self.flag = flag
        self.prior_una = prior_una
        self.tsecr = tsecr
        """TSecr of the segment, None without timestamps."""
        self.reord: int | None = None
        """Lowest byte that arrived behind later ones without having been repeated."""
        self.first_sackt_us = 0
        """When the oldest data newly selectively acknowledged was sent; 0: none."""
        self.last_sackt_us = 0
        self.newest_us = 0
        """When the most recently sent data newly delivered was sent."""
        self.rexmit = REXMIT_NONE
        self.rtt_us = -1
        """RTT of the newest segment that it acknowledges, -1: not known."""
