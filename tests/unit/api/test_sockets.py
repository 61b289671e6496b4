"""The socket API on a loopback-only stack: Linux's behaviours, the standard library's shape."""

from __future__ import annotations

import errno
import gc
import io
import struct
import termios
import threading
import time

import pytest

from ustack import socket
from ustack.tcp.info import unpack_tcp_info

PORT = 8000
ADDRESS = ("127.0.0.1", PORT)
SHORT_S = 0.03


def soon(condition):
    """Wait for what other threads do; True when it has come true."""
    limit = time.monotonic() + 60
    while not condition():
        if time.monotonic() > limit:
            return False
        threading.Event().wait(0.0005)
    return True


# Figures.


def test_tcp_info_and_ioctl_tell_of_both_ends(pair):
    client, server = pair
    client.sendall(b"hello")
    assert soon(lambda: server.ioctl(termios.FIONREAD) == 5)
    assert soon(lambda: client.ioctl(termios.TIOCOUTQ) == 0)
    sent = unpack_tcp_info(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 280))
    came = unpack_tcp_info(server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 280))
    assert (sent["state"], sent["bytes_acked"], sent["bytes_sent"]) == (1, 6, 5)
    assert (came["state"], came["bytes_received"], came["data_segs_in"]) == (1, 5, 1)


# Connections.


def test_names_are_pairs_of_text_and_number(pair):
    client, server = pair
    assert server.getsockname() == client.getpeername() == ADDRESS
    assert server.getpeername() == client.getsockname()


def test_accept_returns_the_peers_address_and_blocks_until_there_is_one(listener, calls):
    accept = calls(listener.accept)
    with socket.create_connection(ADDRESS) as client:
        conn, address = accept.wait()
        assert address == client.getsockname()
        conn.close()


def test_one_connection_lets_one_of_several_accepts_return(listener, calls):
    accepts = [calls(listener.accept) for _ in range(3)]
    clients = []
    for n in range(3):
        clients.append(socket.create_connection(ADDRESS))
        assert soon(lambda n=n: sum(not call.blocked for call in accepts) == n + 1)
    for call in accepts:
        call.wait()[0].close()
    for client in clients:
        client.close()


def test_connecting_to_a_closed_port_is_refused():
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(("127.0.0.1", 9))
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", 9)) == errno.ECONNREFUSED


def test_a_nonblocking_connect_is_in_progress_then_done(listener):
    with socket.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError) as caught:
            sock.connect(ADDRESS)
        assert caught.value.errno == errno.EINPROGRESS
        assert soon(lambda: sock.connect_ex(ADDRESS) in (0, errno.EISCONN))
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert sock.connect_ex(ADDRESS) == errno.EISCONN


def test_connect_gives_up_after_its_timeout():
    with socket.create_server(("127.0.0.1", 8001), backlog=0):
        fillers = []
        for _ in range(4):
            sock = socket.socket()
            sock.settimeout(SHORT_S)
            fillers.append((sock, sock.connect_ex(("127.0.0.1", 8001))))
        assert errno.EAGAIN in [result for _, result in fillers]
        with socket.socket() as sock:
            sock.settimeout(SHORT_S)
            with pytest.raises(TimeoutError, match="timed out"):
                sock.connect(("127.0.0.1", 8001))
        for sock, _ in fillers:
            sock.close()


def test_a_bound_port_is_in_use(listener):
    with socket.socket() as sock, pytest.raises(OSError) as caught:
        sock.bind(ADDRESS)
    assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError, match="while attempting to bind on address"):
        socket.create_server(ADDRESS)


def test_what_there_is_not_is_refused_with_linuxs_errno():
    for kind, number in (
        ((socket.AF_INET6,), errno.EAFNOSUPPORT),
        ((socket.AF_INET, socket.SOCK_SEQPACKET), errno.ESOCKTNOSUPPORT),
        ((socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP), errno.EACCES),
        ((socket.AF_INET, socket.SOCK_STREAM, 17), errno.EPROTONOSUPPORT),
    ):
        with pytest.raises(OSError) as caught:
            socket.socket(*kind)
        assert caught.value.errno == number


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("127.0.0.1", TypeError),
        (("127.0.0.1",), TypeError),
        (("127.0.0.1", "80"), (TypeError, AttributeError)),
        (("127.0.0.1", 65536), OverflowError),
        ((5, 80), TypeError),
    ],
)
def test_what_is_no_address_is_the_callers_mistake(address, error):
    with socket.socket() as sock, pytest.raises(error):
        sock.connect(address)


# Receiving (answers to "blocking recv, fewer bytes than asked for are there").


def test_recv_returns_what_is_there(pair):
    client, server = pair
    client.sendall(b"0123456789")
    assert server.recv(1000) == b"0123456789"


