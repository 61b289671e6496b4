"""ustackd's command line: text in, a checked ``DaemonOptions`` out.

Everything that can be found wrong without touching the system is found here, so that a
mistake costs one line and exit status 2. What the system refuses is startup's business.
"""

from __future__ import annotations

import argparse
import grp
import pwd
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ustack.config import CoreConfig, NicConfig, StackConfig
from ustack.daemon.command_line import CONTROL_FOLDER, OneLineParser
from ustack.daemon.control import OWNER_ONLY, SocketAccess
from ustack.daemon.impair import ImpairOptions, parse_impairment
from ustack.daemon.services.registry import ServiceSpec, parse_services
from ustack.lib.addresses import (
    INADDR_BROADCAST,
    Ipv4Interface,
    format_ipv4,
    is_loopback,
    is_multicast,
    is_zeronet,
    parse_interface,
    parse_ipv4,
    parse_mac,
)
from ustack.nic.igb import MAX_QUEUES

MAX_TAP_NAME_BYTES = 15
"""IFNAMSIZ without its terminator."""

MAX_CPUS = 64
"""Softnet contexts; more columns than that nobody reads."""

MAX_SOCKETS = 1 << 20
"""More than any limit of open files."""

_TAP_NAME = re.compile(r"[^\s/:%]+\Z")


@dataclass(frozen=True)
class DaemonOptions:
    """What ustackd was told."""

    tap: str
    address: Ipv4Interface
    host_address: Ipv4Interface | None
    gateway: int | None
    mac: bytes | None
    services: tuple[ServiceSpec, ...]
    control_path: Path
    config: StackConfig
    impair: ImpairOptions | None = None
    record: Path | None = None
    replay: Path | None = None
    tap_queues: int = 1
    access: SocketAccess = OWNER_ONLY
    port_users: frozenset[int] = frozenset()
    busy_poll_us: int = 0
    max_sockets: int = MAX_SOCKETS
    client_sockets: int = MAX_SOCKETS
    user: int | None = None


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ustackd's arguments."""
    parser = OneLineParser(
        prog="ustackd", description="Run a user-space network stack on a TAP device."
    )
    _add_interface_options(parser.add_argument)
    _add_nic_options(parser.add_argument)
    _add_wire_options(parser.add_argument)
    _add_service_options(parser.add_argument)
    _add_client_options(parser.add_argument)
    return parser


def _add_interface_options(add: Callable[..., Any]) -> None:
    """Declare the TAP, and the addresses at its two ends."""
    add("--tap", required=True, type=checked(_tap_name), help="TAP device to create, e.g. tap0")
    add(
        "--address",
        required=True,
        type=checked(_host_interface),
        metavar="ADDR/LEN",
        help="the stack's own address, e.g. 10.0.0.2/24",
    )
    add(
        "--host-address",
        type=checked(_host_interface),
        metavar="ADDR/LEN",
        help="address to give to the kernel's side of the TAP",
    )
    add("--gateway", type=checked(parse_ipv4), metavar="ADDR", help="default gateway")
    add("--mac", type=checked(_mac), help="the stack's MAC address (default: a random local one)")


def _add_nic_options(add: Callable[..., Any]) -> None:
    """Declare how the card and the softirq behind it are built."""
    add("--mtu", type=checked(_mtu), default=1500, help="bytes of IP packet per frame")
    add(
        "--offloads",
        choices=("on", "off"),
        default="on",
        help="checksum offload and super-frames on the TAP",
    )
    add(
        "--queues",
        type=checked(partial(_number, "queues", MAX_QUEUES)),
        default=1,
        metavar="N",
        help="the NIC's queue pairs, 1 to 8 (later: ustack ethtool -L)",
    )
    add(
        "--tap-queues",
        type=checked(partial(_number, "TAP queues", MAX_QUEUES)),
        default=1,
        metavar="N",
        help="queues of the TAP itself, 1 to 8",
    )
    add(
        "--cpus",
        type=checked(partial(_number, "cpus", MAX_CPUS)),
        default=1,
        metavar="N",
        help="softnet contexts, which one thread runs in turn, 1 to 64",
    )
    add(
        "--poll",
        action="store_true",
        help="poll the NIC all the time instead of taking interrupts: costs a processor",
    )
    add(
        "--busy-poll-us",
        type=checked(partial(_number, "microseconds", 1000, least=0)),
        default=0,
        metavar="N",
        help="look for frames and clients for N microseconds before sleeping (net.core.busy_poll)",
    )


def _add_wire_options(add: Callable[..., Any]) -> None:
    """Declare what stands between the TAP and the card."""
    add(
        "--impair",
        type=checked(parse_impairment),
        metavar="FAULT=VALUE,...",
        help="make the wire a bad one, both ways, without offloads: loss=1%%,duplicate=1%%,"
        "reorder=1%%,corrupt=1%%,delay=10ms,jitter=2ms,rate=10mbit,queue=64kb,limit=1000,"
        "way=both|sent|received,seed=7",
    )
    add(
        "--record",
        type=Path,
        metavar="FILE",
        help="write what the NIC receives and sends to a pcapng file; without offloads",
    )
    add(
        "--replay",
        type=Path,
        metavar="FILE",
        help="let a capture's frames arrive as well, at their distances in time; give --mac and "
        "--address as they were; without offloads",
    )


