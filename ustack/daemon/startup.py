"""Putting a daemon together, and taking it apart again without a trace.

``Daemon.start`` goes from what is most likely refused to what is least: the TAP, the control
socket, the kernel's side, the address probe, the services. Each refusal becomes one
``StartError`` whose text is the line that the user sees. ``Daemon.stop`` is the reverse and
is safe after a start that stopped half-way.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ustack.daemon.calls import CallServer, PortRule
from ustack.daemon.capture import Capture
from ustack.daemon.control import ControlError, ControlServer, Stream, claim_path
from ustack.daemon.faults import FaultLog
from ustack.daemon.join_hub import JoinHub
from ustack.daemon.latency import LatencyStream
from ustack.daemon.messages import LatencyRequest, PingRequest, StreamRequest, TraceRequest
from ustack.daemon.options import DaemonOptions
from ustack.daemon.ping import PingStream
from ustack.daemon.privileges import drop_privileges
from ustack.daemon.recording import WireChain
from ustack.daemon.services.registry import start_services
from ustack.daemon.status import status_text
from ustack.daemon.trace import TraceStream
from ustack.daemon.views import Views
from ustack.ipv4.devinet import add_route
from ustack.lib.addresses import format_ipv4, format_mac
from ustack.nic.tap import TapWire
from ustack.runtime.clock import monotonic_us
from ustack.runtime.hostlink import set_up_host
from ustack.runtime.inline import InlineRuntime
from ustack.stack import Stack
from ustack.tcp.close import tcp_abort

if TYPE_CHECKING:
    from ustack.api.aio_server import StackServer
    from ustack.driver.igb import IgbAdapter
    from ustack.link.arp import ArpProbe

ETH_DATA_LEN = 1500
"""The MTU that a new TAP has."""
FIN_WAIT_S = 2.0
"""How long stop() waits for connections to finish in order."""
FIN_POLL_S = 0.01
CLOSE_BATCH = 128
"""Connections closed before the answers to their FINs are looked at."""


class StartError(Exception):
    """The daemon cannot start; the text is one line for the user."""


class Daemon:
    """One stack on one TAP, with its services and its control socket."""

    def __init__(self, options: DaemonOptions) -> None:
        self.options = options
        self._wire: TapWire | None = None
        self._control: ControlServer | None = None
        self._chain: WireChain | None = None
        self._stack: Stack | None = None
        self._runtime: InlineRuntime | None = None
        self._servers: list[StackServer] = []
        self._hub: JoinHub | None = None
        self.lost: asyncio.Future[OSError] = asyncio.get_running_loop().create_future()
        """Done once the TAP is gone: there is nothing left to serve."""

    async def start(self) -> None:
        """Bring everything up; packets flow when it returns.

        Raises:
            StartError: something was refused; ``stop`` cleans up.
        """
        options = self.options
        loop = asyncio.get_running_loop()
        # A dead daemon's socket goes first, but a busy TAP says more than a busy socket.
        taken = control_path_taken(options.control_path)
        self._wire = open_tap(options.tap, options.tap_queues)
        if taken:
            raise StartError(taken)
        started_us = monotonic_us()
        stack = self._stack = Stack(options.config, rng=random.SystemRandom(), now_us=started_us)
        self._chain = wires_between(self._wire, stack, options)
        adapter = stack.add_igb(self._chain.wire, mac=options.mac)
        runtime = self._runtime = InlineRuntime(
            stack,
            loop,
            busy_poll=options.config.nic.busy_poll,
            busy_poll_us=options.busy_poll_us,
        )
        runtime.wire_lost = self._on_wire_lost
        loop.set_exception_handler(FaultLog(lambda: runtime.defer(_nothing)))
        # In a thread, because pyroute2 runs an event loop of its own; it ends with its work.
        with ThreadPoolExecutor(max_workers=1) as executor:
            await loop.run_in_executor(executor, configure_host, options)
        await self._take_address(stack, runtime, adapter)
        try:
            self._servers = await start_services(
                options.services, runtime, lambda: status_text(stack, started_us)
            )
        except OSError as error:
            raise StartError(f"cannot start the services: {error.strerror or error}") from error
        self._start_control(stack, runtime, loop)
        try:
            drop_privileges(options.user)
        except OSError as error:
            raise StartError(f"cannot give up privileges: {error.strerror}") from error
        runtime.call(self._chain.start_replay)

    def _on_wire_lost(self, error: OSError) -> None:
        if not self.lost.done():
            self.lost.set_result(error)

    def _start_control(
        self, stack: Stack, runtime: InlineRuntime, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Open the control socket, last of all: once it is there the daemon is ready."""
        options = self.options
        self._hub = JoinHub(
            runtime,
            client_sockets=options.client_sockets,
            sockets=options.max_sockets,
            log=lambda text: print(f"ustackd: {text}", file=sys.stderr, flush=True),
        )
        ports = PortRule(lambda: stack.config.tcp.ip_unprivileged_port_start, options.port_users)
        self._control = ControlServer(
            options.control_path,
            Views(stack, runtime.call, self._hub.bytes_in_pairs, self._hub.limits).answer,
            partial(start_stream, stack, runtime),
            calls=CallServer(self._hub, ports),
            access=options.access,
        )
        try:
            self._control.start(loop)
        except ControlError as error:
            raise StartError(str(error)) from error

    async def _take_address(self, stack: Stack, runtime: InlineRuntime, device: IgbAdapter) -> None:
        """Make sure that nobody has our address, then use and announce it (RFC 5227 §2)."""
        address = self.options.address
        answered = asyncio.get_running_loop().create_future()

        def done(probe: ArpProbe) -> None:
            if not answered.done():
                answered.set_result(None)

        probe = runtime.call(stack.ip.arp.arp_probe, device, address.addr, done)
        await answered
        if probe.conflict is not None:
            owner = format_mac(probe.conflict)
            raise StartError(
                f"address {format_ipv4(address.addr)} is already in use by {owner} "
                f"on {self.options.tap}"
            )
        runtime.call(stack.ip.add_address, device, address)
        if self.options.gateway is not None:
            runtime.call(lambda: add_route(stack.ip, 0, 0, gateway=self.options.gateway or 0))
        runtime.call(stack.ip.arp.arp_announce, device, address.addr)

    async def stop(self) -> None:
        """Close connections with FIN, then everything else; nothing of us stays behind."""
        for server in self._servers:
            server.close()
        await close_connections(self._servers)
        if self._hub is not None:
            self._hub.close()
        if self._stack is not None and self._runtime is not None:
            await finish_connections(self._stack, self._runtime)
        if self._control is not None:
            self._control.close()
        if self._runtime is not None:
            self._runtime.close()
        if self._stack is not None:
            self._stack.close()
        if self._wire is not None:
            self._wire.close()
        if self._chain is not None:
            self._chain.close()


