"""The hops of one packet, with times: what ``ustack trace`` and tests look through.

Like the kernel's function tracer it names the functions that are steps on a packet's path and is
woven in only while it runs: the interpreter's profile hook (sys.setprofile) reports each call in
this thread, and the few that this file lists are noted with the time. When it is off nothing of it
is in the packet's way, not even a test. While it is on, every call costs more: times of hops
include that. The clock is given by the caller; the core still reads none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from ustack.core import backlog, gro, receive, softirq, transmit
from ustack.core.skb import skb_bytes
from ustack.driver import igb_rx, igb_tx
from ustack.driver.igb_vector import IgbQVector
from ustack.driver.loopback import LoopbackDevice
from ustack.ipv4 import input as ip_input
from ustack.ipv4 import output as ip_output
from ustack.ipv4 import route
from ustack.ipv4.icmp import Icmp
from ustack.link.arp import Arp
from ustack.link.neigh_table import NeighTable
from ustack.nic.igb import IgbNic
from ustack.sock.wait import WaitQueue
from ustack.tcp import data as tcp_data
from ustack.tcp import demux, output, sendmsg, splice
from ustack.tcp import input as tcp_input
from ustack.tcp import transmit as tcp_transmit
from ustack.udp.protocol import UdpProt

if TYPE_CHECKING:
    from ustack.core.net import Net
    from ustack.core.netdevice import NetDevice
    from ustack.core.skb import Skb
    from ustack.stack import Stack

SNAP_BYTES = 512
"""What is kept of the packet itself."""

KINDS = ("rx", "tx", "lo")

_Step = tuple[str, Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Hop:
    """One step: its stage, its function, and when it was called, on the tracer's clock."""

    stage: str
    function: str
    at_ns: int


@dataclass(slots=True)
class PathTrace:
    """What happened to one packet."""

    kind: str
    hops: list[Hop] = field(default_factory=list)
    device: str = ""
    length: int = 0
    data: bytes = b""
    end_ns: int = 0