def _add_service_options(add: Callable[..., Any]) -> None:
    """Declare what the daemon itself serves, and where it is asked."""
    add(
        "--serve",
        type=checked(parse_services),
        default=(),
        metavar="SERVICE,...",
        help="echo, discard, chargen, http=FOLDER; each with :PORT behind its name if need be",
    )
    add(
        "--socket",
        type=Path,
        metavar="PATH",
        help=f"control socket (default {CONTROL_FOLDER}/TAP.sock)",
    )


def _add_client_options(add: Callable[..., Any]) -> None:
    """Declare whom we serve as, who may have sockets, and how many."""
    add(
        "--user",
        type=checked(_user),
        metavar="USER",
        help="become this user once everything is set up (all capabilities go in any case)",
    )
    add(
        "--socket-mode",
        type=checked(_mode),
        default=0o600,
        metavar="OCTAL",
        help="the control socket's permissions (default 600): who may open it may have sockets",
    )
    add(
        "--socket-group",
        type=checked(_group),
        metavar="GROUP",
        help="the control socket's group, with mode 660",
    )
    add(
        "--port-users",
        type=checked(_users),
        default=frozenset(),
        metavar="USER,...",
        help="users besides root who may bind ports below net.ipv4.ip_unprivileged_port_start",
    )
    add(
        "--max-sockets",
        type=checked(partial(_number, "sockets", MAX_SOCKETS)),
        default=MAX_SOCKETS,
        metavar="N",
        help="sockets of all client processes (default: what the limit of open files allows)",
    )
    add(
        "--client-sockets",
        type=checked(partial(_number, "sockets of a client", MAX_SOCKETS)),
        default=MAX_SOCKETS,
        metavar="N",
        help="sockets of one client process (default: its own limit of open files)",
    )


def checked(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Let argparse show a ``ValueError``'s own text."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def _tap_name(text: str) -> str:
    if not _TAP_NAME.match(text) or text in (".", "..") or len(text) > MAX_TAP_NAME_BYTES:
        raise ValueError(f"not a device name: {text!r}")
    return text


def _host_interface(text: str) -> Ipv4Interface:
    """Read an address that a host can have."""
    interface = parse_interface(text)
    addr = interface.addr
    if is_loopback(addr) or is_multicast(addr) or is_zeronet(addr) or addr == INADDR_BROADCAST:
        raise ValueError(f"not a host's address: {text!r}")
    if interface.prefix_len < 31 and addr in (interface.network, interface.broadcast):
        raise ValueError(f"not a host's address in its network: {text!r}")
    return interface


def _mac(text: str) -> bytes:
    mac = parse_mac(text)
    if mac[0] & 1 or not any(mac):
        raise ValueError(f"not a station's MAC address: {text!r}")
    return mac


def _mtu(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 68 <= int(text) <= 65535:
        raise ValueError(f"MTU must be from 68 to 65535: {text!r}")
    return int(text)


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise ValueError(f"not a file's permissions in octal: {text!r}")
    return mode


def _group(text: str) -> int:
    try:
        return int(text) if text.isdigit() else grp.getgrnam(text).gr_gid
    except KeyError:
        raise ValueError(f"there is no group {text!r}") from None


def _user(text: str) -> int:
    try:
        return int(text) if text.isdigit() else pwd.getpwnam(text).pw_uid
    except KeyError:
        raise ValueError(f"there is no user {text!r}") from None


def _users(text: str) -> frozenset[int]:
    return frozenset(map(_user, text.split(",")))


def _number(what: str, most: int, text: str, *, least: int = 1) -> int:
    if not (text.isascii() and text.isdigit()) or not least <= int(text) <= most:
        raise ValueError(f"{what} must be from {least} to {most}: {text!r}")
    return int(text)


def parse_options(argv: Sequence[str] | None = None) -> DaemonOptions:
    """Read the command line.

    Raises:
        SystemExit: it is wrong (status 2, one line on stderr) or only asked for help.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.gateway is not None:
        address = args.address
        if args.gateway & address.mask != address.network or args.gateway == address.addr:
            parser.error(f"gateway {format_ipv4(args.gateway)} is not a neighbour of {address}")
    wrapped = args.impair is not None or args.record is not None or args.replay is not None
    on = args.offloads == "on" and not wrapped
    nic = NicConfig(
        queues=args.queues,
        mtu=args.mtu,
        busy_poll=args.poll,
        rx_checksum=on,
        tx_checksum=on,
        tso=on,
        large_receive=on,
    )
    return DaemonOptions(
        tap=args.tap,
        address=args.address,
        host_address=args.host_address,
        gateway=args.gateway,
        mac=args.mac,
        services=args.serve,
        control_path=args.socket or CONTROL_FOLDER / f"{args.tap}.sock",
        config=StackConfig(nic=nic, core=CoreConfig(nr_cpus=args.cpus)),
        impair=args.impair,
        record=args.record,
        replay=args.replay,
        tap_queues=args.tap_queues,
        access=SocketAccess(
            args.socket_mode if args.socket_group is None else args.socket_mode | 0o660,
            args.socket_group,
        ),
        port_users=args.port_users,
        busy_poll_us=args.busy_poll_us,
        max_sockets=args.max_sockets,
        client_sockets=args.client_sockets,
        user=args.user,
    )
