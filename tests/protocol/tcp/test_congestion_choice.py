"""Choosing a congestion control, and when one is asked: TCP_CONGESTION, sysctls, one's own.

Reference: net/ipv4/tcp_cong.c and where tcp_input.c and tcp_output.c call it.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from kit.host import host
from kit.segment import build_ip, pattern
from ustack.config import TcpConfig
from ustack.core.sysctl import sysctl_read, sysctl_write
from ustack.tcp.cong.ops import (
    CA_EVENT_COMPLETE_CWR,
    CA_EVENT_CWND_RESTART,
    CA_EVENT_LOSS,
    CA_EVENT_TX_START,
    TCP_CA_LOSS,
    TCP_CA_OPEN,
    TCP_CA_RECOVERY,
    CongestionOps,
)

BIG = "mss 1000,nop,wscale 7"


class Fixed(CongestionOps):
    """Notes what it is told, and keeps the window at 4."""

    name = "fixed"

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def init(self, sk: Any) -> None:
        self.calls.append(("init",))
        sk.tp.snd_cwnd = 4

    def release(self, sk: Any) -> None:
        self.calls.append(("release",))

    def ssthresh(self, sk: Any) -> int:
        self.calls.append(("ssthresh",))
        return 3

    def cong_avoid(self, sk: Any, ack: int, acked_segs: int) -> None:
        self.calls.append(("cong_avoid", acked_segs))

    def set_state(self, sk: Any, new_state: int) -> None:
        self.calls.append(("set_state", new_state))

    def cwnd_event(self, sk: Any, event: int) -> None:
        self.calls.append(("event", event))

    def pkts_acked(self, sk: Any, sample: Any) -> None:
        self.calls.append(("pkts_acked", sample.pkts_acked, sample.rtt_us))

    def of(self, what: str) -> list[Any]:
        """Return the arguments of every call of ``what``."""
        return [call[1:] for call in self.calls if call[0] == what]


class Private(Fixed):
    name = "private"
    flags = 0


@pytest.fixture
def fixed(server):
    ops = Fixed()
    server.stack.register_congestion_control(ops)
    return ops


def chosen(sk) -> str:
    value = sk.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return value.rstrip(b"\0").decode()


def choose(sk, name: str) -> None:
    sk.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())


def listener(server, ops_name: str = ""):
    lsk = server.listen()
    if ops_name:
        choose(lsk, ops_name)
    return lsk


def started(server, ops_name: str):
    lsk = listener(server, ops_name)
    peer = server.peer()
    peer.handshake(BIG)
    return lsk.accept(), peer


def test_a_new_socket_has_the_stacks_default(server):
    assert chosen(server.socket()) == sysctl_read(
        server.stack.config, "net.ipv4.tcp_congestion_control"
    )


def test_a_socket_may_choose_one_that_is_registered(server, fixed):
    sk = server.socket()
    choose(sk, "fixed")
    assert chosen(sk) == "fixed"


@pytest.mark.parametrize("name", ["nosuch", "fixe", "x" * 40])
def test_an_unknown_name_is_enoent_and_changes_nothing(server, fixed, name):
    sk = server.socket()
    before = chosen(sk)
    with pytest.raises(OSError) as error:
        choose(sk, name)
    assert error.value.errno == errno.ENOENT
    assert chosen(sk) == before


def test_an_empty_name_is_einval(server):
    with pytest.raises(OSError) as error:
        server.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"")
    assert error.value.errno == errno.EINVAL


def test_a_restricted_one_is_eperm_until_the_sysctl_allows_it(server):
    server.stack.register_congestion_control(Private())
    sk = server.socket()
    with pytest.raises(OSError) as error:
        choose(sk, "private")
    assert error.value.errno == errno.EPERM
    config = sysctl_write(
        server.stack.config, "net.ipv4.tcp_allowed_congestion_control", "reno private"
    )
    server.stack.set_config(config)
    choose(sk, "private")
    assert chosen(sk) == "private"


def test_the_sysctl_sets_the_default_of_sockets_made_later(server, fixed):
    early = server.socket()
    config = sysctl_write(server.stack.config, "net.ipv4.tcp_congestion_control", "fixed")
    server.stack.set_config(config)
    assert chosen(server.socket()) == "fixed"
    assert chosen(early) != "fixed"


def test_the_sysctl_refuses_an_unknown_default(server):
    with pytest.raises(ValueError, match="No such file"):
        sysctl_write(server.stack.config, "net.ipv4.tcp_congestion_control", "nosuch")


def test_what_is_available_can_be_read_but_not_written(server, fixed):
    name = "net.ipv4.tcp_available_congestion_control"
    assert "fixed" in sysctl_read(server.stack.config, name).split()
    with pytest.raises(ValueError, match="permission denied"):
        sysctl_write(server.stack.config, name, "reno")


@pytest.mark.parametrize("name", ["", "reno", "two words", "sixteen_letters_"])
def test_a_name_that_cannot_be_registered_is_refused(server, name):
    ops = Fixed()
    ops.name = name
    with pytest.raises(ValueError, match="congestion control"):
        server.stack.register_congestion_control(ops)


def test_a_configuration_with_an_unknown_default_makes_no_stack():
    with pytest.raises(ValueError, match="nosuch"):
        host(tcp=TcpConfig(tcp_congestion_control="nosuch"))


@pytest.mark.linux("tcp_ca_openreq_child")
def test_a_child_has_what_its_listener_chose(server, fixed):
    sk, _ = started(server, "fixed")
    assert chosen(sk) == "fixed"


@pytest.mark.linux("tcp_ca_openreq_child")
def test_a_child_of_a_listener_that_chose_nothing_has_the_default_of_its_birth(server, fixed):
    lsk = listener(server)
    config = sysctl_write(server.stack.config, "net.ipv4.tcp_congestion_control", "fixed")
    server.stack.set_config(config)
    server.peer().handshake(BIG)
    assert chosen(lsk.accept()) == "fixed"
    assert chosen(lsk) != "fixed"


@pytest.mark.linux("tcp_init_congestion_control")
def test_it_begins_when_the_connection_is_established_not_before(server, fixed):
    peer = server.peer(port=80, to=None)
    sk = server.socket()
    choose(sk, "fixed")
    with pytest.raises(BlockingIOError):
        sk.connect(peer.addr, 80)
    assert not fixed.of("init")
    peer.answer_syn(BIG)
    assert len(fixed.of("init")) == 1


def test_it_hears_of_a_connections_end(server, fixed):
    sk, peer = started(server, "fixed")
    assert not fixed.of("release")
    peer.send("R 1:1(0)")
    sk.close()
    assert len(fixed.of("release")) == 1


def test_a_connection_that_changes_its_mind_releases_one_and_begins_with_the_other(server, fixed):
    sk, _ = started(server, "")
    choose(sk, "fixed")
    assert (len(fixed.of("init")), len(fixed.of("release"))) == (1, 0)
    choose(sk, "reno")
    assert len(fixed.of("release")) == 1
    choose(sk, "reno")
    assert chosen(sk) == "reno"


def test_the_window_is_what_it_says(server, fixed):
    sk, peer = started(server, "fixed")
    sk.send(pattern(0, 15_000))
    assert len(peer.drain()) == 4
    peer.send(". 1:1(0) ack 4001")
    assert len(peer.drain()) == 4
    assert fixed.of("cong_avoid") == [(4,)]


def test_it_learns_how_many_segments_were_acknowledged_and_how_long_they_took(server, fixed):
    sk, peer = started(server, "fixed")
    sk.send(pattern(0, 3_000))
    server.advance_us(25_000)
    peer.send(". 1:1(0) ack 3001")
    assert fixed.of("pkts_acked") == [(3, 25_000)]


@pytest.mark.linux("tcp_event_data_sent")
def test_it_hears_when_sending_starts_with_nothing_in_flight(server, fixed):
    sk, peer = started(server, "fixed")
    sk.send(pattern(0, 2_000))
    assert fixed.of("event") == [(CA_EVENT_TX_START,)]
    sk.send(pattern(2_000, 1_000))
    assert len(fixed.of("event")) == 1
    peer.send(". 1:1(0) ack 3001")
    sk.send(pattern(3_000, 1_000))
    assert len(fixed.of("event")) == 2


def test_it_hears_of_an_idle_restart(server, fixed):
    sk, _ = started(server, "fixed")
    server.advance_us(10_000_000)
    sk.send(b"x")
    assert fixed.of("event") == [(CA_EVENT_CWND_RESTART,), (CA_EVENT_TX_START,)]


def test_it_decides_what_fast_retransmit_leaves_and_hears_of_its_end(server, fixed):
    sk, peer = started(server, "fixed")
    sk.send(pattern(0, 4_000))
    for _ in range(3):
        peer.send(". 1:1(0) ack 1")
    assert len(fixed.of("ssthresh")) == 1
    assert (TCP_CA_RECOVERY,) in fixed.of("set_state")
    assert sk._sk.tp.snd_ssthresh == 3
    peer.send(". 1:1(0) ack 4001")
    sk.send(pattern(4000, 1000))
    peer.send(". 1:1(0) ack 5001")  # above what was out: only now is it over without SACK
    assert (CA_EVENT_COMPLETE_CWR,) in fixed.of("event")
    assert fixed.of("set_state")[-1] == (TCP_CA_OPEN,)


def test_it_hears_of_a_timeout(server, fixed):
    sk, _ = started(server, "fixed")
    sk.send(pattern(0, 4_000))
    server.advance_us(3_500_000)
    assert (CA_EVENT_LOSS,) in fixed.of("event")
    assert (TCP_CA_LOSS,) in fixed.of("set_state")
    assert sk._sk.tp.prior_cwnd == 4


class Ruler(Fixed):
    """Sets the window itself, as BBR does."""

    name = "ruler"

    def cong_control(self, sk: Any, ack: int, sample: Any) -> None:
        self.calls.append(("cong_control", sample.acked_sacked))


@pytest.mark.linux("tcp_slow_start_after_idle_check, tcp_cwnd_validate: !ca_ops->cong_control")
def test_the_window_of_one_that_rules_alone_does_not_sink_by_itself(server):
    server.stack.register_congestion_control(Ruler())
    sk, peer = started(server, "ruler")
    tp = sk._sk.tp
    tp.snd_cwnd = 80
    for i in range(3):
        server.advance_us(tp.rto_us + 1000)
        sk.send(pattern(10 * i, 10))
        peer.send(f". 1:1(0) ack {11 + 10 * i}")
    assert tp.snd_cwnd == 80


class Watcher(Fixed):
    """Looks at every ACK."""

    name = "watcher"

    def in_ack_event(self, sk: Any, flags: int) -> None:
        self.calls.append(("in_ack_event", flags))


@pytest.mark.linux("tcp_in_ack_event")
def test_who_looks_at_every_ack_sees_each_of_those_that_come_together(server):
    ops = Watcher()
    server.stack.register_congestion_control(ops)
    sk, peer = started(server, "watcher")
    sk.send(pattern(0, 4000))
    peer.drain()
    before = len(ops.of("in_ack_event"))
    for ack in (1001, 2001, 3001):
        server.net.send_ip(build_ip(peer.segment(f". 1:1(0) ack {ack}")))
    server.settle()
    assert len(ops.of("in_ack_event")) - before == 3
