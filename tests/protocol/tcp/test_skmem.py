"""What ``ss -m`` shows of a connection: r, rb, t, tb, f, w, o, bl, d (sk_get_meminfo)."""

from __future__ import annotations

from typing import Any

import pytest

from kit.host import Host, host
from kit.md5 import tcp_md5sig
from ustack.config import NicConfig
from ustack.tcp.md5 import TCP_MD5SIG

CHUNK_HEADER = 40
PAGE = 4096


def skmem(h: Host, sk: Any) -> dict[str, int]:
    """The figures of one connection."""
    peer = sk.getpeername()
    return next(row["skmem"] for row in h.stack.tcp.diag() if row["peer"] == peer)


@pytest.mark.linux("sk_get_meminfo")
def test_an_idle_connection_holds_nothing(server):
    sk, _ = server.established()
    tp = sk._sk.tp
    assert skmem(server, sk) == {
        "r": 0, "rb": tp.sk_rcvbuf, "t": 0, "tb": tp.sk_sndbuf, "f": 0, "w": 0, "o": 0, "bl": 0,
        "d": 0,
    }  # fmt: skip


def test_what_waits_for_the_reader_is_r_and_the_rest_of_its_page_f(server):
    sk, peer = server.established()
    peer.send("P. 1:1001(1000) ack 1")
    mem = skmem(server, sk)
    assert (mem["r"], mem["f"]) == (1000 + CHUNK_HEADER, PAGE - 1000 - CHUNK_HEADER)
    sk.recv(1000)
    assert (skmem(server, sk)["r"], skmem(server, sk)["f"]) == (0, 0)


def test_what_waits_beyond_a_hole_is_r_too(server):
    sk, peer = server.established()
    peer.send("P. 1001:2001(1000) ack 1")
    assert skmem(server, sk)["r"] == sk._sk.ofo.truesize == 1256


def test_what_is_not_acknowledged_is_w(server):
    sk, peer = server.established("mss 1460")
    sk.send(bytes(3000))
    mem = skmem(server, sk)
    assert (mem["w"], mem["f"]) == (3000 + CHUNK_HEADER, PAGE - 3000 - CHUNK_HEADER)
    assert mem["t"] == 0  # the device has sent it
    peer.send(". 1:1(0) ack 3001")
    assert skmem(server, sk)["w"] == 0


def test_what_the_device_still_has_is_t():
    h = host(nic=NicConfig(large_receive=False, rx_usecs=0))
    sk, _ = h.established("mss 1460")
    h.adapter.nic.wire.send_frame = lambda unit: False  # the wire takes nothing
    sk.send(bytes(3000))
    assert skmem(h, sk)["t"] == PAGE


@pytest.mark.linux("sk_drops")
def test_what_was_dropped_is_d(server):
    sk, peer = server.established()
    peer.send("P. 1:6(5) ack 1")
    peer.send("P. 1:6(5) ack 1")
    peer.send("P. 900001:900006(5) ack 1")
    assert skmem(server, sk)["d"] == 2


def test_keys_of_signatures_are_o(server):
    sk, _ = server.established()
    sk.setsockopt(6, TCP_MD5SIG, tcp_md5sig("10.0.0.1", b"secret"))
    assert skmem(server, sk)["o"] == 128
