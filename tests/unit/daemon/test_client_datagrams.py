"""Datagram sockets through the daemon: boundaries, addresses, errors and losses as Linux's."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket as std
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ustack
from kit.calls_daemon import CallsDaemon
from ustack import socket

pytestmark = pytest.mark.timeout(60)
PATIENCE_S = 30.0


def udp(bound: bool = True) -> std.socket:
    sock = socket.socket(std.AF_INET, std.SOCK_DGRAM)
    sock.settimeout(PATIENCE_S)
    if bound:
        sock.bind(("127.0.0.1", 0))
    return sock


@pytest.fixture
def server(daemon: CallsDaemon) -> Iterator[std.socket]:
    with udp() as sock:
        yield sock


@pytest.fixture
def client(daemon: CallsDaemon) -> Iterator[std.socket]:
    with udp(bound=False) as sock:
        yield sock


def refused(call, *args) -> bool:
    with pytest.raises(OSError) as caught:
        call(*args)
    return caught.value.errno == errno.ECONNREFUSED


def nobody() -> tuple[str, int]:
    with udp() as sock:
        return sock.getsockname()


def test_datagrams_keep_their_boundaries_and_their_addresses(client, server):
    for size in (5, 0, 1400, 9000, 65507):
        assert client.sendto(bytes([size & 255]) * size, server.getsockname()) == size
    for size in (5, 0, 1400, 9000, 65507):
        data, address = server.recvfrom(70000)
        assert (data, address[0]) == (bytes([size & 255]) * size, "127.0.0.1")
    assert server.sendto(b"back", address) == 4
    assert client.recvfrom(100) == (b"back", server.getsockname())
    assert client.getsockname() == ("0.0.0.0", address[1])
    assert (client.type, client.family) == (std.SOCK_DGRAM, std.AF_INET)
    assert isinstance(client, socket.socket)


def test_a_connected_socket_hears_its_peer_only(client, server):
    client.connect(server.getsockname())
    assert client.getpeername() == server.getsockname()
    client.send(b"hello")
    data, address = server.recvfrom(100)
    assert (data, address) == (b"hello", client.getsockname())
    with udp() as stranger:
        stranger.sendto(b"psst", address)
    server.sendto(b"answer", address)
    assert client.recv(100) == b"answer"
    with udp() as other:
        client.connect(other.getsockname())
        client.send(b"now you")
        assert other.recv(100) == b"now you"
    client.disconnect()
    with pytest.raises(OSError) as caught:
        client.send(b"to whom?")
    assert caught.value.errno == errno.EDESTADDRREQ


def test_an_unreachable_port_is_told_once_to_reader_writer_or_so_error(client):
    client.connect(nobody())
    client.send(b"x")
    assert select.select([client], [], [], PATIENCE_S)[0]
    assert refused(client.recv, 10)
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(10)
    client.send(b"x")
    assert select.select([client], [], [], PATIENCE_S)[0]
    assert refused(client.send, b"y")
    client.send(b"x")
    assert select.select([client], [], [], PATIENCE_S)[0]
    for _ in range(1000):
        if error := client.getsockopt(std.SOL_SOCKET, std.SO_ERROR):
            break
    assert error == errno.ECONNREFUSED
    assert client.getsockopt(std.SOL_SOCKET, std.SO_ERROR) == 0


def test_after_an_error_datagrams_flow_again(client):
    address = nobody()
    client.connect(address)
    client.send(b"x")
    assert refused(client.recv, 10)
    with socket.socket(std.AF_INET, std.SOCK_DGRAM) as late:
        late.bind(address)
        late.settimeout(PATIENCE_S)
        client.send(b"there now?")
        data, peer = late.recvfrom(100)
        late.sendto(data, peer)
        assert client.recv(100) == b"there now?"


@pytest.mark.parametrize(
    ("send", "error"),
    [
        (lambda s: s.send(b"x"), errno.EDESTADDRREQ),
        (lambda s: s.sendto(b"x", ("127.0.0.1", 0)), errno.EINVAL),
        (lambda s: s.sendto(b"x", ("192.0.2.1", 9)), errno.ENETUNREACH),
        (lambda s: s.sendto(bytes(65508), ("127.0.0.1", 9)), errno.EMSGSIZE),
        (lambda s: s.sendto(bytes(70000), ("127.0.0.1", 9)), errno.EMSGSIZE),
        (lambda s: s.sendto(b"x", ("127.255.255.255", 9)), errno.EACCES),
        (lambda s: s.sendto(b"x", std.MSG_OOB, ("127.0.0.1", 9)), errno.EOPNOTSUPP),
        (lambda s: s.listen(1), errno.EOPNOTSUPP),
        (lambda s: s.accept(), errno.EOPNOTSUPP),
        (lambda s: s.getpeername(), errno.ENOTCONN),
    ],
)
def test_what_cannot_be_sent_is_told_at_once(client, send, error):
    with pytest.raises(OSError) as caught:
        send(client)
    assert caught.value.errno == error


def test_broadcasts_need_their_option(client):
    client.setsockopt(std.SOL_SOCKET, std.SO_BROADCAST, 1)
    assert client.sendto(b"all", ("127.255.255.255", 9)) == 3


def test_peeking_leaves_a_datagram_and_what_does_not_fit_is_lost(client, server):
    client.sendto(b"0123456789", server.getsockname())
    client.sendto(b"next", server.getsockname())
    assert server.recv(4, std.MSG_PEEK) == b"0123"
    data, _, flags, address = server.recvmsg(4, 0, std.MSG_PEEK)
    assert (data, flags & std.MSG_TRUNC) == (b"0123", std.MSG_TRUNC)
    assert address[1] == client.getsockname()[1]
    buffer = bytearray(6)
    assert server.recv_into(buffer, 0, std.MSG_TRUNC) == 10
    assert buffer == b"012345"
    assert server.recvfrom_into(buffer) == (4, address)


def test_a_reader_that_does_not_read_loses_what_so_rcvbuf_has_no_room_for(daemon, client, server):
    server.setsockopt(std.SOL_SOCKET, std.SO_RCVBUF, 8192)
    for number in range(200):
        client.sendto(struct.pack("i", number), server.getsockname())

    def counts() -> tuple[int, int]:
        mib = daemon.stack.net.mib.udp
        return int(mib.RcvbufErrors), int(mib.InErrors)

    def settled() -> bool:
        return sum(1 for _ in numbers) + daemon.ask(counts)[0] == 200

    numbers = []
    server.settimeout(0.2)
    while not settled():
        try:
            numbers.append(struct.unpack("i", server.recv(10))[0])
        except TimeoutError:
            pass
    drops, errors = daemon.ask(counts)
    assert drops == errors and 150 < drops < 190  # 16384 bytes at 768 a datagram
    assert numbers[:10] == list(range(10))
    client.sendto(struct.pack("i", 4711), server.getsockname())
    assert struct.unpack("i", server.recv(10)) == (4711,)


def test_what_waits_in_the_descriptor_counts_in_recv_q(daemon, client, server):
    for _ in range(5):
        client.sendto(bytes(100), server.getsockname())

    def held() -> list[int]:
        return [row["recv_q"] for row in daemon.stack.inet.diag(["udp"]) if row["recv_q"]]

    end = time.monotonic() + PATIENCE_S
    while daemon.ask(held) != [5 * 768] and time.monotonic() < end:
        pass
    assert daemon.ask(held) == [5 * 768]


def test_ancillary_data_goes_both_ways(client, server):
    ip_pktinfo, ip_recvttl, ip_recvtos = 8, 12, 13
    for option in (ip_pktinfo, ip_recvttl, ip_recvtos):
        server.setsockopt(std.IPPROTO_IP, option, 1)
    for _ in range(2):
        told = [(std.IPPROTO_IP, std.IP_TTL, struct.pack("i", 7)), (std.IPPROTO_IP, 1, b"\x10")]
        assert client.sendmsg([b"da", b"ta"], told, 0, server.getsockname()) == 4
        data, ancillary, _, _ = server.recvmsg(100, 200)
        assert data == b"data"
        assert (std.IPPROTO_IP, std.IP_TTL, struct.pack("i", 7)) in ancillary
        assert (std.IPPROTO_IP, std.IP_TOS, b"\x10") in ancillary
        (pktinfo,) = (value for _, kind, value in ancillary if kind == ip_pktinfo)
        assert pktinfo[4:] == std.inet_aton("127.0.0.1") * 2
    with pytest.raises(OSError) as caught:
        client.sendmsg([b"x"], [(std.IPPROTO_IP, std.IP_TTL, b"\7")], 0, server.getsockname())
    assert caught.value.errno == errno.EINVAL


def test_corked_pieces_are_one_datagram(client, server):
    client.connect(server.getsockname())
    client.send(b"one", std.MSG_MORE)
    client.send(b"two")
    assert server.recv(100) == b"onetwo"


def test_the_error_queue_tells_what_an_error_was_about(client):
    address = nobody()
    client.setsockopt(std.IPPROTO_IP, 11, 1)
    client.sendto(b"quoted", address)
    assert select.select([client], [], [], PATIENCE_S)[0]
    assert refused(client.recv, 10)
    data, ancillary, flags, to = client.recvmsg(100, 200, std.MSG_ERRQUEUE)
    assert (data, to, flags & std.MSG_ERRQUEUE) == (b"quoted", address, std.MSG_ERRQUEUE)
    assert struct.unpack_from("=I", ancillary[0][2]) == (errno.ECONNREFUSED,)
    with pytest.raises(BlockingIOError):
        client.recvmsg(100, 200, std.MSG_ERRQUEUE)


def test_a_close_sends_what_was_written_and_gives_the_port_back(daemon, server):
    sock = udp()
    port = sock.getsockname()[1]
    for number in range(20):
        sock.sendto(b"%d" % number, server.getsockname())
    sock.close()
    assert [int(server.recv(10)) for _ in range(20)] == list(range(20))
    end = time.monotonic() + PATIENCE_S
    while len(daemon.hub) > 1 and time.monotonic() < end:
        pass
    with socket.socket(std.AF_INET, std.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port))


def test_a_shutdown_is_the_end_for_readers_and_epipe_for_writers(client, server):
    client.connect(server.getsockname())
    client.shutdown(std.SHUT_RD)
    assert client.recv(10) == b""
    client.send(b"still")
    assert server.recv(10) == b"still"
    client.shutdown(std.SHUT_WR)
    with pytest.raises(BrokenPipeError):
        client.send(b"x")


def test_a_forked_child_and_a_duplicate_hold_the_same_socket(client, server):
    client.connect(server.getsockname())
    second = client.dup()
    client.close()
    pid = os.fork()
    if not pid:
        os._exit(second.send(b"from the child") != 14)
    assert server.recv(100) == b"from the child"
    assert os.waitpid(pid, 0)[1] == 0
    with socket.socket(fileno=second.detach()) as again:
        assert again.type == std.SOCK_DGRAM
        assert again.send(b"again") == 5
    assert server.recv(100) == b"again"


def test_asyncio_has_datagram_endpoints_on_them(daemon, server):
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport) -> None:
            self.transport = transport

        def datagram_received(self, data, addr) -> None:
            self.transport.sendto(data.upper(), addr)

    class Client(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.heard = asyncio.get_running_loop().create_future()
            self.failed = asyncio.get_running_loop().create_future()

        def datagram_received(self, data, addr) -> None:
            self.heard.set_result((data, addr))

        def error_received(self, exc) -> None:
            self.failed.set_result(exc)

    async def talk() -> None:
        loop = asyncio.get_running_loop()
        echo, _ = await loop.create_datagram_endpoint(Echo, sock=udp())
        address = echo.get_extra_info("sockname")
        sock = udp(bound=False)
        sock.connect(address)
        transport, client = await loop.create_datagram_endpoint(Client, sock=sock)
        transport.sendto(b"hello")
        assert await client.heard == (b"HELLO", address)
        echo.abort()
        await asyncio.sleep(0)
        while not client.failed.done():
            transport.sendto(b"anybody?")
            await asyncio.wait([client.failed], timeout=0.05)
        assert isinstance(client.failed.result(), ConnectionRefusedError)
        transport.close()

    asyncio.run(talk())


def test_a_query_finds_its_answer_as_a_resolver_sends_it(client, server):
    query = struct.pack("!HHHHHH", 77, 0x100, 1, 0, 0, 0) + b"\4name\0" + struct.pack("!HH", 1, 1)
    client.connect(server.getsockname())
    client.send(query)
    asked, who = server.recvfrom(512)
    server.sendto(asked[:2] + b"\x81\x80" + asked[4:], who)
    answer = client.recv(512)
    assert answer[:2] == query[:2] and answer[12:] == query[12:]


def test_raw_sockets_are_for_privileged_users_and_ping_has_its_own(daemon):
    with socket.socket(std.AF_INET, std.SOCK_RAW, std.IPPROTO_ICMP) as raw:
        raw.settimeout(PATIENCE_S)
        raw.sendto(b"\x08\0\xf7\xff\0\0\0\0", ("127.0.0.1", 0))
        assert raw.recv(100)[0] == 0x45
    with pytest.raises(OSError) as caught:
        socket.socket(std.AF_INET, 5)
    assert caught.value.errno == errno.ESOCKTNOSUPPORT


def test_a_daemon_that_ends_is_an_error(tmp_path: Path):
    with CallsDaemon(tmp_path / "u.sock") as daemon:
        ustack.connect(str(daemon.path))
        sock = udp()
    with sock, pytest.raises(OSError):
        sock.recv(10)
    with pytest.raises(OSError):
        sock.send(b"x")
    ustack.down()
