"""``ustack tcpdump``: lines as tcpdump's, files that tcpdump can read, an orderly end."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import Any

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.cli.fake_daemon import FakeDaemon
from ustack.cli.decode import Decoder, format_time
from ustack.cli.main import main
from ustack.cli.streaming import stop_signals
from ustack.daemon.bpf import compile_filter
from ustack.daemon.messages import (
    AnyRequest,
    CaptureRequest,
    Done,
    Failure,
    Started,
    StopRequest,
    encode,
    packet_messages,
)
from ustack.wire.pcap import PcapWriter

HOST, STACK = b"\x0a\0\0\1", b"\x0a\0\0\2"
MAC_A, MAC_B = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
S, A, F, R, P = (
    dpkt.tcp.TH_SYN,
    dpkt.tcp.TH_ACK,
    dpkt.tcp.TH_FIN,
    dpkt.tcp.TH_RST,
    dpkt.tcp.TH_PUSH,
)


def frame(ip: dpkt.ip.IP) -> bytes:
    """Put an Ethernet header in front."""
    return bytes(dpkt.ethernet.Ethernet(src=MAC_A, dst=MAC_B, type=0x0800, data=ip))


def ip_packet(proto: int, data: bytes, src: bytes = HOST, dst: bytes = STACK) -> dpkt.ip.IP:
    """Make an IPv4 packet."""
    packet = dpkt.ip.IP(src=src, dst=dst, p=proto, data=data)
    packet.len = 20 + len(data)
    return packet


def tcp(
    flags: int, seq: int, ack: int = 0, data: bytes = b"", opts: bytes = b"", *, back: bool = False
) -> bytes:
    """Make a TCP segment from the host's port 1234 to the stack's port 80, or back."""
    ports = (80, 1234) if back else (1234, 80)
    segment = dpkt.tcp.TCP(
        sport=ports[0], dport=ports[1], flags=flags, seq=seq, ack=ack, win=502, opts=opts
    )
    segment.off = 5 + len(opts) // 4
    raw = bytes(segment)[:20] + opts + data
    ends = (STACK, HOST) if back else (HOST, STACK)
    return frame(ip_packet(6, raw, *ends))


def described(*frames: bytes, **options: bool) -> list[str]:
    """Decode frames one after the other."""
    decoder = Decoder(**options)
    return [decoder.line(data, len(data)) for data in frames]


MSS = b"\2\4\5\xb4"
SYN_OPTIONS = MSS + b"\4\2" + b"\x08\x0a" + b"\0\0\0\x63" + b"\0\0\0\0" + b"\1" + b"\3\3\7"


def test_a_connection_reads_as_tcpdump_prints_it():
    assert described(
        tcp(S, 1000, opts=SYN_OPTIONS),
        tcp(S | A, 5000, 1001, opts=MSS, back=True),
        tcp(A, 1001, 5001),
        tcp(P | A, 1001, 5001, b"x" * 78),
        tcp(A, 5001, 1079, b"y" * 10, back=True),
        tcp(F | A, 1079, 5011),
        tcp(R | A, 5011, 1080, back=True),
        tcp(R, 1080),
    ) == [
        "IP 10.0.0.1.1234 > 10.0.0.2.80: Flags [S], seq 1000, win 502, options "
        "[mss 1460,sackOK,TS val 99 ecr 0,nop,wscale 7], length 0",
        "IP 10.0.0.2.80 > 10.0.0.1.1234: Flags [S.], seq 5000, ack 1001, win 502, options "
        "[mss 1460], length 0",
        "IP 10.0.0.1.1234 > 10.0.0.2.80: Flags [.], ack 1, win 502, length 0",
        "IP 10.0.0.1.1234 > 10.0.0.2.80: Flags [P.], seq 1:79, ack 1, win 502, length 78",
        "IP 10.0.0.2.80 > 10.0.0.1.1234: Flags [.], seq 1:11, ack 79, win 502, length 10",
        "IP 10.0.0.1.1234 > 10.0.0.2.80: Flags [F.], seq 79, ack 11, win 502, length 0",
        "IP 10.0.0.2.80 > 10.0.0.1.1234: Flags [R.], seq 11, ack 80, win 502, length 0",
        "IP 10.0.0.1.1234 > 10.0.0.2.80: Flags [R], seq 1080, win 502, length 0",
    ]


def test_absolute_numbers_stay_absolute():
    *_, last = described(tcp(S | A, 5000, 1001, back=True), tcp(A, 1001, 5001, b"x"), absolute=True)
    assert "seq 1001:1002, ack 5001" in last


def test_a_connection_seen_from_its_middle_is_absolute_once():
    first, second = described(tcp(A, 700, 900, b"ab"), tcp(A, 702, 900, b"c"))
    assert "seq 700:702, ack 900" in first
    assert "seq 2:3, ack 1" in second


def test_sack_blocks_are_relative_and_odd_options_are_shown():
    sack = b"\1\1\5\x12" + b"".join(n.to_bytes(4, "big") for n in (6001, 7001, 8001, 9001))
    _, line, odd = described(
        tcp(S | A, 5000, 1001, back=True),
        tcp(A, 1001, 5001, opts=sack),
        tcp(A, 1001, 5001, opts=b"\xfd\4\xab\xcd"),
    )
    assert "options [nop,nop,sack 2 {1001:2001}{3001:4001}]" in line
    assert "options [unknown-253 0xabcd]" in odd


def arp(op: int, tha: bytes = bytes(6), spa: bytes = HOST) -> bytes:
    """Make an ARP packet about the stack's address."""
    packet = dpkt.arp.ARP(op=op, sha=MAC_A, spa=spa, tha=tha, tpa=STACK)
    return bytes(dpkt.ethernet.Ethernet(src=MAC_A, dst=b"\xff" * 6, type=0x0806, data=packet))