def start_stream(
    stack: Stack, runtime: InlineRuntime, request: StreamRequest, notify: Callable[[], None]
) -> Stream:
    """Begin what goes on until it is stopped.

    Raises:
        ValueError: the request makes no sense.
    """
    if isinstance(request, TraceRequest):
        return TraceStream(stack, request, notify)
    if isinstance(request, LatencyRequest):
        return LatencyStream(stack, request, notify)
    if isinstance(request, PingRequest):
        return PingStream(stack, runtime.call, request, notify)
    return Capture(stack.net, request, notify)


def _nothing() -> None:
    """Ask nothing of the runtime but another run."""


async def close_connections(servers: list[StackServer]) -> None:
    """Close all connections, no more at a time than the transmit queue holds."""
    transports = [transport for server in servers for transport in server.transports]
    for number, transport in enumerate(transports, 1):
        transport.close()
        if number % CLOSE_BATCH == 0:
            await asyncio.sleep(0)


async def finish_connections(stack: Stack, runtime: InlineRuntime) -> None:
    """Wait until all connections are over or only wait for their last minute.

    What cannot send its last data in time, because the peer does not read, is reset: nobody
    will be there to go on.
    """
    deadline_s = runtime.loop.time() + FIN_WAIT_S
    while stack.tcp.ehash and runtime.loop.time() < deadline_s:
        await asyncio.sleep(FIN_POLL_S)
    for sk in tuple(stack.tcp.ehash.values()):
        runtime.call(tcp_abort, sk)


def open_tap(name: str, queues: int = 1) -> TapWire:
    """Create the TAP device.

    Raises:
        StartError: we may not, somebody has it, or it is no TAP.
    """
    try:
        if queues > 1 and has_carrier(name):
            # The kernel would let us share it, a queue each.
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return TapWire(name, queues=queues)
    except OSError as error:
        reasons = {
            errno.EBUSY: f"TAP {name} is busy: another process has it open",
            errno.EPERM: f"no permission to open TAP {name} (needs root or CAP_NET_ADMIN)",
            errno.EACCES: f"no permission to open TAP {name} (needs root or CAP_NET_ADMIN)",
            errno.EINVAL: f"{name} exists and is not a TAP device"
            + (" of several queues" if queues > 1 else " of one queue"),
            errno.ENOENT: "there is no /dev/net/tun (is the tun module loaded?)",
            errno.ENODEV: "there is no /dev/net/tun (is the tun module loaded?)",
        }
        code = error.errno or 0
        raise StartError(reasons.get(code, f"cannot open TAP {name}: {error}")) from error


def has_carrier(name: str) -> bool:
    """Whether a device of this name is up and somebody is attached to it."""
    try:
        return Path(f"/sys/class/net/{name}/carrier").read_text().strip() == "1"
    except OSError:
        return False  # there is none, or it is down


def wires_between(tap: TapWire, stack: Stack, options: DaemonOptions) -> WireChain:
    """Put what the options name between the TAP and the NIC.

    Raises:
        StartError: a file cannot be opened, or is no capture.
    """
    try:
        return WireChain(
            tap,
            stack.clock,
            impair=options.impair,
            record=options.record,
            replay=options.replay,
        )
    except OSError as error:
        raise StartError(f"{error.filename or options.record}: {error.strerror}") from error
    except ValueError as error:
        raise StartError(f"{options.replay} is no capture: {error}") from error


def control_path_taken(path: Path) -> str:
    """Make room for the control socket; return why that cannot be, empty if it can."""
    try:
        claim_path(path)
    except ControlError as error:
        return str(error)
    return ""


def configure_host(options: DaemonOptions) -> None:
    """Set up the kernel's side of the TAP: address, MTU, link up.

    Raises:
        StartError: the kernel refuses.
    """
    try:
        set_up_host(options.tap, options.host_address)
        if options.config.nic.mtu != ETH_DATA_LEN:
            set_host_mtu(options.tap, options.config.nic.mtu)
    except OSError as error:
        raise StartError(
            f"cannot set up the host's side of {options.tap}: {error.strerror or error}"
        ) from error


def set_host_mtu(tap: str, mtu: int) -> None:
    """Give the kernel's side of the TAP our MTU, which a wire's two ends must share.

    Raises:
        OSError: the kernel refuses.
    """
    from pyroute2 import IPRoute  # it takes a fifth of a second to load
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as ipr:
        try:
            for index in ipr.link_lookup(ifname=tap):
                ipr.link("set", index=index, mtu=mtu)
        except NetlinkError as error:
            raise OSError(error.code, str(error.args[-1])) from None
