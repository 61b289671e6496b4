"""TCP calls that a bare descriptor cannot do: prints what each gave, the same on any stack."""

import runpy
import select
import socket
import struct
import threading
import time
from pathlib import Path

TCP_FASTOPEN_CONNECT = 30
SCENES = runpy.run_path(str(Path(__file__).with_name("behaviours.py")))
arrived, outcome = SCENES["arrived"], SCENES["outcome"]
LISTENER = socket.create_server(("127.0.0.1", 18201))
LISTENER.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
THERE = LISTENER.getsockname()


def pair():
    client = socket.create_connection(THERE)
    return client, LISTENER.accept()[0]


def not_connected():
    sock = socket.socket()
    sock.setblocking(False)
    print("recv", outcome(sock.recv, 1), outcome(sock.recv_into, bytearray(1)))
    print("peer", outcome(sock.getpeername))
    sock.listen()
    print("listener", outcome(sock.recv, 1), outcome(sock.accept))
    sock.close()


def trunc():
    client, server = pair()
    client.sendall(b"0123456789" * 10_000)
    buffer = bytearray(b"kept")
    print("trunc", outcome(server.recv_into, buffer, 4, socket.MSG_TRUNC), bytes(buffer))
    print(len(server.recv(2, socket.MSG_TRUNC)), server.recv(4))
    client.close()
    server.close()


def shut_for_reading():
    client, server = pair()
    client.sendall(b"early")
    arrived(server, 5)
    server.shutdown(socket.SHUT_RD)
    print("shut", server.recv(100), server.recv(100))
    client.sendall(b"late" * 1000)
    arrived(server, 1000)
    buffers = bytearray(2), bytearray(3)
    print(server.recv(4, socket.MSG_PEEK), server.recvmsg_into(buffers)[0], buffers)
    got = b""
    while len(got) < 3995:
        got += server.recv(10_000)
    print(got == (b"late" * 1000)[5:], server.recv(10), outcome(server.send, b"x"))
    client.sendall(b"unread")
    arrived(server, 6)
    server.close()
    print(outcome(client.recv, 1), outcome(client.recv, 1))
    client.close()


def shut_both_ways():
    print("both", SCENES["after_a_shutdown_of_both_ways"]())
    print(SCENES["closed_after_a_shutdown_of_both_ways"]())


def a_listener_is_closed():
    listener = socket.create_server(("127.0.0.1", 18202))
    there = listener.getsockname()
    clients = [socket.create_connection(there) for _ in range(4)]
    accepted = [listener.accept()[0] for _ in range(2)]
    accepted.pop().close()
    listener.close()
    print("closed", *[outcome(client.recv, 1) for client in clients[1:]])
    accepted.pop().close()
    print(outcome(clients[0].recv, 1))


def linger():
    for seconds in (30, 0):
        client, server = pair()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
        client.sendall(b"last words")
        started = time.monotonic()
        client.close()
        select.select([server], [], [], 30)
        last = outcome(server.recv, 100) if seconds else outcome(drain, server)
        print("linger", seconds, last, time.monotonic() - started < 20)
        server.close()


def drain(sock):
    """Read to the end; what was sent before a reset may be there or not."""
    while sock.recv(100):
        pass


def fastopen():
    for data in (b"first", b"second" * 10_000):
        client = socket.socket()
        writer = threading.Thread(target=client.sendto, args=(data, socket.MSG_FASTOPEN, THERE))
        writer.start()
        server, _ = LISTENER.accept()
        print("sendto", server.recv(100)[:5], outcome(client.getpeername) == THERE)
        writer.join()
        print(outcome(client.sendto, b"x", socket.MSG_FASTOPEN, THERE))
        client.close()
        server.close()
    client = socket.socket()
    client.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    print("connect", outcome(client.connect, THERE), client.send(b"with the SYN"))
    server, _ = LISTENER.accept()
    print(server.recv(100))
    client.close()
    server.close()


not_connected()
trunc()
shut_for_reading()
shut_both_ways()
a_listener_is_closed()
linger()
fastopen()
LISTENER.close()
