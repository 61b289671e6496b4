"""getaddrinfo and its relatives, for AF_INET, with the stack's own resolver."""

from __future__ import annotations

import socket as _socket
from typing import Any

from ustack.api.names import numeric_host
from ustack.api.resolver import gaierror
from ustack.api.stacks import default_resolver
from ustack.lib.addresses import INADDR_ANY, INADDR_LOOPBACK, format_ipv4

AI_KNOWN = int(
    _socket.AI_PASSIVE | _socket.AI_CANONNAME | _socket.AI_NUMERICHOST | _socket.AI_NUMERICSERV
    | _socket.AI_ADDRCONFIG | _socket.AI_V4MAPPED | _socket.AI_ALL
)  # fmt: skip
KINDS = (
    (_socket.SOCK_STREAM, _socket.IPPROTO_TCP, "tcp"),
    (_socket.SOCK_DGRAM, _socket.IPPROTO_UDP, "udp"),
    (_socket.SOCK_RAW, 0, ""),
)
AddrInfo = tuple[_socket.AddressFamily, _socket.SocketKind, int, str, tuple[str, int]]


def getaddrinfo(
    host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> list[AddrInfo]:
    """Return (family, type, proto, canonical name, address) of each way to reach a service.

    Raises:
        socket.gaierror: there is no such host or service, or none of AF_INET.
    """
    host = host.decode("idna") if isinstance(host, bytes | bytearray) else host
    port = port.decode("ascii") if isinstance(port, bytes | bytearray) else port
    if host is not None and not isinstance(host, str):
        raise TypeError("getaddrinfo() argument 1 must be string or None")
    if port is not None and not isinstance(port, str | int):
        raise OSError("Int or String expected")
    if int(flags) & ~AI_KNOWN or (flags & _socket.AI_CANONNAME and not host):
        raise gaierror(_socket.EAI_BADFLAGS)
    if family not in (0, _socket.AF_INET, _socket.AF_INET6):
        raise gaierror(_socket.EAI_FAMILY)
    if not host and port is None:
        raise gaierror(_socket.EAI_NONAME)
    services = _services(port, type, proto, flags)
    canonical, addrs = _hosts(host, family, flags)
    shown = canonical if flags & _socket.AI_CANONNAME else ""
    found: list[AddrInfo] = []
    for addr in addrs:
        for kind, number, service in services:
            peer = (format_ipv4(addr), service)
            found.append((_socket.AF_INET, kind, number, "" if found else shown, peer))
    return found


def _services(
    port: Any, type: int, proto: int, flags: int
) -> list[tuple[_socket.SocketKind, int, int]]:
    """Return (type, protocol, port) for each kind of socket that is asked for."""
    kinds = [
        (kind, number or proto, name)
        for kind, number, name in KINDS
        if type in (0, kind) and (not proto or not number or proto == number)
        and not (kind == _socket.SOCK_RAW and not type and isinstance(port, str)
                 and not port.isdecimal())
    ]  # fmt: skip
    if not kinds:
        raise gaierror(_socket.EAI_SOCKTYPE)
    found = []
    for kind, number, name in kinds:
        service = _port(port, name, flags)
        if service is not None:
            found.append((kind, number, service))
    if not found:
        raise gaierror(_socket.EAI_SERVICE)
    return found


def _port(port: Any, transport: str, flags: int) -> int | None:
    if port is None or port == "":
        return 0
    if isinstance(port, int) or port.isdecimal():
        return int(port) & 0xFFFF
    if flags & _socket.AI_NUMERICSERV:
        raise gaierror(_socket.EAI_NONAME)
    try:
        return _socket.getservbyname(port, transport) if transport else None
    except OSError:
        return None


def _hosts(host: str | None, family: int, flags: int) -> tuple[str, list[int]]:
    """Return the canonical name and the addresses of a host."""
    numeric = numeric_host(host) if host else None
    if family == _socket.AF_INET6:
        raise gaierror(_socket.EAI_NONAME if numeric is None else _socket.EAI_ADDRFAMILY)
    if not host:
        return "", [INADDR_ANY if flags & _socket.AI_PASSIVE else INADDR_LOOPBACK]
    if numeric is not None:
        return host, [numeric]
    if flags & _socket.AI_NUMERICHOST:
        raise gaierror(_socket.EAI_NONAME)
    if ":" in host:  # an IPv6 address
        raise gaierror(_socket.EAI_ADDRFAMILY if family else _socket.EAI_NONAME)
    return default_resolver().addresses(host)


def gethostbyname(hostname: str | bytes) -> str:
    """Return the first address of a host, as text."""
    return gethostbyname_ex(hostname)[2][0]


def gethostbyname_ex(hostname: str | bytes) -> tuple[str, list[str], list[str]]:
    """Return (canonical name, aliases, addresses) of a host."""
    name = hostname.decode("idna") if isinstance(hostname, bytes) else hostname
    if name in ("", "<broadcast>"):
        address = "0.0.0.0" if not name else "255.255.255.255"
        return address, [], [address]
    numeric = numeric_host(name)
    if numeric is not None:
        return format_ipv4(numeric), [], [format_ipv4(numeric)]
    canonical, addrs = default_resolver().addresses(name)
    aliases = [name] if canonical.lower() != name.lower() else []
    return canonical, aliases, [format_ipv4(addr) for addr in addrs]


def gethostbyaddr(ip_address: str) -> tuple[str, list[str], list[str]]:
    """Return (name, aliases, addresses) of an address, or of a host by its name.

    Raises:
        socket.herror: the address has no name.
    """
    addr = _hosts(ip_address, _socket.AF_INET, 0)[1][0]
    found = default_resolver().name_of(addr)
    if found is None:
        raise _socket.herror(1, "Unknown host")
    return found[0], found[1], [format_ipv4(addr)]


def getfqdn(name: str = "") -> str:
    """Return the full name of a host: the first of its names with a dot in it."""
    name = name.strip()
    if not name or name in ("0.0.0.0", "::"):
        name = _socket.gethostname()
    try:
        hostname, aliases, _ = gethostbyaddr(name)
    except OSError:
        return name
    return next((each for each in [hostname, *aliases] if "." in each), hostname)


def getnameinfo(sockaddr: tuple[str, int], flags: int) -> tuple[str, str]:
    """Return (host, service) of an address, in words where there are some.

    Raises:
        socket.gaierror: EAI_NONAME: the host has no name, and NI_NAMEREQD asks for one.
    """
    if not isinstance(sockaddr, tuple):
        raise TypeError("getnameinfo() argument 1 must be a tuple")
    host, port = sockaddr[0], sockaddr[1]
    numeric = numeric_host(host)
    if numeric is None:
        raise gaierror(_socket.EAI_NONAME)
    found = None if flags & _socket.NI_NUMERICHOST else default_resolver().name_of(numeric)
    if found is None and flags & _socket.NI_NAMEREQD:
        raise gaierror(_socket.EAI_NONAME)
    return (found[0] if found else format_ipv4(numeric)), _service_name(port, flags)


def _service_name(port: int, flags: int) -> str:
    if flags & _socket.NI_NUMERICSERV:
        return str(port)
    try:
        return _socket.getservbyport(port, "udp" if flags & _socket.NI_DGRAM else "tcp")
    except OSError:
        return str(port)
