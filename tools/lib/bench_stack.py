"""Run as a program in a namespace of its own: what a frame costs ustack, on a real TAP.

``bench_stack.py frames|stages FRAMES ROUNDS``. To receive, a packet socket fills the TAP's
queue and then the time is taken until the stack has emptied it; to send, packets are given
to IP (or TCP) and go out by writev(). Nothing runs at the same time. A stage is measured by
cutting the path off behind it with a sink, over whole batches: its cost is the difference to
the path cut off before it. Time is this thread's processor time. Prints JSON: a list of
[what, size, nanoseconds, frames].
"""

from __future__ import annotations

import gc
import json
import random
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import thread_time_ns
from typing import Any

import ustack.core.gro
import ustack.driver.igb_rx
import ustack.ipv4.output
import ustack.tcp.transmit
from kit.traffic import pin
from ustack.config import CoreConfig, StackConfig, TcpConfig, UstackConfig
from ustack.core.gro import napi_gro_receive
from ustack.core.napi import NAPI_POLL_WEIGHT
from ustack.core.skb import CHECKSUM_PARTIAL, Skb, release_frags
from ustack.core.softirq import do_softirq
from ustack.driver.igb_tx import igb_xmit_frame
from ustack.ipv4.output import ip_queue_xmit
from ustack.ipv4.route import ip_route_output
from ustack.lib.addresses import Ipv4Interface, parse_ipv4
from ustack.native.lib import ffi, lib
from ustack.nic.tap import TapWire
from ustack.stack import Stack
from ustack.tcp.transmit import INLINE_BYTES, tcp_transmit_skb
from ustack.wire.ethernet import ETH_P_IP
from ustack.wire.ipv4 import IPPROTO_TCP, IPV4_HEADER, header_csum
from ustack.wire.tcp import ACK, SYN, TCP_CSUM_OFFSET, build_header, pseudo_header_sum

HEADERS = 14 + 20 + 20
MSS = 1460
SUPER = HEADERS + 44 * MSS
"""A super-frame of 44 full segments, 64 KB."""
SIZES = (64, 256, 512, 1514, SUPER)
"""Bytes of frame, Ethernet header included, as a TAP counts them."""
STAGE_SIZES = (64, 1514, SUPER)
SUPER_SHARE = 4
"""Of super-frames a fourth as many are sent: they fill the TAP's queue with 64 KB each."""
TXQUEUELEN = 10_000
DOORBELL_BATCH = 16
"""Frames between two cleanings of the transmit ring."""

OWN_MAC = bytes.fromhex("020000000002")
PEER_MAC = bytes.fromhex("020000000099")
"""Nobody's: Linux drops what we send as soon as it looks at it (PACKET_OTHERHOST)."""
OWN_ADDR = parse_ipv4("10.0.7.2")
PEER_ADDR = parse_ipv4("10.0.7.1")
PORT, PEER_PORT = 80, 40_000
PEER_ISS = 1_000_000
SOL_PACKET, PACKET_VNET_HDR = 263, 15

Sample = tuple[str, int, int, int]


def vnet_hdr(size: int) -> bytes:
    """Return the virtio header of a frame as Linux sends it: its checksum is partial."""
    gso_size = MSS if size > HEADERS + MSS else 0
    gso_type = 1 if gso_size else 0
    return struct.pack("=BBHHHH", 1, gso_type, HEADERS, gso_size, HEADERS - 20, TCP_CSUM_OFFSET)


def build_unit(
    dst: bytes, src: bytes, saddr: int, daddr: int, sport: int, dport: int, seq: int, ack: int,
    size: int, *, flags: int = ACK, options: bytes = b"",
) -> bytes:  # fmt: skip
    """Return the virtio header and a frame of ``size`` bytes with a TCP segment."""
    tcp_len = size - 34
    fields = [0x45, 0, 20 + tcp_len, 0, 0x4000, 64, IPPROTO_TCP, 0, saddr, daddr]
    fields[7] = header_csum(*fields[1:7], *fields[8:])
    csum = pseudo_header_sum(saddr, daddr, tcp_len)
    segment = build_header(sport, dport, seq, ack, flags, 65535, options, csum)
    frame = dst + src + b"\x08\x00" + IPV4_HEADER.pack(*fields) + segment
    return vnet_hdr(size) + frame + bytes(size - len(frame))


