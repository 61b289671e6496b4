"""Which local port a connection gets, and what it costs (__inet_hash_connect), in both profiles."""

from __future__ import annotations

import errno
import itertools
import struct
from dataclasses import replace
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, host
from ustack.config import LINUX_6, LINUX_310, TcpConfig
from ustack.core.sysctl import sysctl_read, sysctl_write, with_profile

SOL_IP, IP_LOCAL_PORT_RANGE = 0, 51
PEER = 0x0A000001
OTHER = 0x0A000003
SECOND = 1_000_000
both_profiles = pytest.mark.parametrize("profile", [LINUX_6, LINUX_310])


def client(profile: str = LINUX_6, **tcp: Any) -> Host:
    """A host of that kernel, nobody on the wire."""
    config = with_profile(TEST_CONFIG, profile)
    return host(replace(config, tcp=replace(config.tcp, **tcp)))


def connect(h: Host, addr: int = PEER, port: int = 80, **options: Any) -> int:
    """Connect and return the local port.

    Raises:
        OSError: as connect() does.
    """
    sk = h.socket()
    if "port_range" in options:
        low, high = options["port_range"]
        sk.setsockopt(SOL_IP, IP_LOCAL_PORT_RANGE, struct.pack("I", high << 16 | low))
    if "bind" in options:
        sk.bind(*options["bind"])
    try:
        sk.connect(addr, port)
    except BlockingIOError:
        return int(sk.getsockname()[1])
    raise AssertionError("connect() has not begun")


def exhausted(h: Host, **options: Any) -> bool:
    """Whether no port is left."""
    with pytest.raises(OSError) as caught:
        connect(h, **options)
    return caught.value.errno == errno.EADDRNOTAVAIL


def probes(h: Host) -> int:
    """What ``ustack nstat ConnectPortProbes`` shows."""
    return h.stack.net.mib.ustack.ConnectPortProbes


@pytest.mark.linux("__inet_hash_connect: offset &= ~1U (4.2)")
def test_connect_takes_even_ports_and_bind_odd_ones():
    h = client()
    assert {connect(h) % 2 for _ in range(400)} == {0}
    odd = set()
    for _ in range(400):
        sk = h.socket()
        sk.bind(0, 0)
        odd.add(sk.getsockname()[1] % 2)
    assert odd == {1}


@pytest.mark.linux("__inet_hash_connect in 3.10: offset = hint + port_offset")
def test_the_old_kernel_takes_one_port_after_the_other():
    h = client(LINUX_310)
    ports = [connect(h) for _ in range(20)]
    assert ports == list(range(ports[0], ports[0] + 20))


def test_the_old_kernel_has_one_more_port():
    assert client(LINUX_310).stack.config.tcp.ip_local_port_range == (32768, 61000)
    assert client().stack.config.tcp.ip_local_port_range == (32768, 60999)


@pytest.mark.linux("table_perturb (5.12), RFC 6056 3.3.4")
@pytest.mark.rfc("6056", "3.3.4")
def test_destinations_have_counters_of_their_own():
    """Connections to one server do not tell another how many there were."""
    h = client()
    first = connect(h, OTHER)
    for _ in range(1000):
        connect(h)
    assert (connect(h, OTHER) - first) % 28232 <= 16


@pytest.mark.rfc("6056", "3.1")
def test_where_ports_begin_is_not_the_same_for_every_host():
    assert len({connect(host(TEST_CONFIG, seed=seed)) for seed in range(1, 9)}) > 4


@both_profiles
@pytest.mark.linux("-EADDRNOTAVAIL")
def test_the_eleventh_connection_from_ten_ports_has_no_address(profile):
    h = client(profile, ip_local_port_range=(40000, 40009))
    assert sorted(connect(h) for _ in range(10)) == list(range(40000, 40010))
    assert exhausted(h)


@both_profiles
@pytest.mark.linux("__inet_check_established: the four-tuple")
def test_a_used_port_serves_another_destination(profile):
    h = client(profile, ip_local_port_range=(40000, 40009))
    used = {connect(h) for _ in range(10)}
    assert connect(h, port=81) in used
    assert connect(h, addr=OTHER) in used
    assert exhausted(h)


def test_other_parity_comes_when_the_first_is_used_up():
    h = client(ip_local_port_range=(40000, 40009))
    parities = [connect(h) % 2 for _ in range(10)]
    assert parities == [0] * 5 + [1] * 5


@both_profiles
@pytest.mark.linux("net.ipv4.ip_local_reserved_ports")
def test_reserved_ports_are_never_chosen(profile):
    h = client(
        profile,
        ip_local_port_range=(40000, 40009),
        ip_local_reserved_ports=frozenset([40001, 40004]),
    )
    assert not {connect(h) for _ in range(8)} & {40001, 40004}
    assert exhausted(h)
    sk = h.socket()
    with pytest.raises(OSError):
        sk.bind(0, 0)
    sk.bind(0, 40004)  # but who names one gets it