def test_recv_sleeps_until_something_comes(pair, calls):
    client, server = pair
    recv = calls(server.recv, 1000)
    assert recv.blocked
    client.send(b"x")
    assert recv.wait() == b"x"


def test_rcvlowat_makes_recv_sleep_until_so_much_is_there(pair, calls):
    client, server = pair
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 20)
    client.sendall(b"a" * 10)
    recv = calls(server.recv, 1000)
    assert recv.blocked
    client.sendall(b"b" * 15)
    assert recv.wait() == b"a" * 10 + b"b" * 15


def test_rcvlowat_does_not_ask_for_more_than_recv_does(pair):
    client, server = pair
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 20)
    client.sendall(b"a" * 10)
    assert server.recv(5) == b"a" * 5
    server.setblocking(False)
    assert soon(lambda: server.recv(100, socket.MSG_PEEK) == b"a" * 5)


def test_waitall_waits_for_all_or_for_the_end(pair, calls):
    client, server = pair
    recv = calls(server.recv, 100, socket.MSG_WAITALL)
    client.sendall(b"a" * 10)
    client.sendall(b"b" * 5)
    assert recv.blocked
    client.shutdown(socket.SHUT_WR)
    assert recv.wait() == b"a" * 10 + b"b" * 5
    assert server.recv(1) == b""


def test_waitall_takes_more_than_the_receive_buffer_holds(pair, calls):
    client, server = pair
    size = 8 << 20
    recv = calls(server.recv, size, socket.MSG_WAITALL)
    client.sendall(bytes(size))
    assert len(recv.wait()) == size


def test_peek_leaves_the_bytes_where_they_are(pair):
    client, server = pair
    client.sendall(b"abc")
    assert server.recv(2, socket.MSG_PEEK) == b"ab"
    assert server.recv(10) == b"abc"


def test_an_empty_socket_would_block_and_after_fin_there_is_nothing_for_ever(pair):
    client, server = pair
    with pytest.raises(BlockingIOError):
        server.recv(1, socket.MSG_DONTWAIT)
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.recv(1)
    client.close()
    server.setblocking(True)
    assert [server.recv(1) for _ in range(3)] == [b""] * 3


def test_rcvtimeo_ends_in_eagain_and_a_timeout_in_timeouterror(pair):
    _, server = pair
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 20_000))
    with pytest.raises(BlockingIOError):
        server.recv(1)
    server.settimeout(0.02)
    before = time.monotonic()
    with pytest.raises(TimeoutError, match="timed out") as caught:
        server.recv(1)
    assert caught.value.errno is None
    assert 0.02 <= time.monotonic() - before < 10


def test_rcvtimeo_returns_the_little_that_there_is(pair):
    client, server = pair
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 20)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 20_000))
    client.sendall(b"a" * 10)
    assert server.recv(100) == b"a" * 10


def test_recv_into_fills_the_buffer_it_is_given(pair):
    client, server = pair
    client.sendall(b"abcdef")
    buffer = bytearray(b"......")
    assert server.recv_into(buffer, 2) == 2
    assert server.recv_into(memoryview(buffer)[3:]) == 3
    assert buffer == b"ab.cde"
    with pytest.raises(ValueError):
        server.recv_into(buffer, 7)


# Sending.


def test_a_writer_sleeps_until_the_reader_makes_room(pair, calls):
    client, server = pair
    data = bytes(range(256)) * 65536
    sendall = calls(client.sendall, data)
    assert sendall.blocked
    got = bytearray()
    while len(got) < len(data):
        got += server.recv(1 << 20)
    assert got == data
    sendall.wait()


def test_a_nonblocking_writer_gets_a_part_in_then_eagain(pair):
    client, _ = pair
    client.setblocking(False)
    sent = client.send(bytes(64 << 20))
    assert 0 < sent < 64 << 20
    with pytest.raises(BlockingIOError):
        while True:
            client.send(bytes(1 << 20))


def test_a_writers_timeout_is_for_the_whole(pair):
    client, _ = pair
    client.settimeout(SHORT_S)
    with pytest.raises(TimeoutError):
        client.sendall(bytes(64 << 20))


def test_a_blocking_send_takes_all(pair, calls):
    client, server = pair
    send = calls(client.send, bytes(16 << 20))
    left = 16 << 20
    while left:
        left -= len(server.recv(1 << 20))
    assert send.wait() == 16 << 20


def test_the_callers_buffer_is_his_again_when_send_returns(pair):
    client, server = pair
    data = bytearray(b"before")
    client.send(data)
    data[:] = b"after!"
    assert server.recv(6, socket.MSG_WAITALL) == b"before"


def test_sending_after_shutdown_is_a_broken_pipe(pair):
    client, server = pair
    client.shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenPipeError):
        client.send(b"x")
    assert server.recv(1) == b""
    server.sendall(b"still open")
    assert client.recv(100) == b"still open"