def test_arp_reads_as_tcpdump_prints_it():
    assert described(
        arp(1), arp(1, MAC_B), arp(2), arp(1, spa=STACK), arp(1, spa=bytes(4)), arp(9)
    ) == [
        "ARP, Request who-has 10.0.0.2 tell 10.0.0.1, length 28",
        "ARP, Request who-has 10.0.0.2 (02:00:00:00:00:02) tell 10.0.0.1, length 28",
        "ARP, Reply 10.0.0.1 is-at 02:00:00:00:00:01, length 28",
        "ARP, Announcement 10.0.0.2, length 28",
        "ARP, Request who-has 10.0.0.2 tell 0.0.0.0, length 28",
        "ARP, Unknown (9), length 28",
    ]


def test_icmp_and_udp_read_as_tcpdump_prints_them():
    udp = bytes(dpkt.udp.UDP(sport=4444, dport=99, ulen=11, data=b"hi\n"))
    quoted = bytes(ip_packet(17, udp))[:28]
    lines = described(
        frame(ip_packet(1, b"\x08\0\0\0\x12\x34\0\1" + bytes(56))),
        frame(ip_packet(1, b"\0\0\0\0\x12\x34\0\1" + bytes(56))),
        frame(ip_packet(1, b"\3\3\0\0\0\0\0\0" + quoted)),
        frame(ip_packet(1, b"\3\4\0\0\0\0\x05\xdc" + quoted)),
        frame(ip_packet(1, b"\x0b\0\0\0\0\0\0\0" + quoted)),
        frame(ip_packet(17, udp)),
        frame(ip_packet(132, bytes(8))),
    )
    assert [line.partition(": ")[2] for line in lines] == [
        "ICMP echo request, id 4660, seq 1, length 64",
        "ICMP echo reply, id 4660, seq 1, length 64",
        "ICMP 10.0.0.2 udp port 99 unreachable, length 36",
        "ICMP 10.0.0.2 unreachable - need to frag (mtu 1500), length 36",
        "ICMP time exceeded in-transit, length 36",
        "UDP, length 3",
        "ip-proto-132 8",
    ]


def test_the_link_header_comes_first():
    (line,) = described(tcp(S, 7), link_header=True)
    assert line.startswith(
        "02:00:00:00:00:01 > 02:00:00:00:00:02, ethertype IPv4 (0x0800), length 54: 10.0.0.1.1234"
    )


@given(st.binary(max_size=120), st.sampled_from([b"", tcp(A, 1, 1, b"x", MSS), arp(1)]))
def test_no_frame_is_an_error(noise: bytes, start: bytes):
    decoder = Decoder()
    for data in (noise, start + noise, start[: len(noise)], start[:20] + noise):
        assert decoder.line(data, len(data))
    for ethertype in (b"\x08\0", b"\x08\6", b"\x86\xdd"):
        assert decoder.line(bytes(12) + ethertype + noise, 14 + len(noise))


def test_times_have_microseconds():
    assert format_time(1_000_000_000_000_007).endswith(".000007")


def test_a_capture_file_is_read_back_as_it_was():
    stream = io.BytesIO()
    writer = PcapWriter(stream, 65535)
    writer.start()
    writer.packet(1_700_000_000_999_999, 100, b"x" * 60)
    header = dpkt.pcap.LEPktHdr(stream.getvalue()[24:40])
    assert (header.tv_sec, header.tv_usec) == (1_700_000_000, 999_999)
    assert (header.caplen, header.len) == (60, 100)
    stream.seek(0)
    assert [data for _, data in dpkt.pcap.Reader(stream)] == [b"x" * 60]


def captured(*frames: bytes) -> list[bytes]:
    """Answer a capture with these frames and end it."""
    packets = [m for data in frames for m in packet_messages(5, len(data), data)]
    return [encode(Started()), *packets, encode(Done(len(frames), 1))]


