"""Names to addresses and back: a hosts file, then DNS over the stack's own UDP and TCP.

A stack's resolver is made by ``ustack.up(..., nameserver=...)`` or ``resolv_conf=...``; without
either only the hosts file is looked at. Timeouts, attempts and search list are resolv.conf's
(resolver(5)); a truncated answer is asked for again over TCP (RFC 7766).
"""

from __future__ import annotations

import random
import socket as _socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ustack.api import dns
from ustack.lib.addresses import format_ipv4, parse_ipv4

if TYPE_CHECKING:
    from ustack.api.sockets import socket

DNS_PORT = 53
ANSWER_BYTES = 4096
NAMESERVERS_MAX = 3
ANSWERS_MAX = 16
"""Datagrams that are looked at for one question: strangers may send some too."""


@dataclass(frozen=True)
class ResolverConfig:
    """Where names are looked up."""

    nameservers: tuple[tuple[int, int], ...] = ()
    """(address, port) of recursive servers, in the order they are asked."""
    hosts: str = "/etc/hosts"
    """The hosts file, hosts(5)."""
    search: tuple[str, ...] = ()
    """Domains that a name with fewer than ``ndots`` dots is tried in."""
    ndots: int = 1
    timeout_s: float = 5.0
    attempts: int = 2


def read_resolv_conf(path: str, **fields: str) -> ResolverConfig:
    """Read a file of resolver(5): nameserver, search, domain, options ndots, timeout, attempts."""
    servers: list[tuple[int, int]] = []
    search: tuple[str, ...] = ()
    options = {"ndots": 1, "timeout": 5, "attempts": 2}
    for line in Path(path).read_text().splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if not words:
            continue
        keyword, rest = words[0], words[1:]
        if keyword == "nameserver" and rest:
            servers += _ipv4_servers(rest[:1])
        elif keyword in ("search", "domain"):
            search = tuple(rest)
        elif keyword == "options":
            for name, _, value in (word.partition(":") for word in rest):
                if name in options and value.isdecimal():
                    options[name] = int(value)
    return ResolverConfig(
        tuple(servers[:NAMESERVERS_MAX]), search=search, ndots=options["ndots"],
        timeout_s=options["timeout"], attempts=options["attempts"], **fields,
    )  # fmt: skip


def _ipv4_servers(words: Iterable[str]) -> list[tuple[int, int]]:
    found = []
    for word in words:
        try:
            found.append((parse_ipv4(word), DNS_PORT))
        except ValueError:
            continue  # IPv6
    return found


