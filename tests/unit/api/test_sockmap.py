"""The shortcut between local sockets, with threads that wait."""

from __future__ import annotations

from threading import Thread


def test_a_thread_that_waits_in_recv_is_woken_and_answers(stack, pair):
    client, server = pair
    stack.redirect_sockmap(True)
    before = stack.stack.lo.stats.tx_packets
    rounds = 200

    def answer() -> None:
        for _ in range(rounds):
            server.sendall(server.recv(100).upper())

    thread = Thread(target=answer)
    thread.start()
    for _ in range(rounds):
        client.sendall(b"ping")
        assert client.recv(100) == b"PING"
    thread.join()
    assert stack.stack.net.mib.ustack.SockmapBytes == 2 * 4 * rounds
    assert stack.stack.lo.stats.tx_packets - before < 5


def test_a_thread_that_waits_for_room_is_woken_by_the_reader(stack, pair):
    client, server = pair
    stack.redirect_sockmap(True)
    total = 8 << 20
    thread = Thread(target=client.sendall, args=(bytes(total),))
    thread.start()
    got = 0
    while got < total:
        got += len(server.recv(65536))
    thread.join()
    assert stack.stack.net.mib.ustack.SockmapBytes == total
