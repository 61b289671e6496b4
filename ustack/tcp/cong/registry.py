"""Which congestion controls there are, and which one a socket uses (net/ipv4/tcp_cong.c).

``TcpProt`` holds one registry. A new socket has the default (net.ipv4.tcp_congestion_control);
a child has its listener's if the listener chose one by TCP_CONGESTION. An algorithm begins
with a connection when it is established, not before (tcp_init_congestion_control).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ustack.lib.socket_error import socket_error
from ustack.native.lib import ffi, lib
from ustack.tcp.cong.ops import TCP_CA_NAME_MAX, TCP_CONG_NON_RESTRICTED, CongestionOps
from ustack.tcp.states import TCP_CLOSE, TCP_LISTEN

if TYPE_CHECKING:
    from ustack.config import TcpConfig
    from ustack.tcp.sock import TcpSock


class CongestionRegistry:
    """The congestion controls of one stack by name; the first is the last resort."""

    def __init__(self, *controls: CongestionOps) -> None:
        self._by_name = {ops.name: ops for ops in controls}
        self._allowed = {ops.name for ops in controls if ops.flags & TCP_CONG_NON_RESTRICTED}
        self.default = controls[0]

    def register(self, ops: CongestionOps) -> None:
        """Let sockets use ``ops`` (tcp_register_congestion_control).

        Raises:
            ValueError: its name is empty, too long or taken; the caller's fault.
        """
        if not ops.name or len(ops.name) >= TCP_CA_NAME_MAX or " " in ops.name:
            raise ValueError(f"not a name for a congestion control: {ops.name!r}")
        if ops.name in self._by_name:
            raise ValueError(f"there is a congestion control {ops.name!r}")
        self._by_name[ops.name] = ops
        if ops.flags & TCP_CONG_NON_RESTRICTED:
            self._allowed.add(ops.name)

    def find(self, name: str) -> CongestionOps:
        """Return the congestion control called ``name``.

        Raises:
            OSError: ENOENT, there is none.
        """
        ops = self._by_name.get(name)
        if ops is None:
            raise socket_error(errno.ENOENT)
        return ops

    def is_allowed(self, ops: CongestionOps) -> bool:
        """Whether a socket may choose ``ops``."""
        return ops.name in self._allowed

    @property
    def available(self) -> str:
        """Every name (net.ipv4.tcp_available_congestion_control)."""
        return " ".join(self._by_name)

    @property
    def allowed(self) -> str:
        """The names that sockets may choose (net.ipv4.tcp_allowed_congestion_control)."""
        return " ".join(name for name in self._by_name if name in self._allowed)

    def configure(self, config: TcpConfig) -> None:
        """Take the default and the allowed ones from the configuration.

        The default is allowed to all (tcp_set_default_congestion_control).

        Raises:
            ValueError: a name that is not registered; the caller's fault.
        """
        allowed = config.tcp_allowed_congestion_control.split()
        for name in (config.tcp_congestion_control, *allowed):
            if name not in self._by_name:
                raise ValueError(f"no congestion control {name!r}: have {self.available}")
        self.default = self._by_name[config.tcp_congestion_control]
        self._allowed = {*allowed, self.default.name}


def tcp_assign_congestion_control(child: TcpSock, lsk: TcpSock) -> None:
    """Give a child what its listener chose, instead of the default (tcp_ca_openreq_child)."""
    if lsk.ca_setsockopt:
        child.ca, child.ca_setsockopt = lsk.ca, True


def tcp_init_congestion_control(sk: TcpSock) -> None:
    """The connection is established: its congestion control begins."""
    tp = sk.tp
    tp.prior_ssthresh = 0
    tp.ca_cnt = 0
    sk.ca_initialized = True
    if sk.ca.cong_control is not None or type(sk.ca).in_ack_event is not CongestionOps.in_ack_event:
        tp.slow |= lib.US_TCP_SLOW_CA
    else:
        tp.slow &= ~lib.US_TCP_SLOW_CA
    tp.ca_kind = vars(type(sk.ca)).get("in_c", lib.US_TCP_CA_PYTHON)
    sk.ca.init(sk)


def tcp_cleanup_congestion_control(sk: TcpSock) -> None:
    """The connection is over, or chooses another: what was remembered goes.

    A FIN sent from SYN_RECV can time out, which CUBIC remembers, before the ACK that begins it.
    """
    if sk.ca_initialized or sk.tp.bictcp:
        sk.ca.release(sk)
        sk.ca_initialized = False
    sk.ca_priv = None
    sk.tp.bictcp = ffi.NULL


def tcp_set_congestion_control(sk: TcpSock, name: str) -> None:
    """Let ``sk`` use another congestion control from now on (TCP_CONGESTION).

    Raises:
        OSError: ENOENT, no such name; EPERM, one that sockets may not choose. Both the
            application's; nothing has changed.
    """
    registry = sk.prot.congestion
    ops = registry.find(name)
    if ops is sk.ca:
        sk.ca_setsockopt = True
        return
    if not registry.is_allowed(ops):
        raise socket_error(errno.EPERM)
    sk.ca_setsockopt = True
    tcp_cleanup_congestion_control(sk)
    sk.ca = ops
    sk.tp.snd_cwnd_cnt = 0
    if sk.tp.state not in (TCP_CLOSE, TCP_LISTEN):
        tcp_init_congestion_control(sk)