class Resolver:
    """Looks names up for one stack."""

    def __init__(self, config: ResolverConfig) -> None:
        self.config = config
        self._rng = random.SystemRandom()

    def addresses(self, name: str) -> tuple[str, list[int]]:
        """Return a host's canonical name and its addresses.

        Raises:
            socket.gaierror: EAI_NONAME, there is no such host; EAI_NODATA, it has no IPv4
                address; EAI_AGAIN, no server has answered.
        """
        known = self._from_hosts(name)
        if known is not None:
            return known
        nothing: int = _socket.EAI_NONAME
        for candidate in self._candidates(name):
            answer = self._ask(candidate, dns.TYPE_A)
            if answer.addresses:
                return answer.canonical, answer.addresses
            if not answer.rcode:
                nothing = _socket.EAI_NODATA
        raise gaierror(nothing)

    def name_of(self, addr: int) -> tuple[str, list[str]] | None:
        """Return an address's host name and aliases, None if it has none."""
        for number, names in self._hosts():
            if number == addr:
                return names[0], names[1:]
        reverse = ".".join(reversed(format_ipv4(addr).split("."))) + ".in-addr.arpa"
        try:
            names = self._ask(reverse, dns.TYPE_PTR).names
        except _socket.gaierror:
            return None
        return (names[0], []) if names else None

    def _from_hosts(self, name: str) -> tuple[str, list[int]] | None:
        wanted = name.rstrip(".").lower()
        canonical, found = "", []
        for addr, names in self._hosts():
            if wanted in [known.lower() for known in names]:
                canonical = canonical or names[0]
                found.append(addr)
        if wanted == "localhost" and not found:
            return name, [0x7F000001]
        return (canonical, found) if found else None

    def _hosts(self) -> list[tuple[int, list[str]]]:
        try:
            text = Path(self.config.hosts).read_text()
        except OSError:
            return []
        entries = []
        for line in text.splitlines():
            words = line.split("#")[0].split()
            if len(words) < 2:
                continue
            try:
                entries.append((parse_ipv4(words[0]), words[1:]))
            except ValueError:
                continue  # IPv6
        return entries

    def _candidates(self, name: str) -> list[str]:
        """Return the names to ask for, in order (res_search)."""
        searched = [f"{name}.{domain}" for domain in self.config.search]
        if name.endswith("."):
            return [name]
        return [name, *searched] if name.count(".") >= self.config.ndots else [*searched, name]

    def _ask(self, name: str, kind: int) -> dns.Answer:
        try:
            query = dns.build_query(self._rng.getrandbits(16), name, kind)
        except dns.DnsError:
            raise gaierror(_socket.EAI_NONAME) from None
        for _ in range(self.config.attempts):
            for server in self.config.nameservers:
                try:
                    answer = self._ask_server(server, query)
                except (OSError, dns.DnsError):
                    continue
                if answer.rcode in (0, dns.RCODE_NXDOMAIN):
                    return answer
        raise gaierror(_socket.EAI_AGAIN)

    def _ask_server(self, server: tuple[int, int], query: bytes) -> dns.Answer:
        peer = (format_ipv4(server[0]), server[1])
        with _new_socket(_socket.SOCK_DGRAM) as sock:
            sock.settimeout(self.config.timeout_s)
            sock.connect(peer)
            sock.send(query)
            answer = self._answer_of(sock, query)
        return self._ask_by_tcp(peer, query) if answer.truncated else answer

    def _answer_of(self, sock: socket, query: bytes) -> dns.Answer:
        for _ in range(ANSWERS_MAX):
            try:
                return dns.parse_answer(sock.recv(ANSWER_BYTES), query)
            except dns.DnsError:
                continue
        raise dns.DnsError("no answer among what came")

    def _ask_by_tcp(self, peer: tuple[str, int], query: bytes) -> dns.Answer:
        with _new_socket(_socket.SOCK_STREAM) as sock:
            sock.settimeout(self.config.timeout_s)
            sock.connect(peer)
            sock.sendall(struct.pack("!H", len(query)) + query)
            (length,) = struct.unpack("!H", _read(sock, 2))
            return dns.parse_answer(_read(sock, length), query)


def _read(sock: socket, n: int) -> bytes:
    data = sock.recv(n, _socket.MSG_WAITALL)
    if len(data) < n:
        raise dns.DnsError("an answer cut short")
    return data


def _new_socket(kind: int) -> socket:
    from ustack.api.sockets import socket

    return socket(_socket.AF_INET, kind)


GAI_TEXT = {
    _socket.EAI_BADFLAGS: "Bad value for ai_flags",
    _socket.EAI_NONAME: "Name or service not known",
    _socket.EAI_AGAIN: "Temporary failure in name resolution",
    _socket.EAI_FAIL: "Non-recoverable failure in name resolution",
    _socket.EAI_NODATA: "No address associated with hostname",
    _socket.EAI_FAMILY: "ai_family not supported",
    _socket.EAI_SOCKTYPE: "ai_socktype not supported",
    _socket.EAI_SERVICE: "Servname not supported for ai_socktype",
    _socket.EAI_ADDRFAMILY: "Address family for hostname not supported",
}
"""gai_strerror(3)."""


def gaierror(code: int) -> _socket.gaierror:
    """Return the exception that the C library's getaddrinfo means by ``code``."""
    return _socket.gaierror(code, GAI_TEXT[code])
