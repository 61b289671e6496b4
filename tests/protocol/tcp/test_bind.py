"""Who may have the same port as whom: inet_csk_get_port and inet_csk_bind_conflict."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, host
from ustack.config import LINUX_6, LINUX_310, TcpConfig
from ustack.core.sysctl import with_profile

SOL_SOCKET, SO_REUSEADDR, SO_REUSEPORT = 1, 2, 15
ANY, LOOP = 0, 0x7F000001
ADDRESSES = {"any": ANY, "lo": LOOP, "eth": 0x0A000002}


def bound(h: Host, addr: int, port: int, options: str = "", *, listening: bool = False) -> Any:
    """Return a socket bound with SO_REUSEADDR (a) and SO_REUSEPORT (p) as asked."""
    sk = h.socket()
    if "a" in options:
        sk.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    if "p" in options:
        sk.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
    sk.bind(addr, port)
    if listening:
        sk.listen(5)
    return sk


def in_use(h: Host, *arguments: Any, **options: Any) -> bool:
    """Whether binding so is EADDRINUSE."""
    try:
        bound(h, *arguments, **options)
    except OSError as error:
        assert error.errno == errno.EADDRINUSE
        return True
    return False


@pytest.mark.parametrize(
    ("first", "second", "conflict"),
    [
        ("any", "any", True), ("any", "lo", True), ("lo", "any", True),
        ("lo", "lo", True), ("lo", "eth", False), ("eth", "eth", True),
    ],
)  # fmt: skip
@pytest.mark.linux("inet_rcv_saddr_equal")
def test_addresses_that_overlap_conflict(server, first, second, conflict):
    bound(server, ADDRESSES[first], 5000)
    assert in_use(server, ADDRESSES[second], 5000) is conflict


@pytest.mark.parametrize(
    ("first", "second", "conflict"),
    [
        ("", "a", True), ("a", "", True), ("a", "a", False), ("p", "a", True), ("a", "p", True),
        ("p", "p", False), ("ap", "ap", False), ("ap", "p", False), ("ap", "a", False),
    ],
)  # fmt: skip
@pytest.mark.linux("inet_bind_conflict")
def test_both_must_want_to_share(server, first, second, conflict):
    bound(server, ANY, 5000, first)
    assert in_use(server, ANY, 5000, second) is conflict


@pytest.mark.parametrize(
    ("first", "second", "conflict"),
    [("a", "a", True), ("", "a", True), ("a", "ap", True), ("p", "a", True)],
)
@pytest.mark.linux("sk2->sk_state != TCP_LISTEN")
def test_so_reuseaddr_is_not_enough_beside_a_listener(server, first, second, conflict):
    bound(server, ANY, 5000, first, listening=True)
    assert in_use(server, ANY, 5000, second) is conflict


def test_so_reuseport_is_enough_beside_a_listener(server):
    bound(server, ANY, 5000, "p", listening=True)
    assert not in_use(server, ANY, 5000, "p")


@pytest.mark.linux("inet_csk_listen_start: get_port again")
def test_of_two_that_share_a_port_one_may_listen(server):
    first = bound(server, ANY, 5000, "a")
    second = bound(server, ANY, 5000, "a")
    first.listen(5)
    with pytest.raises(OSError) as caught:
        second.listen(5)
    assert caught.value.errno == errno.EADDRINUSE
    first.close()
    second.listen(5)


def test_two_addresses_two_listeners(server):
    bound(server, ADDRESSES["lo"], 5000, listening=True)
    bound(server, ADDRESSES["eth"], 5000, listening=True)
    assert in_use(server, ANY, 5000)


def test_the_option_counts_as_it_is_now_not_as_it_was_at_bind(server):
    first = bound(server, ANY, 5000)
    assert in_use(server, ANY, 5000, "a")
    first.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    assert not in_use(server, ANY, 5000, "a")


@pytest.mark.linux("tb->fastreuse > 0: no look at the owners; not since 6.1, as measured")
@pytest.mark.parametrize(("profile", "conflict"), [(LINUX_6, True), (LINUX_310, False)])
def test_the_old_kernel_believes_what_so_reuseaddr_was_when_they_bound(profile, conflict):
    h = host(with_profile(TEST_CONFIG, profile))
    first = bound(h, ANY, 5000, "a")
    first.setsockopt(SOL_SOCKET, SO_REUSEADDR, 0)
    assert in_use(h, ANY, 5000, "a") is conflict


@pytest.mark.parametrize(("address", "conflict"), [("lo", False), ("any", True)])
@pytest.mark.linux("sk_reuseport_match, FASTREUSEPORT_STRICT")
def test_so_reuseport_is_believed_for_the_same_address(server, address, conflict):
    first = bound(server, ADDRESSES["lo"], 5000, "p")
    first.setsockopt(SOL_SOCKET, SO_REUSEPORT, 0)
    assert in_use(server, ADDRESSES[address], 5000, "p") is conflict


# Ports that connect() has chosen.


def connected(h: Host) -> Any:
    """A connection to a peer, its port chosen by connect()."""
    peer = h.peer(port=80, to=None)
    sk = h.connect()
    peer.answer_syn()
    return sk


@pytest.mark.linux("inet_csk_bind_conflict: relax")
def test_so_reuseaddr_shares_a_port_that_somebody_else_has_at_another_address(server):
    bound(server, ADDRESSES["lo"], 5000)
    bound(server, ADDRESSES["eth"], 5000, "a")
    assert not in_use(server, ADDRESSES["eth"], 5000, "a")
    assert in_use(server, ADDRESSES["lo"], 5000, "a")


@pytest.mark.parametrize(("address", "conflict"), [("any", True), ("eth", True), ("lo", False)])
@pytest.mark.linux("a connected socket has its address: it is no wildcard")
def test_a_port_of_connects_is_taken_at_its_address_only(server, address, conflict):
    port = connected(server).getsockname()[1]
    assert in_use(server, ADDRESSES[address], port) is conflict


def test_a_port_of_connects_can_be_shared_if_both_want(server):
    sk = connected(server)
    port = sk.getsockname()[1]
    assert in_use(server, ANY, port, "a")
    sk.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    assert not in_use(server, ANY, port, "a")


# Listeners, their children and what is left of them.


def test_a_listeners_child_holds_the_port(server):
    lsk = server.listen(80)
    server.peer().handshake()
    sk = lsk.accept()
    lsk.close()
    assert in_use(server, ANY, 80)
    assert sk.established


def test_a_server_that_starts_again_needs_so_reuseaddr(server):
    lsk = bound(server, ANY, 80, "a", listening=True)
    peer = server.peer()
    peer.handshake()
    sk = lsk.accept()
    lsk.close()
    assert in_use(server, ANY, 80)  # its connection is still there
    again = bound(server, ANY, 80, "a", listening=True)
    again.close()
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send("F. 1:1(0) ack 2")  # TIME_WAIT, of the child of a listener that had the option
    assert in_use(server, ANY, 80)
    bound(server, ANY, 80, "a", listening=True)


def test_a_time_wait_without_the_option_is_in_the_way_for_a_minute(server):
    lsk = bound(server, ANY, 80, listening=True)
    peer = server.peer()
    peer.handshake()
    sk = lsk.accept()
    lsk.close()
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send("F. 1:1(0) ack 2")
    assert in_use(server, ANY, 80, "a")
    server.advance_us(61_000_000)
    assert not in_use(server, ANY, 80)


# bind() without a port.


@pytest.mark.linux("inet_csk_find_open_port: relax is false")
def test_a_port_that_is_asked_for_as_any_is_never_shared():
    h = host(TEST_CONFIG, tcp=TcpConfig(ip_local_port_range=(40000, 40003)))
    ports = {bound(h, ANY, 0, "ap").getsockname()[1] for _ in range(4)}
    assert ports == {40000, 40001, 40002, 40003}
    assert in_use(h, ANY, 0, "ap")


@pytest.mark.linux("net.ipv4.ip_autobind_reuse")
def test_unless_it_is_allowed_when_none_is_left():
    config = TcpConfig(ip_local_port_range=(40000, 40003), ip_autobind_reuse=True)
    h = host(TEST_CONFIG, tcp=config)
    for _ in range(4):
        bound(h, ANY, 0, "a")
    assert in_use(h, ANY, 0, "")
    assert not in_use(h, ANY, 0, "a")
    assert in_use(h, ANY, 0, "ap") is False


@pytest.mark.linux("attempt_half")
def test_with_so_reuseaddr_the_lower_half_comes_first():
    h = host(TEST_CONFIG, tcp=TcpConfig(ip_local_port_range=(40000, 40099)))
    ports = [bound(h, ANY, 0, "a").getsockname()[1] for _ in range(60)]
    assert max(ports[:50]) < 40050 <= min(ports[50:])


def test_different_addresses_may_get_the_same_port():
    h = host(TEST_CONFIG, tcp=TcpConfig(ip_local_port_range=(40000, 40000)))
    bound(h, ADDRESSES["lo"], 0)
    bound(h, ADDRESSES["eth"], 0)
    assert in_use(h, ANY, 0)


# What bind() refuses.


def test_only_an_own_address_can_be_bound(server):
    with pytest.raises(OSError) as caught:
        bound(server, 0x0A000009, 5000)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_socket_is_bound_once(server):
    sk = bound(server, ANY, 5000)
    with pytest.raises(OSError) as caught:
        sk.bind(ANY, 5001)
    assert caught.value.errno == errno.EINVAL


def test_a_closed_socket_gives_its_port_back(server):
    for _ in range(3):
        bound(server, ANY, 5000).close()
    assert not server.stack.tcp.bhash