def test_reserved_ports_are_written_as_linux_writes_them():
    config = sysctl_write(TEST_CONFIG, "net.ipv4.ip_local_reserved_ports", "8080,9148-9150,9151")
    assert sysctl_read(config, "net.ipv4.ip_local_reserved_ports") == "8080,9148-9151"
    config = sysctl_write(config, "net.ipv4.ip_local_reserved_ports", "\n")
    assert sysctl_read(config, "net.ipv4.ip_local_reserved_ports") == ""


@pytest.mark.parametrize("text", ["x", "5-4", "70000", "1-2-3", "-5"])
def test_what_is_no_set_of_ports_is_refused(text):
    with pytest.raises(ValueError, match="Invalid argument"):
        sysctl_write(TEST_CONFIG, "net.ipv4.ip_local_reserved_ports", text)


# What a connect() costs.


def test_with_free_ports_a_connect_looks_at_about_one():
    h = client()
    for _ in range(200):
        connect(h)
    assert probes(h) <= 260


def test_reserved_ports_cost_no_look():
    h = client(
        ip_local_port_range=(40000, 40009), ip_local_reserved_ports=frozenset(range(40001, 40009))
    )
    connect(h), connect(h)
    before = probes(h)
    assert exhausted(h)
    assert probes(h) - before == 2


class Zeros:
    """A source of randomness that has only zeros."""

    def randrange(self, stop: int) -> int:
        """Return the least there is."""
        return 0 * stop

    def getrandbits(self, bits: int) -> int:
        """Return no bit that is set."""
        return 0 * bits


@pytest.mark.linux("__inet_hash_connect: table_perturb += i + step")
def test_the_next_connection_of_a_destination_begins_behind_the_last_one(monkeypatch):
    h = client()
    monkeypatch.setattr(h.stack.tcp, "rng", Zeros())
    places = []
    for _ in range(20):
        before = probes(h)
        places.append(connect(h))
        assert probes(h) - before == 1
    low, high = h.stack.config.tcp.ip_local_port_range
    assert {(b - a) % (high + 1 - low) for a, b in itertools.pairwise(places)} == {2}


@pytest.mark.linux("__inet_hash_connect: remaining > 1")
@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_port_of_a_small_range_is_looked_at_once(count):
    """Of an odd number of ports the last belongs to bind() alone."""
    h = client(ip_local_port_range=(40000, 39999 + count))
    usable = max(count & ~1, 1)
    assert sorted(connect(h) for _ in range(usable)) == [40000, 40001][:usable]
    before = probes(h)
    assert exhausted(h)
    assert probes(h) - before == usable


@pytest.mark.linux("E-PORT: 4.4 us, then 1240 us once the even half is used")
def test_probes_rise_when_ports_get_scarce():
    """Once the even half is used up, every connection looks through it in vain first."""
    h = client(ip_local_port_range=(40000, 40399))
    costs = []
    for _ in range(400):
        before = probes(h)
        connect(h)
        costs.append(probes(h) - before)
    assert sum(costs[:100]) / 100 < 10
    assert min(costs[200:]) > 200  # the whole even half, and some
    before = probes(h)
    assert exhausted(h)
    assert probes(h) - before == 400


@pytest.mark.linux("E-PORT in 3.10: one curve, no step at the half")
def test_in_the_old_kernel_probes_rise_late():
    h = client(LINUX_310, ip_local_port_range=(40000, 40399))
    before = probes(h)
    for _ in range(400):
        connect(h)
    assert probes(h) - before <= 2 * 400  # one after the other: hardly a collision
    before = probes(h)
    assert exhausted(h)
    assert probes(h) - before == 400


def test_a_bound_socket_looks_for_nothing():
    h = client()
    connect(h, bind=(0, 5000))
    assert probes(h) == 0


# bind() before connect().


@pytest.mark.linux("E-BIND: one bind(), one port")
def test_bind_without_a_port_uses_one_up_for_every_destination():
    h = client(ip_local_port_range=(40000, 40009))
    addr = h.addr
    for port in range(10):
        connect(h, port=80 + port, bind=(addr, 0))
    sk = h.socket()
    with pytest.raises(OSError) as caught:
        sk.bind(addr, 0)
    assert caught.value.errno == errno.EADDRINUSE
    assert exhausted(h)  # and connect() alone finds none either


