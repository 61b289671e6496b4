"""The stack of this process: ``ustack.up()`` builds it, sockets find it here.

Without ``up()`` the first socket makes a stack that has only its loopback device, which needs
no permission. At exit the stack is taken down in good order: sockets are closed and what
they still have to send is sent, as a kernel would do for a process that is gone.
"""

from __future__ import annotations

import atexit
import os
import random
import time
from threading import Lock
from typing import TYPE_CHECKING, Any

from ustack.api.daemon_link import DaemonLink
from ustack.api.files import FILES
from ustack.api.resolver import DNS_PORT, Resolver, ResolverConfig, read_resolv_conf
from ustack.lib.addresses import parse_interface, parse_ipv4, parse_mac
from ustack.runtime.clock import monotonic_us
from ustack.runtime.threaded import ThreadedRuntime

if TYPE_CHECKING:
    from ustack.config import StackConfig
    from ustack.core.net import PacketHandler, PacketTap
    from ustack.ipv4.protocol import ErrHandler, RcvHandler
    from ustack.stack import Stack

SOCKET_VARIABLE = "USTACK_SOCKET"
"""The environment's name for the control socket of the daemon to use."""
DRAIN_US = 5_000_000
"""How long down() waits for the peers to acknowledge what was sent, in microseconds."""
STALL_US = 1_000_000
"""How long it goes on without any progress."""
DRAIN_STEP_US = 5_000


class StackHandle:
    """A stack that threads share; closing it takes it down."""

    def __init__(self, runtime: ThreadedRuntime, resolver: Resolver | None = None) -> None:
        self.runtime = runtime
        self.stack = runtime.stack
        self.resolver = resolver or Resolver(ResolverConfig())
        """Looks up names, see ``up``."""

    def __enter__(self) -> StackHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the stack's sockets, let them finish sending, and end it."""
        if _default.handle is self:
            _default.handle = None
        if self.runtime.closed:
            return
        for file in FILES.of_runtime(self.runtime):
            self.runtime.call(file.final_close)  # its descriptors stay, and fail from now on
        _drain(self.runtime)
        self.runtime.close()
        self.stack.close()

    def redirect_sockmap(self, on: bool) -> None:
        """Switch the shortcut between local sockets; see ``Stack.redirect_sockmap``."""
        self.runtime.call(self.stack.redirect_sockmap, on)

    def register_protocol(
        self, proto: int, handler: RcvHandler, err_handler: ErrHandler | None = None
    ) -> None:
        """Deliver IPv4 packets of protocol ``proto``; see ``Stack.register_protocol``.

        The handler is called by whichever thread polls the stack, under the stack's lock.
        """
        self.runtime.call(self.stack.register_protocol, proto, handler, err_handler)

    def unregister_protocol(self, proto: int) -> None:
        """Undo ``register_protocol``."""
        self.runtime.call(self.stack.unregister_protocol, proto)

    def dev_add_pack(self, type: int | None, func: PacketHandler | PacketTap) -> None:
        """Receive an EtherType's frames, or tap all; see ``Stack.dev_add_pack``.

        The handler is called by whichever thread polls the stack, under the stack's lock.
        """
        self.runtime.call(self.stack.dev_add_pack, type, func)

    def dev_remove_pack(self, type: int | None, func: PacketHandler | PacketTap) -> None:
        """Undo ``dev_add_pack``."""
        self.runtime.call(self.stack.dev_remove_pack, type, func)


class _Default:
    """The process's stack: the one place where the edge keeps process-wide state."""

    def __init__(self) -> None:
        self.handle: StackHandle | None = None
        self.link: DaemonLink | None = None
        """Set: sockets are a running ustackd's, not of a stack in this process."""
        self.resolver = Resolver(ResolverConfig())
        """Looks up names while ``link`` is set."""
        self.implicit = False
        """Nobody called up(): it may be replaced."""
        self.lock = Lock()
        self.other_families = False
        """Sockets of other families are made by the kernel: ``ustack.install()``."""