def test_items_larger_than_a_byte_are_counted_in_bytes(pair):
    client, server = pair
    client.sendall(memoryview(struct.pack("4I", 1, 2, 3, 4)).cast("I"))
    assert struct.unpack("4I", server.recv(16, socket.MSG_WAITALL)) == (1, 2, 3, 4)


def test_sendfile_sends_a_part_of_a_file(pair, tmp_path):
    client, server = pair
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 100_000)
    got = bytearray()

    def receive():
        while data := server.recv(1 << 16):
            got.extend(data)

    reader = threading.Thread(target=receive)
    reader.start()
    with path.open("rb") as file:
        assert client.sendfile(file, offset=5, count=700_000) == 700_000
        assert file.tell() == 700_005
    client.shutdown(socket.SHUT_WR)
    reader.join(60)
    assert bytes(got) == path.read_bytes()[5:700_005]


def test_sendfile_copies_nothing_at_the_socket_layer(pair, stack, tmp_path):
    client, server = pair
    path = tmp_path / "file"
    path.write_bytes(bytes(300_000) + b"tail")
    tcp = stack.stack.tcp
    with path.open("rb") as file:
        assert client.sendfile(file, count=100_000) == 100_000
        assert server.recv(100_000, socket.MSG_WAITALL) == bytes(100_000)
        assert client.sendfile(file, offset=100_000) == 200_004
    assert server.recv(200_004, socket.MSG_WAITALL).endswith(b"tail")
    assert (tcp.copied_bytes, tcp.ref_bytes) == (0, 300_004)


def test_sendfile_of_a_file_without_a_descriptor_copies(pair, stack):
    client, server = pair
    file = io.BytesIO(b"0123456789")
    assert client.sendfile(file, offset=3) == 7
    assert file.tell() == 10
    assert server.recv(7, socket.MSG_WAITALL) == b"3456789"
    assert (stack.stack.tcp.copied_bytes, stack.stack.tcp.ref_bytes) == (7, 0)


def test_sendfile_of_a_file_that_is_truncated_ends_there(pair, tmp_path):
    client, server = pair
    path = tmp_path / "file"
    path.write_bytes(bytes(200_000))
    with path.open("r+b") as file:
        file.truncate(50_000)
        assert client.sendfile(file, count=200_000) == 50_000
    assert server.recv(50_000, socket.MSG_WAITALL) == bytes(50_000)


def test_sendfile_waits_no_longer_than_the_timeout(pair, tmp_path):
    client, _ = pair
    client.settimeout(0.05)
    path = tmp_path / "file"
    path.write_bytes(bytes(30_000_000))
    with path.open("rb") as file, pytest.raises(TimeoutError):
        client.sendfile(file)
    with pytest.raises(ValueError):
        client.setblocking(False)
        client.sendfile(None)


def test_a_lent_buffer_is_ours_again_once_the_peer_has_it(pair):
    client, server = pair
    data = bytearray(b"x" * 100_000)
    sent = client.send_ref(data)
    assert (sent.sent, sent.copied) == (100_000, False)
    assert server.recv(100_000, socket.MSG_WAITALL) == data
    assert sent.wait(60)
    assert sent.released
    data.append(0)


def test_a_lent_buffer_is_not_ours_while_the_peer_reads_nothing(pair):
    client, _ = pair
    data = bytearray(30_000_000)
    client.settimeout(0.05)
    sent = client.send_ref(data)
    assert 0 < sent.sent < len(data)
    assert not sent.wait(0.05)
    with pytest.raises(BufferError):
        data.append(0)
    client.settimeout(None)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()  # a reset: nobody will ask for it again
    assert sent.wait(60)
    data.append(0)


def test_lending_a_little_or_nothing_is_done_at_once(pair):
    client, server = pair
    sent = client.send_ref(b"little")
    assert (sent.sent, sent.copied, sent.released) == (6, True, True)
    assert server.recv(10) == b"little"
    assert client.send_ref(b"").wait()
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            client.send_ref(bytes(1_000_000))


# Closing.


def test_shutdown_wakes_a_blocked_reader_with_the_end(pair, calls):
    _, server = pair
    recv = calls(server.recv, 10)
    server.shutdown(socket.SHUT_RD)
    assert recv.wait() == b""


def test_close_does_not_wake_a_blocked_reader_who_still_gets_the_data(pair, calls):
    client, server = pair
    recv = calls(server.recv, 10)
    server.close()
    assert server.fileno() == -1
    with pytest.raises(BlockingIOError):
        client.recv(1, socket.MSG_DONTWAIT)  # no FIN yet: the reader holds a reference
    assert recv.blocked
    client.sendall(b"data")
    assert recv.wait() == b"data"
    assert client.recv(1) == b""  # the reader's was the last


