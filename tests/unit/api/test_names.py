"""Names: numbers, the hosts file, DNS over the stack's own UDP and TCP."""

from __future__ import annotations

import socket as kernel_socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ustack
from kit.calls_daemon import CallsDaemon
from ustack import socket
from ustack.api import dns
from ustack.api.resolver import read_resolv_conf

PORT = 5353
NAMESERVER = ("127.0.0.1", PORT)


def service(name: str, port: int) -> str:
    """Return a service's name, or its number on a machine without /etc/services."""
    try:
        kernel_socket.getservbyname(name)
    except OSError:
        return str(port)
    return name


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    path = tmp_path / "hosts"
    path.write_text("# hosts\n10.0.0.7 seven.example seven\n10.0.0.8 eight\n::1 eight\n")
    return path


@pytest.fixture
def stack(hosts: Path) -> Iterator[None]:
    with ustack.up(hosts=str(hosts), nameserver=NAMESERVER):
        yield


Reply = Callable[[bytes], bytes]


@pytest.fixture
def server(stack) -> Iterator[Callable[[Reply, Reply | None], None]]:
    """Start a name server that makes each answer with a function, by TCP with another."""
    threads = []

    def start(reply: Reply, by_tcp: Reply | None = None) -> None:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", PORT))
        listener = socket.create_server(("127.0.0.1", PORT)) if by_tcp else None

        def serve() -> None:
            with udp:
                query, peer = udp.recvfrom(512)
                udp.sendto(reply(query), peer)
            if listener is not None and by_tcp is not None:
                with listener, listener.accept()[0] as conn:
                    answer = by_tcp(conn.recv(512)[2:])
                    conn.sendall(struct.pack("!H", len(answer)) + answer)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(60)


def answer(query: bytes, *records: tuple[str, int, bytes], flags: int = 0x8180) -> bytes:
    head = query[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0)
    body = b"".join(
        dns.encode_name(name) + struct.pack("!HHIH", kind, 1, 60, len(data)) + data
        for name, kind, data in records
    )
    return head + query[12:] + body


def test_numbers_and_hosts_need_no_server(stack):
    assert socket.gethostbyname("10.1") == "10.0.0.1"
    assert socket.gethostbyname("seven") == "10.0.0.7"
    assert socket.gethostbyname_ex("seven") == ("seven.example", ["seven"], ["10.0.0.7"])
    assert socket.gethostbyaddr("10.0.0.7") == ("seven.example", ["seven"], ["10.0.0.7"])
    assert socket.getnameinfo(("10.0.0.7", 80), 0) == ("seven.example", service("http", 80))
    assert socket.getnameinfo(("10.0.0.7", 80), 3) == ("10.0.0.7", "80")
    assert socket.getfqdn("seven") == "seven.example"


def test_getaddrinfo_gives_a_row_for_each_kind_of_socket(stack):
    address = ("10.0.0.8", 53)
    assert socket.getaddrinfo("eight", service("domain", 53))[:2] == [  # a number: raw, too
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", address),
        (socket.AF_INET, socket.SOCK_DGRAM, 17, "", address),
    ]
    rows = socket.getaddrinfo(b"seven", 80, 0, socket.SOCK_STREAM, 0, socket.AI_CANONNAME)
    assert rows == [(socket.AF_INET, socket.SOCK_STREAM, 6, "seven.example", ("10.0.0.7", 80))]
    assert socket.getaddrinfo(None, 80, type=1)[0][4] == ("127.0.0.1", 80)
    assert socket.getaddrinfo(None, 80, type=1, flags=socket.AI_PASSIVE)[0][4] == ("0.0.0.0", 80)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((None, None), socket.EAI_NONAME),
        (("eight", 80, socket.AF_INET6), socket.EAI_NONAME),
        (("10.0.0.1", 80, socket.AF_INET6), socket.EAI_ADDRFAMILY),
        (("eight", 80, 99), socket.EAI_FAMILY),
        (("eight", "no-such-service"), socket.EAI_SERVICE),
        (("eight", 80, 0, 99), socket.EAI_SOCKTYPE),
        (("eight", 80, 0, 0, 0, socket.AI_NUMERICHOST), socket.EAI_NONAME),
        (("eight", 80, 0, 0, 0, 1 << 20), socket.EAI_BADFLAGS),
    ],
)
def test_getaddrinfo_refuses_as_the_c_library(stack, arguments, code):
    import socket as standard

    with pytest.raises(socket.gaierror) as ours:
        socket.getaddrinfo(*arguments)
    assert ours.value.errno == code
    theirs = [("127.0.0.1" if a == "eight" else a) for a in arguments]
    if arguments[:1] != ("eight",) or code not in (socket.EAI_NONAME,):
        with pytest.raises(socket.gaierror) as caught:
            standard.getaddrinfo(*theirs)
        assert caught.value.args == ours.value.args


