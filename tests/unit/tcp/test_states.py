"""The transition table against RFC 9293's own figure, written down a second time."""

from __future__ import annotations

import pytest

from ustack.tcp.states import STATE_NAMES, TRANSITIONS, TcpEvent

FIGURE_5 = """
UNCONN      LISTEN         LISTEN
UNCONN      CONNECT        SYN-SENT
LISTEN      RCV_SYN        SYN-RECV
LISTEN      CLOSE          UNCONN
SYN-SENT    RCV_SYN        SYN-RECV
SYN-SENT    RCV_SYN_ACK    ESTAB
SYN-SENT    CLOSE          UNCONN
SYN-RECV    RCV_ACK_OF_SYN ESTAB
SYN-RECV    CLOSE          FIN-WAIT-1
ESTAB       CLOSE          FIN-WAIT-1
ESTAB       RCV_FIN        CLOSE-WAIT
FIN-WAIT-1  RCV_ACK_OF_FIN FIN-WAIT-2
FIN-WAIT-1  RCV_FIN        CLOSING
FIN-WAIT-2  RCV_FIN        TIME-WAIT
CLOSING     RCV_ACK_OF_FIN TIME-WAIT
CLOSE-WAIT  CLOSE          LAST-ACK
LAST-ACK    RCV_ACK_OF_FIN UNCONN
TIME-WAIT   TIMEOUT        UNCONN
"""
"""RFC 9293 §3.3.2, figure 5, with ss's names; CLOSED is UNCONN."""

BEYOND_THE_FIGURE = {("SYN-RECV", "RCV_FIN", "CLOSE-WAIT")}
"""§3.10.7.4, eighth check: a FIN in SYN-RECEIVED enters CLOSE-WAIT; the figure leaves it out."""


@pytest.mark.rfc("9293", "3.3.2")
def test_the_table_is_figure_5():
    ours = {
        (STATE_NAMES[old], event.name, STATE_NAMES[new])
        for (old, event), new in TRANSITIONS.items()
        if event is not TcpEvent.ABORT
    }
    figure = {tuple(line.split()) for line in FIGURE_5.split("\n") if line}
    assert ours == figure | BEYOND_THE_FIGURE


@pytest.mark.rfc("9293", "3.10.7")
def test_a_reset_or_an_abort_closes_from_every_state():
    assert {old for old, event in TRANSITIONS if event is TcpEvent.ABORT} == set(STATE_NAMES)
    assert {STATE_NAMES[new] for (_, e), new in TRANSITIONS.items() if e is TcpEvent.ABORT} == {
        "UNCONN"
    }
