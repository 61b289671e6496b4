"""tcp_tw_recycle: linux-3.10 cuts TIME_WAIT short and remembers timestamps, linux-6 not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, host
from kit.peer import Peer
from ustack.config import LINUX_6, LINUX_310
from ustack.core.sysctl import sysctl_read, sysctl_values, with_profile

SECOND = 1_000_000
TS = "mss 1460,sackOK,TS val {} ecr 0"
ACK_TS = "nop,nop,TS val {} ecr *"


def with_recycle(profile: str = LINUX_310, *, on: bool = True) -> Host:
    config = with_profile(TEST_CONFIG, profile)
    return host(replace(config, tcp=replace(config.tcp, tcp_tw_recycle=on)))


def closed(h: Host, *, ts: bool = True, fin_first: bool = True) -> tuple[Any, Peer]:
    """A connection that we have closed: the peer's FIN comes with its ACK, or after it."""
    lsk = h.listen()
    peer = h.peer()
    if ts:
        peer.handshake(TS.format(1000), ts=ACK_TS.format(1000))
    else:
        peer.handshake()
    lsk.accept().close()
    stamp = f" <{ACK_TS.format(1001)}>" if ts else ""
    if not fin_first:
        peer.send(". 1:1(0) ack 2" + stamp)
    peer.send("F. 1:1(0) ack 2" + stamp)
    peer.drain()
    return lsk, peer


def is_answered(h: Host, stamp: int | None, addr: str = "10.0.0.1") -> bool:
    """Whether a SYN with this timestamp gets its SYN-ACK."""
    peer = h.peer(addr=addr)
    peer.send("S 0:0(0)" + (f" <{TS.format(stamp)}>" if stamp is not None else ""))
    return bool(peer.drain())


@pytest.mark.linux("tcp_time_wait: recycle_ok")
@pytest.mark.parametrize("fin_first", [True, False])
def test_time_wait_lasts_three_and_a_half_rtos(fin_first):
    h = with_recycle()
    closed(h, fin_first=fin_first)
    assert len(h.stack.tcp.twhash) == 1
    h.advance_us(650_000)
    assert len(h.stack.tcp.twhash) == 1
    h.advance_us(150_000)
    assert not h.stack.tcp.twhash


@pytest.mark.parametrize(
    ("profile", "on", "ts"),
    [(LINUX_6, True, True), (LINUX_310, False, True), (LINUX_310, True, False)],
)
def test_otherwise_it_lasts_a_minute(profile, on, ts):
    h = with_recycle(profile, on=on)
    closed(h, ts=ts)
    h.advance_us(59 * SECOND)
    assert len(h.stack.tcp.twhash) == 1
    h.advance_us(SECOND)
    assert not h.stack.tcp.twhash


@pytest.mark.linux("tcp_v4_conn_request: PAWSPassive")
def test_a_syn_older_than_the_last_connection_is_dropped():
    """Two hosts behind one address: the one whose clock is behind cannot connect."""
    h = with_recycle()
    closed(h)
    assert not is_answered(h, 999)
    assert h.stack.net.mib.ustack.PAWSPassive == 1
    assert h.mib.ListenDrops == 1
    assert is_answered(h, 1001)
    assert is_answered(h, None)
    assert is_answered(h, 5, addr="10.0.0.9")


def test_a_timestamp_may_be_one_tick_behind():
    h = with_recycle()
    closed(h)
    assert is_answered(h, 1000)


def test_a_minute_later_it_is_forgotten():
    h = with_recycle()
    closed(h)
    h.advance_us(60 * SECOND)
    assert is_answered(h, 5)


@pytest.mark.parametrize(("profile", "on"), [(LINUX_6, True), (LINUX_310, False)])
def test_without_it_timestamps_of_different_connections_have_nothing_to_do_with_each_other(
    profile, on
):
    h = with_recycle(profile, on=on)
    closed(h)
    assert is_answered(h, 5)
    assert h.stack.net.mib.ustack.PAWSPassive == 0


@pytest.mark.linux("tcp_fetch_timewait_stamp")
def test_our_next_syn_echoes_the_peers_last_timestamp():
    h = with_recycle()
    closed(h)
    peer = h.peer(port=81, to=None)
    h.connect(port=81)
    peer.expect("S 0:0(0) <mss 1460,sackOK,TS val * ecr 1001,nop,wscale *>")


def test_linux_6_knows_no_such_knob():
    old, new = with_profile(TEST_CONFIG, LINUX_310), TEST_CONFIG
    assert sysctl_read(old, "net.ipv4.tcp_tw_recycle") == "0"
    assert "net.ipv4.tcp_tw_recycle" not in dict(sysctl_values(new))
    with pytest.raises(LookupError):
        sysctl_read(new, "net.ipv4.tcp_tw_recycle")