_default = _Default()


def build_stack(
    tap: str | None = None,
    address: str | None = None,
    *,
    gateway: str | None = None,
    host_address: str | None = None,
    mac: str | None = None,
    name: str = "eth0",
    config: StackConfig | None = None,
) -> Stack:
    """Make a stack, on a TAP device if one is named; arguments as ``up()``."""
    from ustack.stack import Stack

    stack = Stack(config, rng=random.SystemRandom(), now_us=monotonic_us())
    if tap is None:
        if address or gateway or host_address:
            raise ValueError("an address needs a tap to be reached by")
        return stack
    try:
        _attach_tap(stack, tap, address, gateway, host_address, mac, name)
    except BaseException:
        stack.close()
        raise
    return stack


def _attach_tap(
    stack: Stack,
    tap: str,
    address: str | None,
    gateway: str | None,
    host_address: str | None,
    mac: str | None,
    name: str,
) -> None:
    from ustack.nic.tap import TapWire
    from ustack.runtime.hostlink import set_up_host

    interface = None if address is None else parse_interface(address)
    router = None if gateway is None else parse_ipv4(gateway)
    host = None if host_address is None else parse_interface(host_address)
    try:
        wire = TapWire(tap)
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, tap) from None  # PermissionError and so on
    try:
        set_up_host(wire.name, host)
        stack.add_igb(
            wire,
            name=name,
            mac=None if mac is None else parse_mac(mac),
            address=interface,
            gateway=router,
        )
    except BaseException:
        wire.close()
        raise


def up(
    tap: str | None = None,
    address: str | None = None,
    *,
    nameserver: str | tuple[str, int] | None = None,
    resolv_conf: str | None = None,
    hosts: str = "/etc/hosts",
    busy_poll_us: int = 0,
    **options: Any,
) -> StackHandle:
    """Give this process its stack; ``ustack.socket`` and ``ustack.epoll`` use it from now on.

    Args:
        tap: name of a TAP device, made if there is none; None: loopback only.
        address: the stack's own, as "10.0.0.2/24".
        nameserver: who is asked for names, as "10.0.0.1" or ("10.0.0.1", 5353); nobody else is.
        resolv_conf: a file of resolver(5) that says so.
        hosts: the file of hosts(5) that is looked at first.
        gateway: default router, as "10.0.0.1".
        host_address: given to the kernel's side of the TAP, as "10.0.0.1/24".
        mac: the interface's hardware address; None: a random local one.
        name: the interface's name in the stack.
        config: a StackConfig.
        busy_poll_us: how long a thread that waits looks for frames before it sleeps, in
            microseconds; 0: only where waits are short.

    Raises:
        OSError: the TAP cannot be had (EPERM, EBUSY) or set up.
        ValueError: an address is none.
        RuntimeError: the process has a stack; take it down() first.
    """
    with _default.lock:
        _check_unused()
        resolver = Resolver(_resolver_config(nameserver, resolv_conf, hosts))
        runtime = ThreadedRuntime(build_stack(tap, address, **options), busy_poll_us=busy_poll_us)
        _default.handle = StackHandle(runtime, resolver)
        _default.implicit = False
        return _default.handle


def _resolver_config(
    nameserver: str | tuple[str, int] | None, resolv_conf: str | None, hosts: str
) -> ResolverConfig:
    if resolv_conf is not None:
        return read_resolv_conf(resolv_conf, hosts=hosts)
    if nameserver is None:
        return ResolverConfig(hosts=hosts)
    server, port = (nameserver, DNS_PORT) if isinstance(nameserver, str) else nameserver
    return ResolverConfig(((parse_ipv4(server), port),), hosts=hosts)


