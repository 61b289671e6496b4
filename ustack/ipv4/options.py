"""IP options: filled in on the way up, echoed in replies, thinned in fragments.

``ip_rcv`` calls ``ip_options_compile`` for every header longer than 20 bytes: record route
and timestamp get our entry, malformed ones a pointer for the parameter problem. ICMP replies
carry ``ip_options_echo``; ``ip_fragment`` asks for ``ip_options_fragment``. RFC 791 §3.1,
RFC 781, RFC 1122 §3.2.1.8, RFC 2113; reference: net/ipv4/ip_options.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ustack.wire.ipv4 import (
    IP_HLEN,
    IPOPT_COPY,
    IPOPT_END,
    IPOPT_LSRR,
    IPOPT_NOOP,
    IPOPT_RA,
    IPOPT_RR,
    IPOPT_SSRR,
    IPOPT_TIMESTAMP,
    IPOPT_TS_PRESPEC,
    IPOPT_TS_TSANDADDR,
    IPOPT_TS_TSONLY,
)

if TYPE_CHECKING:
    from ustack.ipv4.protocol import Ipv4

_NONSTANDARD_TIME = 1 << 31
_OVERFLOW_MAX = 15


@dataclass(slots=True)
class IpOptions:
    """Where the options of one header are (struct ip_options); 0: there is none."""

    data: bytearray
    """The options field as it is after our own entries."""
    srr: int = 0
    rr: int = 0
    ts: int = 0
    router_alert: int = 0
    """Each counted from the start of the IP header, as a parameter problem's pointer is."""


class OptionError(ValueError):
    """An option is malformed; ``pointer`` is the byte of the header that says so."""

    def __init__(self, pointer: int) -> None:
        super().__init__(f"byte {pointer}")
        self.pointer = pointer


def inet_current_timestamp(ip: Ipv4) -> int:
    """Return the time for options and ICMP timestamps, in milliseconds.

    The stack knows no time of day, so the high bit says that the value does not count from
    midnight UT (RFC 791 §3.1, RFC 792 page 17).
    """
    return _NONSTANDARD_TIME | ip.net.clock.now_us // 1000 & 0x7FFFFFFF


def ip_options_compile(ip: Ipv4, options: bytes, spec_dst: int) -> IpOptions:
    """Check the options of a received header and enter ourselves where they ask for it.

    Args:
        ip: The stack's IPv4.
        options: The header without its first 20 bytes.
        spec_dst: The address that we are known by to the sender: what it sent to.

    Raises:
        OptionError: the sender's fault; answer with a parameter problem.
    """
    opt = IpOptions(bytearray(options))
    data = opt.data
    at = 0
    while at < len(data):
        kind = data[at]
        if kind == IPOPT_END:
            data[at:] = bytes(len(data) - at)  # nothing is hidden behind the end
            break
        if kind == IPOPT_NOOP:
            at += 1
            continue
        optlen = data[at + 1] if at + 1 < len(data) else 0
        if optlen < 2 or at + optlen > len(data):
            raise OptionError(IP_HLEN + at)
        compile_one = _COMPILE.get(kind)
        if compile_one is not None:
            compile_one(ip, opt, at, optlen, spec_dst)
        at += optlen
    return opt


def _check(wrong: bool, at: int) -> None:
    if wrong:
        raise OptionError(IP_HLEN + at)


def _compile_srr(ip: Ipv4, opt: IpOptions, at: int, optlen: int, spec_dst: int) -> None:
    _check(optlen < 3, at + 1)
    _check(opt.data[at + 2] < 4, at + 2)
    _check(bool(opt.srr), at)  # RFC 1812 §5.2.4.1: one source route
    opt.srr = IP_HLEN + at


def _compile_rr(ip: Ipv4, opt: IpOptions, at: int, optlen: int, spec_dst: int) -> None:
    data = opt.data
    _check(bool(opt.rr), at)
    _check(optlen < 3, at + 1)
    pointer = data[at + 2]
    _check(pointer < 4, at + 2)
    if pointer <= optlen:
        _check(pointer + 3 > optlen, at + 2)
        _put(data, at + pointer - 1, spec_dst)
        data[at + 2] = pointer + 4
    opt.rr = IP_HLEN + at


def _compile_ts(ip: Ipv4, opt: IpOptions, at: int, optlen: int, spec_dst: int) -> None:
    data = opt.data
    _check(bool(opt.ts), at)
    _check(optlen < 4, at + 1)
    pointer = data[at + 2]
    _check(pointer < 5, at + 2)
    mode = data[at + 3] & 15
    if pointer <= optlen:
        _check(pointer + 3 > optlen, at + 2)
        _fill_timestamp(ip, data, at, optlen, spec_dst)
    elif mode != IPOPT_TS_PRESPEC:
        overflow = data[at + 3] >> 4
        _check(overflow == _OVERFLOW_MAX, at + 3)
        data[at + 3] = mode | (overflow + 1) << 4
    opt.ts = IP_HLEN + at