def test_packets_go_to_stdout_and_news_to_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "d.sock"
    with FakeDaemon(path, lambda request: captured(arp(1), arp(2))) as daemon:
        assert main(["--socket", str(path), "tcpdump", "-i", "eth0", "-c", "2", "-n"]) == 0
    out, err = capsys.readouterr()
    assert [line.partition(" ")[2] for line in out.splitlines()] == described(arp(1), arp(2))
    assert err.splitlines() == [
        "listening on eth0, link-type EN10MB (Ethernet), snapshot length 262144 bytes",
        "2 packets captured",
        "2 packets received by filter",
        "1 packet dropped by kernel",
    ]
    request = daemon.requests[0]
    assert isinstance(request, CaptureRequest)
    assert (request.device, request.count) == ("eth0", 2)


def test_a_large_packet_is_put_together_in_the_file(tmp_path: Path):
    path, file = tmp_path / "d.sock", tmp_path / "x.pcap"
    big = os.urandom(65_550)
    with FakeDaemon(path, lambda request: captured(arp(1), big)):
        assert main(["--socket", str(path), "tcpdump", "-w", str(file)]) == 0
    with file.open("rb") as stream:
        assert [data for _, data in dpkt.pcap.Reader(stream)] == [arp(1), big]


def test_the_filter_travels_compiled_and_the_direction_with_it(tmp_path: Path):
    path = tmp_path / "d.sock"
    with FakeDaemon(path, lambda request: captured()) as daemon:
        words = ["tcpdump", "-i", "any", "-Q", "in", "tcp", "port", "80"]
        assert main(["--socket", str(path), *words]) == 0
    request = daemon.requests[0]
    assert isinstance(request, CaptureRequest)
    assert (request.device, request.direction) == ("", "in")
    assert request.filter == compile_filter("tcp port 80")


def test_without_a_device_each_line_says_which_and_which_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def answer(request: AnyRequest) -> list[bytes]:
        out = packet_messages(5, 42, arp(1), outgoing=True, device="eth0")
        back = packet_messages(5, 42, arp(2), device="lo")
        return [encode(Started()), *out, *back, encode(Done(2))]

    path = tmp_path / "d.sock"
    with FakeDaemon(path, answer):
        assert main(["--socket", str(path), "tcpdump", "-t"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("eth0 Out ARP, Request") and second.startswith("lo In  ARP, Reply")


@pytest.mark.parametrize(("name", "more"), [("x.pcapng", []), ("x.pcap", ["--pcapng"])])
def test_pcapng_is_chosen_by_the_name_or_by_the_option(tmp_path: Path, name: str, more: list[str]):
    path, file = tmp_path / "d.sock", tmp_path / name
    with FakeDaemon(path, lambda request: captured(arp(1), arp(2))):
        assert main(["--socket", str(path), "tcpdump", *more, "-w", str(file), "arp"]) == 0
    with file.open("rb") as stream:
        assert [data for _, data in dpkt.pcapng.Reader(stream)] == [arp(1), arp(2)]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_capture_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], signum: signal.Signals
):
    def answer(request: AnyRequest) -> list[bytes]:
        if isinstance(request, StopRequest):
            return captured(arp(1))[1:]
        os.kill(os.getpid(), signum)
        return [encode(Started())]

    path = tmp_path / "d.sock"
    before = signal.getsignal(signum)
    with FakeDaemon(path, answer):
        assert main(["--socket", str(path), "tcpdump"]) == 0
    assert signal.getsignal(signum) == before
    assert "1 packet captured" in capsys.readouterr().err


class InterruptedClient:
    """A client that is signalled while it sends its first request."""

    def __init__(self, signum: signal.Signals) -> None:
        self.sent: list[object] = []
        self._signum = signum

    def send(self, request: object) -> None:
        self.sent.append(request)
        if len(self.sent) == 1:
            os.kill(os.getpid(), self._signum)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_with_the_request_is_told_behind_it(signum: signal.Signals):
    client: Any = InterruptedClient(signum)
    with stop_signals(client, CaptureRequest()):
        assert client.sent == [CaptureRequest(), StopRequest()]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["tcp", "prot", "80"], "tcpdump: can't parse filter expression: syntax error"),
        (["host", "10.0.0.1.2.3"], "tcpdump: "),
        (["inbound"], "tcpdump: 'inbound', 'outbound' and the like are -Q in and -Q out here"),
        (["-w", "/nowhere/x.pcap"], "/nowhere/x.pcap: No such file"),
        (["-i", "eth9"], "eth9: No such device"),
        (["-c", "-1"], "positive"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], says: str
):
    path = tmp_path / "d.sock"
    with FakeDaemon(path, lambda request: [encode(Failure("eth9: No such device exists"))]):
        assert main(["--socket", str(path), "tcpdump", *argv]) == 1
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