class PacketTracer:
    """Watches for one packet of ``stack`` in the thread that calls ``start``.

    Three kinds: ``rx``, a frame that an igb receives, until its protocol has done with it; ``tx``,
    data that an application sends, or an echo reply, through an igb, until the driver has cleaned
    its descriptor; ``lo``, the same over the loopback device, until it has been received.

    A path is a list of phases, each a list of steps; the next phase begins only when the gate,
    its last mandatory step, has been passed, so that calls of another packet in between are not
    mistaken for this one's.
    """

    def __init__(
        self,
        stack: Stack,
        kind: str,
        clock_ns: Callable[[], int],
        done: Callable[[PathTrace], None],
        *,
        go_on: bool = False,
    ) -> None:
        """Prepare; ``done`` is called in the middle of the packet's way when it is complete.

        Args:
            go_on: look for the next packet after that, until somebody stops it.

        Raises:
            ValueError: no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"trace rx, tx or lo: {kind!r}")
        self._stack = stack
        self._net: Net = stack.net
        self._kind = kind
        self._clock_ns = clock_ns
        self._done = done
        self._go_on = go_on
        self._on = False
        self._trace: PathTrace | None = None
        self._phase = 0
        self._seen: set[CodeType] = set()
        """Steps noted in this phase."""
        self._batch = 0
        """Hops up to the gate: those of every frame of a NIC's batch."""
        self._begun: FrameType | None = None
        """The call that the trace began with, while it lasts."""
        self._skb: Skb | None = None
        """The packet, where it is put aside."""
        self._path = _PATHS[kind](self.packet_rcv)
        self._steps = self._path.places()
        self._ends = self._path.ends

    def start(self) -> None:
        """Begin to watch.

        Raises:
            ValueError: something else, perhaps another trace, profiles this thread.
        """
        if sys.getprofile() is not None:
            raise ValueError("another trace is running")
        self.watch()
        sys.setprofile(self.profile)

    def stop(self) -> None:
        """Watch no more; called in the thread that started."""
        if self._on:
            sys.setprofile(None)
            self.unwatch()

    def watch(self) -> None:
        """Begin, for somebody who has the hook and calls ``profile``."""
        self._on = True
        self._net.dev_add_pack(None, self.packet_rcv)

    def unwatch(self) -> None:
        """Undo ``watch``."""
        self._on = False
        self._net.dev_remove_pack(None, self.packet_rcv)

    def profile(self, frame: FrameType, event: str, arg: Any) -> None:
        """The profile hook (sys.setprofile): a function is called or returns."""
        code = frame.f_code
        if event == "call":
            step = self._steps.get(code)
            if step is not None:
                self._called(step, code, frame)
        elif event == "return" and self._trace is not None and code in self._ends:
            self._returned(self._trace, code, frame, arg)

    def _called(self, step: _Place, code: CodeType, frame: FrameType) -> None:
        path, trace = self._path, self._trace
        if trace is None:
            if code not in path.starts or not self._is_ours(frame):
                return
            trace = self._trace = PathTrace(self._kind)
            self._phase, self._skb, self._begun = 0, None, frame
            self._seen.clear()
        elif self._phase not in step.phases or (code in self._seen and not step.repeats):
            return
        if code is path.handover:
            self._skb = frame.f_locals["skb"]
        elif code is path.takeover and frame.f_locals["skb"] is not self._skb:
            return
        trace.hops.append(Hop(step.stage, step.function, self._clock_ns()))
        self._seen.add(code)
        if code is path.wrong_way:
            self._forget()
        elif code is path.gate:
            self._phase = 1
            self._batch = len(trace.hops)
            self._seen.clear()

    def _returned(self, trace: PathTrace, code: CodeType, frame: FrameType, value: Any) -> None:
        path = self._path
        if code is path.end:
            if self._phase == 1 and code in self._seen:
                self._finish(trace)
        elif frame is self._begun:
            self._begun = None
            if self._phase == 0 and not (self._kind == "rx" and value):
                self._forget()  # no frame was there, or what was sent waits somewhere
        elif code is path.gate and self._kind == "rx":
            self._forget()  # no frame was good enough to be handed up

    def _forget(self) -> None:
        self._trace = self._begun = self._skb = None

    def _finish(self, trace: PathTrace) -> None:
        trace.end_ns = self._clock_ns()
        if not self._go_on:
            self._forget()
            self.stop()
        elif self._kind == "rx":  # the next frame of the batch has come the same way
            self._trace = PathTrace("rx", trace.hops[: self._batch])
            self._seen.clear()
        else:
            self._forget()
        self._done(trace)

    def packet_rcv(self, skb: Skb, dev: NetDevice, outgoing: bool) -> None:
        """ptype_all: the tracer is a tap like tcpdump's, which also shows it the packet."""
        trace = self._trace
        if trace is not None and not trace.data and outgoing is (self._kind != "rx"):
            trace.device = dev.name
            trace.length = len(skb)
            trace.data = skb_bytes(self._net, skb)[:SNAP_BYTES]

    def _is_ours(self, frame: FrameType) -> bool:
        """Whether the packet that begins here is of the stack that we watch."""
        values = frame.f_locals
        owner = values.get("self")
        if owner is None:
            return values["sk"].prot.net is self._net
        if isinstance(owner, IgbNic):
            return any(dev.nic is owner for dev in self._stack.adapters)
        return bool(owner.net is self._net)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a function stands on a path."""

    phases: frozenset[int]
    stage: str
    function: str

    @property
    def repeats(self) -> bool:
        """Whether it may be called several times for one packet."""
        return self.stage == "wake"


@dataclass(slots=True)
class _Path:
    """The steps of one kind of packet."""

    phases: tuple[list[_Step], list[_Step]]
    starts: set[CodeType]
    gate: CodeType
    """The step of the first phase behind which the second may begin."""
    end: CodeType
    """The packet's way is over when this returns."""
    wrong_way: CodeType | None = None
    """The packet goes where this trace does not look."""
    handover: CodeType | None = None
    takeover: CodeType | None = None
    """Here the packet is put aside, and here it is taken up again, maybe behind others."""

    @property
    def ends(self) -> set[CodeType]:
        """What is of interest when it returns."""
        return {*self.starts, self.gate, self.end}

    def places(self) -> dict[CodeType, _Place]:
        """Return each function's place by code object."""
        found: dict[CodeType, _Place] = {}
        for phase, steps in enumerate(self.phases):
            for stage, function in steps:
                code = _code(function)
                phases = found[code].phases if code in found else frozenset[int]()
                found[code] = _Place(phases | {phase}, stage, _NAMES.get(code, code.co_name))
        return found


def _code(function: Callable[..., Any]) -> CodeType:
    code: CodeType = getattr(function, "__func__", function).__code__
    return code