@pytest.mark.linux("IP_BIND_ADDRESS_NO_PORT")
def test_bind_may_leave_the_port_to_connect():
    h = client(ip_local_port_range=(40000, 40009))
    for port in range(30):
        sk = h.socket()
        sk.setsockopt(SOL_IP, 24, 1)
        sk.bind(h.addr, 0)
        assert sk.getsockname() == (h.addr, 0)
        with pytest.raises(BlockingIOError):
            sk.connect(PEER, 80 + port)
        assert sk.getsockname()[1] in range(40000, 40010)


@pytest.mark.linux("inet_bind: inet_num stays 0")
def test_an_address_without_a_port_may_be_bound_again():
    h = client()
    sk = h.socket()
    sk.setsockopt(SOL_IP, 24, 1)
    sk.bind(h.addr, 0)
    sk.bind(0x7F000001, 0)
    assert sk.getsockname() == (0x7F000001, 0)
    sk.listen(1)
    assert sk.getsockname()[1] % 2 == 1  # chosen as bind() would have


# A range of the socket's own.


@pytest.mark.linux("IP_LOCAL_PORT_RANGE (6.3): port by port, no parity")
def test_a_socket_has_a_port_range_of_its_own():
    h = client()
    ports = [connect(h, port_range=(50009, 50011)) for _ in range(3)]
    assert sorted(ports) == [50009, 50010, 50011]
    assert exhausted(h, port_range=(50009, 50011))
    assert connect(h) not in range(50009, 50012)


@pytest.mark.parametrize(
    ("low", "high", "least", "most"),
    [(0, 100, 32768, 60999), (60990, 0, 60990, 60999), (60001, 60001, 60001, 60001)],
)
@pytest.mark.linux("inet_sk_get_local_port_range: clamped to the sysctl's")
def test_an_end_outside_of_the_stacks_range_has_no_effect(low, high, least, most):
    h = client()
    assert least <= connect(h, port_range=(low, high)) <= most


def test_a_range_must_not_be_upside_down():
    sk = client().socket()
    with pytest.raises(OSError) as caught:
        sk.setsockopt(SOL_IP, IP_LOCAL_PORT_RANGE, struct.pack("I", 5 << 16 | 9))
    assert caught.value.errno == errno.EINVAL
    sk.setsockopt(SOL_IP, IP_LOCAL_PORT_RANGE, struct.pack("I", 61000 << 16 | 60000))
    packed = sk.getsockopt(SOL_IP, IP_LOCAL_PORT_RANGE, 4)
    assert struct.unpack("I", packed)[0] == 61000 << 16 | 60000


# Ports that others hold.


@pytest.mark.linux("tb->fastreuse >= 0: goto next_port")
def test_connect_leaves_alone_what_somebody_has_bound():
    h = client(ip_local_port_range=(40000, 40001))
    holders = []
    for port in (40000, 40001):
        sk = h.socket()
        sk.bind(0x7F000001, port)  # another address: yet the port is not connect()'s
        holders.append(sk)
    assert exhausted(h)
    holders[0].close()
    assert connect(h) == 40000


@pytest.mark.linux("inet_bind_bucket_destroy (6.18): fastreuse = -1 again")
@pytest.mark.parametrize(("profile", "again"), [(LINUX_6, True), (LINUX_310, False)])
def test_a_port_is_connects_again_once_who_bound_it_has_closed(profile, again):
    h = client(profile, ip_local_port_range=(40000, 40000))
    connect(h)
    beside = h.socket()
    beside.bind(0x7F000001, 40000)
    assert exhausted(h, port=81)
    beside.close()
    if again:
        assert connect(h, port=81) == 40000
    else:
        assert exhausted(h, port=81)


def test_a_refused_connection_gives_its_port_back():
    h = client(ip_local_port_range=(40000, 40000))
    peer = h.peer(port=80, to=None)
    for _ in range(3):
        sk = h.connect()
        peer.expect("S 0:0(0)")
        peer.send("R. 0:0(0) ack 1")
        assert sk.getsockopt(1, 4) == errno.ECONNREFUSED


def test_a_socket_without_a_route_stays_unbound():
    h = client(ip_local_port_range=(40000, 40000))
    sk = h.socket()
    with pytest.raises(OSError):
        sk.connect(0xC0000201, 80)
    assert connect(h) == 40000
    assert exhausted(h)


def test_what_has_failed_for_want_of_a_port_can_try_again():
    h = client(ip_local_port_range=(40000, 40000))
    sk = h.socket()
    sk.bind(0, 40000)
    late = h.socket()
    with pytest.raises(OSError):
        late.connect(PEER, 80)
    assert late.getsockname() == (0, 0)
    sk.close()
    with pytest.raises(BlockingIOError):
        late.connect(PEER, 80)
    assert late.getsockname()[1] == 40000


def test_default_configuration_reserves_nothing():
    assert TcpConfig().ip_local_reserved_ports == frozenset()