def connect(
    path: str | None = None,
    *,
    nameserver: str | tuple[str, int] | None = None,
    resolv_conf: str | None = None,
    hosts: str = "/etc/hosts",
) -> None:
    """Let ``ustack.socket`` speak to a running ustackd from now on, until ``down()``.

    Args:
        path: the daemon's control socket; None: what USTACK_SOCKET names. With that variable
            set and nothing else called, the first socket does this by itself.
        nameserver, resolv_conf, hosts: who is asked for names, as ``up()``'s; by the daemon's UDP.

    Raises:
        OSError: nobody answers there, or we may not; ``resolv_conf`` cannot be read.
        ValueError: no path is known.
        RuntimeError: the process has a stack; take it down() first.
    """
    named = path or os.environ.get(SOCKET_VARIABLE)
    if not named:
        raise ValueError(f"which daemon? Give its control socket, or set {SOCKET_VARIABLE}")
    with _default.lock:
        _check_unused()
        resolver = Resolver(_resolver_config(nameserver, resolv_conf, hosts))
        _default.link = DaemonLink(named)
        _default.resolver = resolver


def _check_unused() -> None:
    if _default.link is not None or (_default.handle is not None and not _default.implicit):
        raise RuntimeError("the stack is up already: call ustack.down() first")


def daemon_link() -> DaemonLink | None:
    """Return the line to the daemon that new sockets belong to; None: they are this process's."""
    if _default.link is None and _default.handle is None and os.environ.get(SOCKET_VARIABLE):
        with _default.lock:
            if _default.link is None:
                _default.resolver = Resolver(ResolverConfig())
                _default.link = DaemonLink(os.environ[SOCKET_VARIABLE])
    return _default.link


def down() -> None:
    """Take this process's stack down, if it has one; forget the daemon, if it used one."""
    _default.link = None
    handle = _default.handle
    if handle is not None:
        handle.close()


def use(handle: StackHandle) -> None:
    """Make ``handle`` the stack that new sockets of this process belong to."""
    with _default.lock:
        _default.handle = handle
        _default.implicit = False


def default_runtime() -> ThreadedRuntime:
    """Return the runtime of the process's stack; see ``default_handle``."""
    return default_handle().runtime


def default_resolver() -> Resolver:
    """Return the resolver of the process's stack, or of its line to a daemon."""
    return default_handle().resolver if daemon_link() is None else _default.resolver


def default_handle() -> StackHandle:
    """Return the process's stack; make a loopback-only one if there is none.

    A stack that up() made stays the process's even when it has failed or, after fork(),
    belongs to the parent: its calls then say ENETDOWN.
    """
    handle = _default.handle
    if handle is None or (_default.implicit and handle.runtime.closed):
        with _default.lock:
            handle = _default.handle
            if handle is None or (_default.implicit and handle.runtime.closed):
                handle = _default.handle = StackHandle(ThreadedRuntime(build_stack()))
                _default.implicit = True
    return handle


def kernel_has_other_families() -> bool:
    """Return whether ``ustack.install()`` has put the stack in the place of the kernel's."""
    return _default.other_families


def give_kernel_other_families(on: bool) -> None:
    """Let the kernel make the sockets that are not IP's, or nobody."""
    _default.other_families = on


def _drain(runtime: ThreadedRuntime) -> None:
    """Wait while connections that nobody holds any more still have something to send."""
    give_up_us = monotonic_us() + DRAIN_US
    stalled_us = 0
    left = runtime.call(_unfinished, runtime.stack)
    while left and stalled_us < STALL_US and monotonic_us() < give_up_us:
        time.sleep(DRAIN_STEP_US / 1e6)
        before, left = left, runtime.call(_unfinished, runtime.stack)
        stalled_us = stalled_us + DRAIN_STEP_US if left == before else 0


def _unfinished(stack: Stack) -> int:
    """Return how many bytes, a FIN counting as one, await their acknowledgement."""
    return sum(row["send_q"] for row in stack.tcp.diag() if row.get("orphan"))


def _at_exit() -> None:
    """Take the stack down; other threads do not see that any more."""
    if _default.handle is not None and not _default.handle.runtime.closed:
        _default.handle.runtime.take_for_exit()
    down()


atexit.register(_at_exit)
