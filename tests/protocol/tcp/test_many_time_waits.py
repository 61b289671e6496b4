"""Thirty thousand TIME_WAITs: what they cost, and what the next connection does (E-PORT)."""

from __future__ import annotations

import errno
from collections import Counter
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, host
from ustack.config import CoreConfig, TcpConfig
from ustack.tcp.diag import tcp_diag

SECOND = 1_000_000
LOOPBACK = 0x7F000001


def close_first(h: Host, lsk: Any, port: int = 8080) -> None:
    """One connection over lo, closed by the client first."""
    sk = h.socket()
    try:
        sk.connect(LOOPBACK, port)
    except BlockingIOError:
        pass
    while h.stack.poll(h.world.now_us):
        pass
    child = lsk.accept()
    sk.close()
    while h.stack.poll(h.world.now_us):
        pass
    child.close()
    while h.stack.poll(h.world.now_us):
        pass


def with_time_waits(n: int, **tcp: Any) -> tuple[Host, Any]:
    core = CoreConfig(arena_bytes=64 << 20)
    h = host(TEST_CONFIG, core=core, tcp=TcpConfig(**{"tcp_tw_reuse": 0, **tcp}))
    lsk = h.listen(8080)
    for _ in range(n):
        close_first(h, lsk)
    return h, lsk


@pytest.mark.linux("inet_timewait_sock: a slab of its own, 60 s")
@pytest.mark.parametrize("n", [300, pytest.param(30_000, marks=pytest.mark.long)])
def test_they_are_mini_sockets_and_gone_after_a_minute(n):
    h, _ = with_time_waits(n, ip_local_port_range=(5000, 65000))
    states = Counter(str(row["state"]) for row in tcp_diag(h.stack.tcp))
    assert states == {"LISTEN": 1, "TIME-WAIT": n}
    info = h.stack.tcp.tw_cache.info()
    assert info.active_objs == n
    assert info.objsize <= 256
    assert h.stack.tcp.tcp_cache.info().active_objs == 1  # the listener
    h.advance_us(61 * SECOND)
    assert not h.stack.tcp.twhash
    assert list(h.stack.tcp.bhash) == [8080]


@pytest.mark.linux("E-PORT: rising curve, EADDRNOTAVAIL at the end, another port is fine")
def test_a_range_full_of_them_refuses_one_server_only():
    n = 300
    h, _ = with_time_waits(n, ip_local_port_range=(40000, 40000 + n - 1))
    before = h.stack.net.mib.ustack.ConnectPortProbes
    sk = h.socket()
    with pytest.raises(OSError) as caught:
        sk.connect(LOOPBACK, 8080)
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert h.stack.net.mib.ustack.ConnectPortProbes - before == n
    close_first(h, h.listen(8081), 8081)  # the same ports, another destination


def test_with_tcp_tw_reuse_the_range_never_ends():
    h, lsk = with_time_waits(100, ip_local_port_range=(40000, 40099), tcp_tw_reuse=1)
    h.advance_us(SECOND + 1)
    for _ in range(50):
        close_first(h, lsk)
    assert h.mib.TWRecycled == 50
    assert len(h.stack.tcp.twhash) == 100
