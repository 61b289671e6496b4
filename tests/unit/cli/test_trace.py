"""``ustack trace``: a line a hop."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.cli.fake_daemon import FakeDaemon
from ustack.cli.main import main
from ustack.daemon.messages import Done, HopRow, PacketTrace, Started, TraceRequest, encode

PING = bytes.fromhex("02000000000202000000000108004500001c0000400040010000") + bytes(
    [10, 0, 0, 1, 10, 0, 0, 2, 8, 0, 0, 0, 0, 1, 0, 2]
)


def test_the_path_is_printed_with_the_packet_above_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    hops = [HopRow("dma", "dma_rx", 0), HopRow("irq", "igb_msix_ring", 1500)]
    trace = PacketTrace("rx", "eth0", 42, PING, hops, 13_250)
    path = tmp_path / "d.sock"
    with FakeDaemon(path, lambda r: [encode(m) for m in (Started(), trace, Done())]) as daemon:
        assert main(["--socket", str(path), "trace", "--one", "rx"]) == 0
    assert daemon.requests == [TraceRequest("rx")]
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "eth0: IP 10.0.0.1 > 10.0.0.2: ICMP echo request, id 1, seq 2, length 8",
        "      0.0 us     +1.5  dma        dma_rx",
        "      1.5 us    +11.8  irq        igb_msix_ring",
        "     13.2 us           done",
    ]
    assert err == "waiting for a packet (rx)\n"


def test_without_a_packet_the_status_says_so(tmp_path: Path):
    path = tmp_path / "d.sock"
    with FakeDaemon(path, lambda r: [encode(Started()), encode(Done())]):
        assert main(["--socket", str(path), "trace", "--one", "lo"]) == 1


def test_a_request_and_its_reply_are_printed_on_one_clock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    request = PacketTrace("rx", "eth0", 42, PING, [HopRow("dma", "dma", 0)], 13_000)
    reply = PacketTrace("tx", "eth0", 42, PING, [HopRow("syscall", "tcp_sendmsg", 20_000)], 25_000)
    path = tmp_path / "d.sock"
    answer = [encode(m) for m in (Started(), request, reply, Done())]
    with FakeDaemon(path, lambda r: answer) as daemon:
        assert main(["--socket", str(path), "trace", "--conn"]) == 0
    assert daemon.requests == [TraceRequest("conn")]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("request: eth0: IP 10.0.0.1 > 10.0.0.2")
    assert lines[3].startswith("reply: eth0: IP")
    assert lines[4:] == [
        "     20.0 us     +5.0  syscall    tcp_sendmsg",
        "     25.0 us           done",
    ]


def test_one_and_conn_exclude_each_other(tmp_path: Path):
    with pytest.raises(SystemExit):
        main(["trace", "--conn", "--one", "rx"])