def test_closing_with_unread_data_resets_the_connection(pair):
    client, server = pair
    client.sendall(b"never read")
    assert server.recv(1, socket.MSG_PEEK)
    server.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_linger_zero_resets_the_connection(pair):
    client, server = pair
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_lingering_close_waits_for_the_acknowledgement(pair):
    client, server = pair
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 120))
    server.sendall(b"last words")
    before = time.monotonic()
    server.close()
    assert time.monotonic() - before < 60
    assert client.recv(100) == b"last words"
    assert client.recv(100) == b""


def test_every_call_on_a_closed_socket_is_a_bad_descriptor(pair):
    client, _ = pair
    client.close()
    client.close()
    for call in (
        lambda: client.recv(1),
        lambda: client.send(b"x"),
        lambda: client.getsockname(),
        lambda: client.connect(ADDRESS),
        lambda: client.shutdown(2),
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EBADF


def test_a_duplicate_keeps_the_connection(pair):
    client, server = pair
    copy = client.dup()
    client.close()
    copy.sendall(b"x")
    assert server.recv(1) == b"x"
    copy.close()
    assert server.recv(1) == b""


def test_a_detached_descriptor_can_be_taken_up_again_or_closed(pair):
    client, server = pair
    fd = client.detach()
    assert client.fileno() == -1
    again = socket.socket(fileno=fd)
    again.sendall(b"x")
    assert server.recv(1) == b"x"
    socket.close(again.detach())
    assert server.recv(1) == b""


def test_descriptors_are_the_lowest_free_and_none_of_the_kernels():
    with socket.socket() as a, socket.socket() as b:
        numbers = a.fileno(), b.fileno()
    assert numbers[1] == numbers[0] + 1 > 1 << 20
    with socket.socket() as c:
        assert c.fileno() == numbers[0]
    with pytest.raises(OSError):
        io.FileIO(numbers[0], closefd=False)


def test_a_forgotten_socket_is_closed_with_a_warning(pair):
    client, server = pair
    copy = client.dup()
    client.close()
    with pytest.warns(ResourceWarning):
        del copy
        gc.collect()
    assert server.recv(1) == b""


def test_taking_the_stack_down_ends_blocked_calls(listener, calls, stack):
    accepts = [calls(listener.accept) for _ in range(2)]
    stack.close()
    for accept in accepts:
        with pytest.raises(OSError):
            accept.wait()
    listener.close()


# Files, options, odds and ends.


def test_makefile_reads_lines_and_keeps_the_socket_open(pair):
    client, server = pair
    with server.makefile("rw", encoding="ascii", newline="\n") as file:
        server.close()
        client.sendall(b"one\ntwo\n")
        assert [file.readline(), file.readline()] == ["one\n", "two\n"]
        file.write("three\n")
        file.flush()
        assert client.recv(100) == b"three\n"
    assert client.recv(1) == b""


def test_a_binary_file_may_be_unbuffered(pair):
    client, server = pair
    with server.makefile("rb", buffering=0) as raw:
        client.sendall(b"abc")
        assert raw.read(2) == b"ab"
    with pytest.raises(ValueError):
        server.makefile("r", buffering=0)
    with pytest.raises(ValueError):
        server.makefile("x")


def test_timeouts_and_blocking_are_two_views_of_one_thing():
    with socket.socket() as sock:
        assert sock.gettimeout() is None and sock.getblocking()
        sock.setblocking(False)
        assert sock.gettimeout() == 0.0 and not sock.getblocking()
        sock.settimeout(1.5)
        assert sock.timeout == 1.5 and sock.getblocking()
        with pytest.raises(ValueError):
            sock.settimeout(-1)
    with socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        assert sock.gettimeout() == 0.0


def test_options_reach_the_core_and_come_back(pair):
    client, _ = pair
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    with pytest.raises(OSError) as caught:
        client.getsockopt(socket.SOL_SOCKET, 9999)
    assert caught.value.errno == errno.ENOPROTOOPT
    timeval = struct.pack("@ll", 1, 500_000)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16) == timeval


def test_repr_says_what_it_is(pair):
    client, _ = pair
    assert "laddr=('127.0.0.1'," in repr(client) and f"raddr={ADDRESS}" in repr(client)
    client.close()
    assert "[closed]" in repr(client)


def test_many_threads_share_a_connection_without_loss_or_duplicate(pair, calls):
    client, server = pair
    total, got, lock = 4 << 20, [], threading.Lock()

    def read():
        while data := server.recv(10_000):
            with lock:
                got.append(data)

    readers = [calls(read) for _ in range(4)]
    client.sendall(b"".join(struct.pack(">I", n) for n in range(total // 4)))
    client.shutdown(socket.SHUT_WR)
    for reader in readers:
        reader.wait()
    assert sum(map(len, got)) == total