def test_a_name_is_asked_for_over_the_stack(server):
    server(lambda query: answer(query, ("www.example", 5, dns.encode_name("host.example")),
                                ("host.example", 1, bytes([10, 0, 0, 9]))))  # fmt: skip
    assert socket.gethostbyname_ex("www.example") == (
        "host.example", ["www.example"], ["10.0.0.9"],
    )  # fmt: skip


def test_a_truncated_answer_is_asked_for_again_by_tcp(server):
    server(
        lambda query: answer(query, flags=0x8380),
        lambda query: answer(query, ("big.example", 1, bytes([10, 0, 0, 5]))),
    )
    assert socket.gethostbyname("big.example") == "10.0.0.5"


def test_an_address_is_turned_into_a_name(server):
    reverse = "9.0.0.10.in-addr.arpa"
    server(lambda query: answer(query, (reverse, 12, dns.encode_name("nine.example"))))
    assert socket.gethostbyaddr("10.0.0.9") == ("nine.example", [], ["10.0.0.9"])


@pytest.mark.parametrize(
    ("flags", "code"), [(0x8183, socket.EAI_NONAME), (0x8180, socket.EAI_NODATA)]
)
def test_no_such_host_and_no_such_address_are_told_apart(server, flags, code):
    server(lambda query: answer(query, flags=flags))
    with pytest.raises(socket.gaierror) as caught:
        socket.gethostbyname("nobody.example")
    assert caught.value.errno == code


def test_without_a_server_that_answers_one_should_try_again(stack):
    with pytest.raises(socket.gaierror) as caught:
        socket.gethostbyname("nobody.example")
    assert caught.value.errno == socket.EAI_AGAIN


@pytest.mark.parametrize(
    "spoil",
    [
        lambda reply: b"\0\0" + reply[2:],
        lambda reply: reply[:-1],
        lambda reply: reply[:12] + b"\xc0\x0c" + reply[14:],
        lambda reply: reply[:2] + b"\0\0" + reply[4:],
        lambda reply: b"",
    ],
    ids=["another ident", "cut", "a loop of pointers", "a question", "nothing"],
)
def test_what_is_no_answer_is_refused(spoil):
    query = dns.build_query(77, "www.example", dns.TYPE_A)
    good = answer(query, ("www.example", 1, bytes(4)))
    assert dns.parse_answer(good, query).addresses == [0]
    with pytest.raises(dns.DnsError):
        dns.parse_answer(spoil(good), query)


def test_resolv_conf_is_read_as_resolver_5_says(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text(
        "nameserver 10.0.0.1 # first\n; no\nnameserver ::1\nsearch a.example b.example\n"
        "options ndots:2 timeout:1 attempts:3 rotate\nnameserver 10.0.0.2\n"
    )
    config = read_resolv_conf(str(path))
    assert config.nameservers == ((0x0A000001, 53), (0x0A000002, 53))
    assert (config.search, config.ndots, config.timeout_s, config.attempts) == (
        ("a.example", "b.example"), 2, 1, 3,
    )  # fmt: skip


def test_through_a_daemon_names_are_asked_for_by_its_udp(hosts: Path, tmp_path: Path):
    ustack.down()
    with CallsDaemon(tmp_path / "u.sock") as daemon:
        ustack.connect(str(daemon.path), hosts=str(hosts), nameserver=NAMESERVER)
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                udp.bind(NAMESERVER)

                def serve() -> None:
                    query, peer = udp.recvfrom(512)
                    udp.sendto(answer(query, ("www.example", 1, bytes([10, 0, 0, 9]))), peer)

                thread = threading.Thread(target=serve)
                thread.start()
                found = [socket.gethostbyname(name) for name in ("www.example", "seven")]
                thread.join(60)
        finally:
            ustack.down()
        sent = daemon.ask(lambda: daemon.stack.net.mib.udp.OutDatagrams)
    assert (found, sent) == (["10.0.0.9", "10.0.0.7"], 2)


def test_what_cannot_be_a_hosts_name_nobody_is_asked_for():
    for name in ("bad host", "semi;colon", "a..b"):
        with pytest.raises(socket.gaierror) as caught:
            socket.getaddrinfo(name, 80)
        assert caught.value.errno == socket.EAI_NONAME