def _upwards(tap: Callable[..., Any], entry: Callable[..., Any]) -> list[_Step]:
    """Return the steps from the entry to the stack to the process that waits."""
    return [
        ("stack", entry),
        ("ptype_all", tap),
        ("arp", Arp.arp_rcv),
        ("ip", ip_input.ip_rcv),
        ("route", route.ip_route_input),
        ("icmp", Icmp.icmp_rcv),
        ("udp", UdpProt.udp_rcv),
        ("tcp", demux.tcp_v4_rcv),
        ("tcp", tcp_input.tcp_rcv_established),
        ("tcp", tcp_input.tcp_rcv_state_process),
        ("queue", tcp_data.tcp_queue_rcv),
        ("wake", WaitQueue.wake_up),
    ]


def _downwards(tap: Callable[..., Any]) -> list[_Step]:
    """Return the steps from the system call to the device."""
    return [
        ("syscall", sendmsg.tcp_sendmsg),
        ("syscall", sendmsg.tcp_sendmsg_now),
        ("syscall", splice.tcp_splice_write),
        ("icmp", Icmp.icmp_xmit),
        ("tcp", output.tcp_write_xmit),
        ("tcp", tcp_transmit.tcp_transmit_skb),
        ("route", route.ip_route_output),
        ("ip", ip_output.ip_queue_xmit),
        ("ip", ip_output._ip_finish_output2),
        ("neigh", NeighTable.neigh_resolve_output),
        ("device", transmit.dev_queue_xmit),
        ("qdisc", transmit.__dev_xmit_skb),
        ("device", transmit.dev_hard_start_xmit),
        ("ptype_all", tap),
    ]


_NAMES = {
    _code(LoopbackDevice.ndo_start_xmit): "loopback_xmit",
    _code(sendmsg.tcp_sendmsg_now): "tcp_sendmsg",
}
"""Linux's names of what has another one here."""

_SENDERS = {
    _code(sendmsg.tcp_sendmsg),
    _code(sendmsg.tcp_sendmsg_now),
    _code(splice.tcp_splice_write),
    _code(Icmp.icmp_xmit),
}


def _rx(tap: Callable[..., Any]) -> _Path:
    hardware: list[_Step] = [
        ("dma", IgbNic.dma),
        ("irq", IgbQVector.igb_msix_ring),
        ("softirq", softirq.net_rx_action),
        ("poll", IgbQVector.igb_poll),
        ("poll", igb_rx.igb_clean_rx_irq),
    ]
    return _Path(
        phases=(
            hardware,
            [("gro", gro.napi_gro_receive), *_upwards(tap, receive.netif_receive_skb)],
        ),
        starts={_code(IgbNic.dma)},
        gate=_code(igb_rx.igb_clean_rx_irq),
        end=_code(receive.netif_receive_skb),
    )


def _tx(tap: Callable[..., Any]) -> _Path:
    completion: list[_Step] = [
        ("irq", IgbQVector.igb_msix_ring),
        ("softirq", softirq.net_rx_action),
        ("poll", IgbQVector.igb_poll),
        ("clean", igb_tx.igb_clean_tx_irq),
    ]
    driver: list[_Step] = [
        ("driver", igb_tx.igb_xmit_frame),
        ("wrong way", LoopbackDevice.ndo_start_xmit),
    ]
    return _Path(
        phases=(_downwards(tap) + driver, completion),
        starts=_SENDERS,
        gate=_code(igb_tx.igb_xmit_frame),
        end=_code(igb_tx.igb_clean_tx_irq),
        wrong_way=_code(LoopbackDevice.ndo_start_xmit),
    )


def _lo(tap: Callable[..., Any]) -> _Path:
    driver: list[_Step] = [
        ("driver", LoopbackDevice.ndo_start_xmit),
        ("backlog", backlog.netif_rx),
        ("wrong way", igb_tx.igb_xmit_frame),
    ]
    poll: list[_Step] = [
        ("softirq", softirq.net_rx_action),
        ("poll", softirq.process_backlog),
    ]
    return _Path(
        phases=(_downwards(tap) + driver, poll + _upwards(tap, receive.__netif_receive_skb)),
        starts=_SENDERS,
        gate=_code(backlog.netif_rx),
        end=_code(receive.__netif_receive_skb),
        wrong_way=_code(igb_tx.igb_xmit_frame),
        handover=_code(backlog.netif_rx),
        takeover=_code(receive.__netif_receive_skb),
    )


_PATHS: dict[str, Callable[[Callable[..., Any]], _Path]] = {"rx": _rx, "tx": _tx, "lo": _lo}