def _fill_timestamp(ip: Ipv4, data: bytearray, at: int, optlen: int, spec_dst: int) -> None:
    """Enter the time, and our address where it is wanted; a prespecified one must be ours."""
    mode = data[at + 3] & 15
    pointer = data[at + 2]
    entry = at + pointer - 1
    if mode == IPOPT_TS_TSONLY:
        _put(data, entry, inet_current_timestamp(ip))
        data[at + 2] = pointer + 4
    elif mode in (IPOPT_TS_TSANDADDR, IPOPT_TS_PRESPEC):
        _check(pointer + 7 > optlen, at + 2)
        if mode == IPOPT_TS_TSANDADDR:
            _put(data, entry, spec_dst)
        elif not ip.is_local_address(_take(data, entry)):
            return
        _put(data, entry + 4, inet_current_timestamp(ip))
        data[at + 2] = pointer + 8


def _compile_ra(ip: Ipv4, opt: IpOptions, at: int, optlen: int, spec_dst: int) -> None:
    _check(optlen < 4, at + 1)
    if not opt.data[at + 2] and not opt.data[at + 3]:
        opt.router_alert = IP_HLEN + at


_COMPILE: dict[int, Callable[[Ipv4, IpOptions, int, int, int], None]] = {
    IPOPT_LSRR: _compile_srr,
    IPOPT_SSRR: _compile_srr,
    IPOPT_RR: _compile_rr,
    IPOPT_TIMESTAMP: _compile_ts,
    IPOPT_RA: _compile_ra,
}


def ip_options_echo(ip: Ipv4, options: bytes, saddr: int) -> bytes | None:
    """Return the options of a reply: record route and timestamp go back, with one more entry.

    Args:
        ip: The stack's IPv4.
        options: What ``ip_options_compile`` made of the request's; source routes never get
            here.
        saddr: The reply's source address, which is entered as ip_options_build does.

    Returns:
        A multiple of four bytes; None if an option has no room for a whole entry, in which
        case Linux does not reply at all.
    """
    opt = _locate(options)
    echoed = bytearray()
    for where, fill in ((opt.rr, _echo_rr), (opt.ts, _echo_ts)):
        if not where:
            continue
        at = where - IP_HLEN
        option = bytearray(options[at : at + options[at + 1]])
        if not fill(ip, option, saddr):
            return None
        echoed += option
    echoed += bytes(-len(echoed) % 4)
    return bytes(echoed)


def _echo_rr(ip: Ipv4, option: bytearray, saddr: int) -> bool:
    pointer, optlen = option[2], len(option)
    if pointer > optlen:
        return True
    if pointer + 3 > optlen:
        return False
    _put(option, pointer - 1, saddr)
    option[2] = pointer + 4
    return True


def _echo_ts(ip: Ipv4, option: bytearray, saddr: int) -> bool:
    pointer, optlen, mode = option[2], len(option), option[3] & 15
    if pointer > optlen:
        return True
    if mode == IPOPT_TS_PRESPEC:
        entry = pointer - 1
        if pointer + 7 <= optlen and ip.is_local_address(_take(option, entry)):
            _put(option, entry + 4, inet_current_timestamp(ip))
            option[2] = pointer + 8
        return True
    entries = {IPOPT_TS_TSONLY: 1, IPOPT_TS_TSANDADDR: 2}.get(mode, 0)
    if entries and pointer + 4 * entries - 1 > optlen:
        return False
    if entries == 2:
        _put(option, pointer - 1, saddr)
    if entries:
        _put(option, pointer + 4 * entries - 5, inet_current_timestamp(ip))
        option[2] = pointer + 4 * entries
    return True


def _locate(options: bytes) -> IpOptions:
    """Find record route and timestamp in options that have been checked."""
    opt = IpOptions(bytearray())
    at = 0
    while at < len(options) and options[at] != IPOPT_END:
        if options[at] == IPOPT_NOOP:
            at += 1
            continue
        if options[at] == IPOPT_RR:
            opt.rr = IP_HLEN + at
        elif options[at] == IPOPT_TIMESTAMP:
            opt.ts = IP_HLEN + at
        at += options[at + 1]
    return opt


def ip_options_fragment(options: bytes) -> bytes:
    """Return the options of all fragments but the first (RFC 791 §3.1).

    Those without the copy flag become no-operations, so that every header is as long as
    the first.
    """
    out = bytearray(options)
    at = 0
    while at < len(out) and out[at] != IPOPT_END:
        if out[at] == IPOPT_NOOP:
            at += 1
            continue
        optlen = out[at + 1] if at + 1 < len(out) else 0
        if optlen < 2 or at + optlen > len(out):
            break
        if not out[at] & IPOPT_COPY:
            out[at : at + optlen] = bytes([IPOPT_NOOP]) * optlen
        at += optlen
    return bytes(out)


def _put(data: bytearray, at: int, value: int) -> None:
    data[at : at + 4] = value.to_bytes(4, "big")


def _take(data: bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")