def to_stack(seq: int, ack: int, size: int, **rest: Any) -> bytes:
    """Return a unit that the peer sends to the stack."""
    return build_unit(OWN_MAC, PEER_MAC, PEER_ADDR, OWN_ADDR, PEER_PORT, PORT, seq, ack, size,
                      **rest)  # fmt: skip


def flow(size: int, count: int) -> list[bytes]:
    """Return ``count`` units in sequence, which GRO, if the driver uses it, can merge."""
    return [to_stack(PEER_ISS + i * (size - HEADERS), 1, size) for i in range(count)]


def to_linux(size: int) -> bytes:
    """Return a unit that looks like what the stack sends."""
    return build_unit(PEER_MAC, OWN_MAC, OWN_ADDR, PEER_ADDR, PORT, PEER_PORT, 1, 1, size)


def frames_of(size: int, frames: int) -> int:
    """Return how many frames of this size are sent, when ``frames`` are asked for."""
    return max(frames // SUPER_SHARE, 1) if size == SUPER else frames


def write_units(folder: Path) -> dict[int, tuple[Path, Path]]:
    """Write the units for the loop in C: by size, what it reads and what it writes."""
    paths = {}
    for size in SIZES:
        paths[size] = (folder / f"in{size}", folder / f"out{size}")
        paths[size][0].write_bytes(to_stack(PEER_ISS, 1, size))
        paths[size][1].write_bytes(to_linux(size))
    return paths


class TimedDma:
    """Takes the time of the device's DMA step, which polls the TAP."""

    def __init__(self, adapter: Any) -> None:
        self.spent_ns = 0
        self._poll_hw = adapter.poll_hw
        adapter.poll_hw = self

    def __call__(self) -> int:
        """Do it."""
        begin = thread_time_ns()
        moved: int = self._poll_hw()
        self.spent_ns += thread_time_ns() - begin
        return moved


class TimedClean:
    """Stands for ``lib`` in the driver's receive half: takes the time of its two C calls."""

    def __init__(self) -> None:
        self.spent_ns = 0
        self.us_igb_clean_rx_irq = self._timed(lib.us_igb_clean_rx_irq)
        self.us_igb_alloc_rx_buffers = self._timed(lib.us_igb_alloc_rx_buffers)

    def __getattr__(self, name: str) -> Any:
        return getattr(lib, name)

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            begin = thread_time_ns()
            result = call(*arguments)
            self.spent_ns += thread_time_ns() - begin
            return result

        return timed


@contextmanager
def replaced(*places: tuple[Any, str, Any]) -> Iterator[None]:
    """Put sinks in the place of functions: (object, attribute, sink)."""
    kept = [(where, name, vars(where).get(name)) for where, name, _ in places]
    for where, name, sink in places:
        setattr(where, name, sink)
    try:
        yield
    finally:
        for where, name, old in kept:
            if old is None:
                delattr(where, name)
            else:
                setattr(where, name, old)


class Bed:
    """A stack on a TAP of this namespace, a packet socket on Linux's side of it."""

    def __init__(self) -> None:
        tcp = TcpConfig(tcp_rmem=(4096, 6 << 20, 6 << 20))
        config = StackConfig(
            core=CoreConfig(arena_bytes=128 << 20),
            tcp=tcp,
            ustack=UstackConfig(tcp_fastpath=False),
        )
        self.stack = Stack(config, rng=random.Random(1), now_us=1_000_000)
        wire = TapWire("bench0")
        self.dev: Any = self.stack.add_igb(wire, mac=OWN_MAC, address=Ipv4Interface(OWN_ADDR, 24))
        subprocess.run(
            ["ip", "link", "set", wire.name, "up", "txqueuelen", str(TXQUEUELEN)], check=True
        )
        if hasattr(self.dev, "set_coalesce"):
            # Time hardly passes here: moderated interrupts would never come.
            self.dev.set_coalesce(rx_usecs=0, adaptive_rx=False)
        self.stack.arp.table.set_permanent(self.dev, PEER_ADDR, PEER_MAC)
        self.filler = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.filler.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        self.filler.bind((wire.name, 0))
        self.net = self.stack.net
        self.dma = TimedDma(self.dev)
        self.clean = TimedClean()
        self.left = 0
        """Frames that the sink still waits for."""
        self.merged = False
        """Whether the sink sees what GRO has merged, and counts segments."""
        self.settle()

    # Up.

    def sink(self, skb: Skb) -> None:
        """Count one received packet and forget it."""
        self.left -= skb.gso_segs if self.merged else 1

    def settle(self) -> None:
        """Let the stack take whatever is there."""
        while self.poll():
            pass

    def poll(self) -> bool:
        """Turn the crank; time goes on by a microsecond, so no timer gets in the way."""
        return self.stack.poll(self.stack.clock.now_us + 1)

    def fill(self, units: list[bytes], count: int) -> None:
        """Put ``count`` units into the TAP's queue, the given ones over and over."""
        send = self.filler.send
        for i in range(count):
            send(units[i % len(units)])

    def drain(self, count: int) -> tuple[int, int, int]:
        """Poll until the sink has had ``count``; ns in all, in the DMA step, in C's cleaning."""
        self.left = count
        dma, clean = self.dma.spent_ns, self.clean.spent_ns
        poll, clock = self.stack.poll, self.stack.clock
        idle = 0
        begin = thread_time_ns()
        while self.left > 0 and idle < 1000:
            idle = 0 if poll(clock.now_us + 1) else idle + 1
        total = thread_time_ns() - begin
        if self.left > 0:
            raise SystemExit(f"{self.left} of {count} frames have not arrived: {self.lost()}")
        return total, self.dma.spent_ns - dma, self.clean.spent_ns - clean

    def lost(self) -> str:
        """Say what the stack counted, for a run that went wrong."""
        stats = {k: v for k, v in self.dev.ethtool_stats().items() if v}
        return f"{stats} {self.net.drops}"

    def received(self, size: int, count: int, units: list[bytes] | None = None) -> tuple[int, ...]:
        """Fill and drain."""
        self.settle()
        self.fill(units or [to_stack(PEER_ISS, 1, size)], count)
        return self.drain(count)

    def at_protocol(self) -> Any:
        """Cut the path off where IP hands a packet to TCP."""
        protos = self.stack.ip.inet_protos
        return replaced((self.stack.ip, "inet_protos", {**protos, IPPROTO_TCP: (self.sink, None)}))

    def at_ip(self) -> Any:
        """Cut the path off where netif_receive_skb hands a frame to IP."""
        handlers = {**self.net.ptype_base, ETH_P_IP: self.sink}
        return replaced((self.net, "ptype_base", handlers))

    def at_driver(self, sink: Callable[[Skb], None] | None = None) -> Any:
        """Cut the path off where the driver hands a frame on, to GRO or past it."""
        take = sink or self.sink
        places: list[tuple[Any, str, Any]] = [(self.net, "netif_receive_skb", take)]
        if hasattr(ustack.driver.igb_rx, "napi_gro_receive"):
            places.append((ustack.driver.igb_rx, "napi_gro_receive", lambda napi, skb: take(skb)))
        return replaced(*places)

    def at_gro(self) -> Any:
        """Let GRO merge what comes, and cut the path off behind it."""
        receive = partial(napi_gro_receive, self.dev.napi)
        return replaced(
            (self.net, "netif_receive_skb", receive),
            (ustack.core.gro, "netif_receive_skb", lambda net, skb: self.sink(skb)),
        )

    # Down.

    def established(self) -> Any:
        """Return a socket whose peer is the packet socket."""
        lsk = self.stack.socket()
        lsk.bind(0, PORT)
        lsk.listen(8)
        options = bytes.fromhex("020405b401030307")  # MSS 1460, window scale 7
        syn = to_stack(PEER_ISS - 1, 0, HEADERS + 8, flags=SYN, options=options)
        self.deliver(syn)
        (request,) = lsk._live().listen.syn_queue.values()
        self.deliver(to_stack(PEER_ISS, request.req.snt_isn + 1, HEADERS))
        return lsk.accept()

    def deliver(self, unit: bytes) -> None:
        """Send one unit to the stack and let it be taken."""
        self.filler.send(unit)
        self.settle()

    def sender(self, size: int) -> Callable[[], None]:
        """Return what gives IP one packet that becomes a frame of ``size`` bytes."""
        ip, mem = self.stack.ip, self.net.mem.ptr
        rt = ip_route_output(ip, PEER_ADDR, OWN_ADDR)
        assert rt is not None
        length = size - HEADERS
        csum = pseudo_header_sum(OWN_ADDR, PEER_ADDR, 20 + length)
        header = build_header(PORT, PEER_PORT, 1, 1, ACK, 65535, b"", csum)
        queue = ffi.new("struct us_bq *")
        lib.us_bq_append(mem, queue, bytes(length), length)
        frags = ffi.new("struct us_frag[]", 64)
        small = header + bytes(length) if length <= INLINE_BYTES else b""

        def send() -> None:
            skb = Skb(small or header)
            if not small:
                n = lib.us_bq_frags(mem, queue, 0, length, frags, 64)
                skb.frags = [(frags[i].addr, frags[i].len) for i in range(n)]
            if length > MSS:
                skb.gso_size, skb.gso_segs = MSS, length // MSS
            skb.ip_summed, skb.csum_offset = CHECKSUM_PARTIAL, TCP_CSUM_OFFSET
            ip_queue_xmit(ip, skb, rt, OWN_ADDR, PEER_ADDR, IPPROTO_TCP)

        return send

    def sent(self, send: Callable[[], Any], count: int) -> int:
        """Send ``count`` packets, cleaning the ring as it goes; nanoseconds."""
        self.settle()
        poll, regs = self.poll, self.dev.nic.regs
        before = regs.GPTC
        begin = thread_time_ns()
        for i in range(count):
            send()
            if not i % DOORBELL_BATCH:
                poll()
        spent = thread_time_ns() - begin
        if regs.GPTC - before < count:
            raise SystemExit(f"of {count} frames not all have been sent: {self.lost()}")
        return spent


def frames(bed: Bed, count: int) -> Iterator[Sample]:
    """Up to the transport's handler, and down from IP, by size."""
    for size in SIZES:
        n = frames_of(size, count)
        bed.merged = size != SUPER
        with bed.at_protocol():
            yield "receive", size, bed.received(size, n, flow(size, n))[0], n
        bed.merged = False
        yield "transmit", size, bed.sent(bed.sender(size), n), n


def stages(bed: Bed, sk: Any, count: int) -> Iterator[Sample]:
    """Every cut, by size."""
    yield "irq", 0, empty_polls(bed, count), count
    for size in STAGE_SIZES:
        n = frames_of(size, count)
        yield from up(bed, size, n)
        yield from up_tcp(bed, sk, size, n)
        yield from down(bed, sk, size, n)


def empty_polls(bed: Bed, count: int) -> int:
    """An interrupt, the softirq and a poll that finds nothing."""
    bed.settle()
    nic, net = bed.dev.nic, bed.net
    begin = thread_time_ns()
    for _ in range(count):
        nic.write_eics(1)
        do_softirq(net)
    return thread_time_ns() - begin


def up(bed: Bed, size: int, n: int) -> Iterator[Sample]:
    """From the TAP to IP's protocol handlers."""
    with bed.at_driver(), replaced((ustack.driver.igb_rx, "lib", bed.clean)):
        total, dma, clean = bed.received(size, n)
    yield "dma", size, dma, n
    yield "clean", size, clean, n
    for what, cut in (("driver", bed.at_driver), ("ip", bed.at_ip), ("protocol", bed.at_protocol)):
        with no_gro(bed), cut():
            total, dma, _ = bed.received(size, n)
        yield f"up to {what}", size, total - dma, n
    if size == 1514:
        bed.merged = True
        with bed.at_gro():
            total, dma, _ = bed.received(size, n, flow(size, n))
        bed.merged = False
        yield "up to gro", size, total - dma, n


def no_gro(bed: Bed) -> Any:
    """Let the driver go past GRO, which has a measurement of its own."""
    return bed.at_driver(partial(type(bed.net).netif_receive_skb, bed.net))


def up_tcp(bed: Bed, sk: Any, size: int, n: int) -> Iterator[Sample]:
    """All the way into a socket, as much at a time as the window takes; then recv().

    Its ACKs are cut off at the driver's door.
    """
    tcp = sk._live()
    length = size - HEADERS
    buffer = bytearray(1 << 18)
    spent = reading = done = 0
    while done < n:
        tp = tcp.tp
        batch = max(min(NAPI_POLL_WEIGHT, n - done, tp.rcv_wnd // 2 // length), 1)
        ack = tp.snd_una
        bed.settle()
        bed.fill([to_stack(tp.rcv_nxt + i * length, ack, size) for i in range(batch)], batch)
        no_acks = replaced((bed.dev, "ndo_start_xmit", xmit_sink(bed)))
        with counting_at_tcp(bed), no_gro(bed), no_acks:
            total, dma, _ = bed.drain(batch)
        spent += total - dma
        begin = thread_time_ns()
        left = batch * length
        while left:
            left -= sk.recv_into(buffer)
        reading += thread_time_ns() - begin
        done += batch
    yield "up to tcp", size, spent, n
    yield "recv", size, reading, n


def counting_at_tcp(bed: Bed) -> Any:
    """Count packets on their way into TCP."""
    protos = bed.stack.ip.inet_protos
    rcv, err = protos[IPPROTO_TCP]

    def counting(skb: Skb) -> None:
        bed.left -= 1
        rcv(skb)

    return replaced((bed.stack.ip, "inet_protos", {**protos, IPPROTO_TCP: (counting, err)}))


def xmit_sink(bed: Bed) -> Callable[..., int]:
    """Return a driver that takes every packet and sends none."""

    def sink(skb: Skb) -> int:
        if skb.frags:
            release_frags(bed.net, skb)
        return 0

    return sink


def down(bed: Bed, sk: Any, size: int, n: int) -> Iterator[Sample]:
    """From TCP to the TAP: the same bytes of a send queue again and again."""
    tcp = sk._live()
    length = size - HEADERS
    missing = length - tcp.sndq.len
    if missing > 0:
        lib.us_bq_append(bed.net.mem.ptr, tcp.sndq, bytes(missing), missing)
    seq, gso_size = tcp.tp.snd_una, MSS if length > MSS else 0
    send = partial(tcp_transmit_skb, tcp, seq, length, ACK, gso_size=gso_size, options=b"")
    driver = xmit_sink(bed)

    def to_ip(ip: Any, skb: Skb, *route: Any, **fields: Any) -> None:
        driver(skb)

    def to_dev(net: Any, skb: Skb) -> None:
        driver(skb)

    for what, place in (
        ("ip", (ustack.tcp.transmit, "ip_queue_xmit", to_ip)),
        ("dev", (ustack.ipv4.output, "dev_queue_xmit", to_dev)),
        ("driver", (bed.dev, "ndo_start_xmit", driver)),
    ):
        with replaced(place):
            yield f"down to {what}", size, timed(send, n), n
    yield "down to doorbell", size, mapped(bed, send, n), n
    yield "down", size, bed.sent(send, n), n
    bed.settle()


def timed(call: Callable[[], Any], count: int) -> int:
    """Call it ``count`` times; nanoseconds."""
    begin = thread_time_ns()
    for _ in range(count):
        call()
    return thread_time_ns() - begin


def mapped(bed: Bed, send: Callable[[], Any], count: int) -> int:
    """Everything but the doorbell: it is rung, and the ring cleaned, outside of the time."""
    dev, spent, done = bed.dev, 0, 0
    with replaced((dev, "ndo_start_xmit", partial(igb_xmit_frame, dev, more=True))):
        while done < count:
            batch = min(DOORBELL_BATCH, count - done)
            spent += timed(send, batch)
            dev.nic.write_tdt(0, dev.tx.ring.next_to_use)
            bed.settle()
            done += batch
    return spent


def main(part: str, count: str, rounds: str) -> None:
    """Measure and print."""
    pin(0)
    bed = Bed()
    samples: list[Sample] = []
    sk = bed.established() if part == "stages" else None
    gc.collect()
    gc.freeze()
    for number in range(int(rounds) + 1):
        got = list(frames(bed, int(count)) if sk is None else stages(bed, sk, int(count)))
        if number:  # the first one warms up
            samples += got
    bed.stack.close()
    print(json.dumps(samples))


if __name__ == "__main__":
    main(*sys.argv[1:])
