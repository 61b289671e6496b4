"""The eleven states of a connection and the only moves between them.

One table, one setter (``TcpSock.set_state``): RFC 9293 §3.3.2, figure 5, with Linux's
numbers (include/net/tcp_states.h) so that tools can share them. RST and abort lead to CLOSE
from everywhere and are not drawn in the RFC's figure.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

TCP_ESTABLISHED = 1
TCP_SYN_SENT = 2
TCP_SYN_RECV = 3
TCP_FIN_WAIT1 = 4
TCP_FIN_WAIT2 = 5
TCP_TIME_WAIT = 6
TCP_CLOSE = 7
TCP_CLOSE_WAIT = 8
TCP_LAST_ACK = 9
TCP_LISTEN = 10
TCP_CLOSING = 11

STATE_NAMES: Mapping[int, str] = {
    TCP_ESTABLISHED: "ESTAB",
    TCP_SYN_SENT: "SYN-SENT",
    TCP_SYN_RECV: "SYN-RECV",
    TCP_FIN_WAIT1: "FIN-WAIT-1",
    TCP_FIN_WAIT2: "FIN-WAIT-2",
    TCP_TIME_WAIT: "TIME-WAIT",
    TCP_CLOSE: "UNCONN",
    TCP_CLOSE_WAIT: "CLOSE-WAIT",
    TCP_LAST_ACK: "LAST-ACK",
    TCP_LISTEN: "LISTEN",
    TCP_CLOSING: "CLOSING",
}
"""As ``ss`` prints them."""


class TcpEvent(enum.Enum):
    """What can move a connection from one state to another."""

    LISTEN = "passive OPEN"
    CONNECT = "active OPEN, SYN sent"
    RCV_SYN = "SYN received, SYN-ACK sent"
    RCV_SYN_ACK = "SYN-ACK received, ACK sent"
    RCV_ACK_OF_SYN = "ACK of our SYN received"
    CLOSE = "CLOSE or SHUT_WR, FIN sent"
    RCV_ACK_OF_FIN = "ACK of our FIN received"
    RCV_FIN = "FIN received"
    TIMEOUT = "2 MSL have passed"
    ABORT = "RST received or sent, or given up"


E = TcpEvent
TRANSITIONS: Mapping[tuple[int, TcpEvent], int] = {
    (TCP_CLOSE, E.LISTEN): TCP_LISTEN,
    (TCP_CLOSE, E.CONNECT): TCP_SYN_SENT,
    (TCP_LISTEN, E.RCV_SYN): TCP_SYN_RECV,
    (TCP_LISTEN, E.CLOSE): TCP_CLOSE,
    (TCP_SYN_SENT, E.RCV_SYN): TCP_SYN_RECV,
    (TCP_SYN_SENT, E.RCV_SYN_ACK): TCP_ESTABLISHED,
    (TCP_SYN_SENT, E.CLOSE): TCP_CLOSE,
    (TCP_SYN_RECV, E.RCV_ACK_OF_SYN): TCP_ESTABLISHED,
    (TCP_SYN_RECV, E.CLOSE): TCP_FIN_WAIT1,
    (TCP_SYN_RECV, E.RCV_FIN): TCP_CLOSE_WAIT,
    (TCP_ESTABLISHED, E.CLOSE): TCP_FIN_WAIT1,
    (TCP_ESTABLISHED, E.RCV_FIN): TCP_CLOSE_WAIT,
    (TCP_FIN_WAIT1, E.RCV_ACK_OF_FIN): TCP_FIN_WAIT2,
    (TCP_FIN_WAIT1, E.RCV_FIN): TCP_CLOSING,
    (TCP_FIN_WAIT2, E.RCV_FIN): TCP_TIME_WAIT,
    (TCP_CLOSING, E.RCV_ACK_OF_FIN): TCP_TIME_WAIT,
    (TCP_CLOSE_WAIT, E.CLOSE): TCP_LAST_ACK,
    (TCP_LAST_ACK, E.RCV_ACK_OF_FIN): TCP_CLOSE,
    (TCP_TIME_WAIT, E.TIMEOUT): TCP_CLOSE,
    **{(state, E.ABORT): TCP_CLOSE for state in STATE_NAMES},
}
del E

SYNCHRONIZED = frozenset(STATE_NAMES) - {TCP_CLOSE, TCP_LISTEN, TCP_SYN_SENT, TCP_SYN_RECV}
AFTER_FIN = (TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_CLOSING)
"""The peer has sent its FIN."""
CAN_SEND = frozenset({TCP_ESTABLISHED, TCP_CLOSE_WAIT})
