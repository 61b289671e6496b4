"""One captured frame as the line that ``tcpdump -n`` prints, decoded by dpkt.

A ``Decoder`` remembers the first sequence numbers of each TCP connection, because tcpdump
prints them absolute once (and in each SYN) and relative from then on. A frame that cannot be
decoded is never an error: the line says what is wrong with it, as tcpdump's does.
"""

from __future__ import annotations

import socket
import struct
import time
from collections import OrderedDict

import dpkt

SEQ_MASK = 0xFFFFFFFF
MAX_FLOWS = 65_536
"""Connections remembered for relative numbers; the oldest is forgotten."""

TCP_FLAG_LETTERS = (
    (dpkt.tcp.TH_FIN, "F"),
    (dpkt.tcp.TH_SYN, "S"),
    (dpkt.tcp.TH_RST, "R"),
    (dpkt.tcp.TH_PUSH, "P"),
    (dpkt.tcp.TH_ACK, "."),
    (dpkt.tcp.TH_URG, "U"),
    (dpkt.tcp.TH_ECE, "E"),
    (dpkt.tcp.TH_CWR, "W"),
)
ETHERTYPE_NAMES = {0x0800: "IPv4", 0x0806: "ARP", 0x86DD: "IPv6", 0x8100: "802.1Q"}
UNREACHABLE = {
    0: "net {dst} unreachable",
    1: "host {dst} unreachable",
    2: "{dst} protocol {proto} unreachable",
    3: "{dst} {transport} port {port} unreachable",
    4: "{dst} unreachable - need to frag (mtu {mtu})",
    5: "{dst} unreachable - source route failed",
    6: "net {dst} unreachable - unknown",
    7: "host {dst} unreachable - unknown",
    8: "{dst} unreachable - source host isolated",
    9: "net {dst} unreachable - admin prohibited",
    10: "host {dst} unreachable - admin prohibited",
    11: "net {dst} unreachable - tos prohibited",
    12: "host {dst} unreachable - tos prohibited",
    13: "host {dst} unreachable - admin prohibited filter",
    14: "host {dst} unreachable - host precedence violation",
    15: "host {dst} unreachable - precedence cutoff",
}
TRANSPORT_NAMES = {6: "tcp", 17: "udp"}

Flow = tuple[bytes, int, bytes, int]


def format_time(ts_us: int) -> str:
    """Write a capture time as local ``HH:MM:SS.micros``."""
    seconds, micros = divmod(ts_us, 1_000_000)
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{micros:06d}"


class Decoder:
    """Turns frames into lines; one per capture, because it knows the connections."""

    def __init__(self, *, link_header: bool = False, absolute: bool = False) -> None:
        """``link_header`` is tcpdump's -e, ``absolute`` its -S."""
        self._link_header = link_header
        self._absolute = absolute
        self._flows: OrderedDict[Flow, tuple[int, int]] = OrderedDict()

    def line(self, frame: bytes, length: int) -> str:
        """Describe one frame, of which ``length`` bytes were on the wire."""
        if len(frame) < 14:
            return f"[|ether], length {length}"
        ethertype = int.from_bytes(frame[12:14], "big")
        try:
            name, text = self._network(ethertype, frame[14:], length - 14)
        except (dpkt.UnpackError, struct.error, ValueError, IndexError, AttributeError):
            name, text = ETHERTYPE_NAMES.get(ethertype, "?"), "[invalid]"
        if self._link_header:
            macs = f"{frame[6:12].hex(':')} > {frame[:6].hex(':')}"
            kind = f"{ETHERTYPE_NAMES.get(ethertype, 'Unknown')} (0x{ethertype:04x})"
            return f"{macs}, ethertype {kind}, length {length}: {text}"
        prefix = {0x0800: "IP ", 0x0806: "ARP, ", 0x86DD: "IP6 "}.get(ethertype, "")
        return f"{prefix}{text}" if prefix else f"{name}{text}"

    def _network(self, ethertype: int, payload: bytes, length: int) -> tuple[str, str]:
        if ethertype == 0x0800:
            return "", self._ip(payload)
        if ethertype == 0x0806:
            return "", describe_arp(payload, length)
        if ethertype == 0x86DD:
            return "", describe_ip6(payload)
        return f"ethertype Unknown (0x{ethertype:04x}), ", f"length {length + 14}"

    def _ip(self, packet: bytes) -> str:
        ip = dpkt.ip.IP(packet)
        if ip.v != 4:
            return f"[invalid version {ip.v}]"
        src, dst = socket.inet_ntoa(ip.src), socket.inet_ntoa(ip.dst)
        length = (ip.len or len(packet)) - ip.hl * 4
        if ip.offset:
            return f"{src} > {dst}: ip-proto-{ip.p}"
        body = packet[ip.hl * 4 :]
        if ip.p == dpkt.ip.IP_PROTO_TCP:
            return self._tcp(ip, src, dst, body, length)
        if ip.p == dpkt.ip.IP_PROTO_UDP:
            return describe_udp(src, dst, body, length)
        if ip.p == dpkt.ip.IP_PROTO_ICMP:
            return f"{src} > {dst}: {describe_icmp(body, length)}"
        return f"{src} > {dst}: ip-proto-{ip.p} {length}"

    def _tcp(self, ip: dpkt.ip.IP, src: str, dst: str, body: bytes, length: int) -> str:
        if len(body) < 20:
            return f"{src} > {dst}: [|tcp]"
        tcp = dpkt.tcp.TCP(body)
        sport, dport, flags = tcp.sport, tcp.dport, tcp.flags
        payload = length - tcp.off * 4
        bases = self._bases((ip.src, sport, ip.dst, dport), tcp)
        seq, ack = (tcp.seq - bases[0]) & SEQ_MASK, (tcp.ack - bases[1]) & SEQ_MASK
        text = f"{src}.{sport} > {dst}.{dport}: Flags [{flag_letters(flags)}]"
        if payload > 0:
            text += f", seq {seq}:{(seq + payload) & SEQ_MASK}"
        elif flags & (dpkt.tcp.TH_SYN | dpkt.tcp.TH_FIN | dpkt.tcp.TH_RST):
            text += f", seq {seq}"
        if flags & dpkt.tcp.TH_ACK:
            text += f", ack {ack}"
        text += f", win {tcp.win}"
        if flags & dpkt.tcp.TH_URG:
            text += f", urg {tcp.urp}"
        if tcp.off > 5:
            text += f", options [{describe_options(body[20 : tcp.off * 4], bases[1])}]"
        return f"{text}, length {payload}"

    def _bases(self, flow: Flow, tcp: dpkt.tcp.TCP) -> tuple[int, int]:
        """Return what to take off seq and ack, (0, 0) for those that are printed absolute.

        As tcpdump does it: only segments with ACK count, so that a SYN-ACK sets the bases; they
        are one below the first byte of data, which is number 1.
        """
        if self._absolute or not tcp.flags & dpkt.tcp.TH_ACK:
            return 0, 0
        reverse = (flow[2], flow[3], flow[0], flow[1])
        known = self._flows.get(flow)
        back = self._flows.get(reverse) if known is None else None
        if tcp.flags & dpkt.tcp.TH_SYN or (known is None and back is None):
            if back is not None:
                self._flows[reverse] = ((tcp.ack - 1) & SEQ_MASK, tcp.seq)
            else:
                self._flows[flow] = (tcp.seq, (tcp.ack - 1) & SEQ_MASK)
                if len(self._flows) > MAX_FLOWS:
                    self._flows.popitem(last=False)
            return 0, 0
        if known is not None:
            return known
        assert back is not None
        return back[1], back[0]


def flag_letters(flags: int) -> str:
    """Write TCP flags as tcpdump does: ``S.``, ``none``."""
    return "".join(letter for bit, letter in TCP_FLAG_LETTERS if flags & bit) or "none"


def describe_options(raw: bytes, ack_base: int) -> str:
    """Write TCP options; SACK blocks are relative like the acknowledgement number."""
    parts = []
    for option in dpkt.tcp.parse_opts(raw):
        if option is None:
            parts.append("[bad opt]")
            break
        kind, data = option
        parts.append(describe_option(kind, data, ack_base))
        if kind == dpkt.tcp.TCP_OPT_EOL:
            break
    return ",".join(parts)


def describe_option(kind: int, data: bytes, ack_base: int) -> str:
    """Write one TCP option."""
    if kind == dpkt.tcp.TCP_OPT_EOL:
        return "eol"
    if kind == dpkt.tcp.TCP_OPT_NOP:
        return "nop"
    if kind == dpkt.tcp.TCP_OPT_MSS and len(data) == 2:
        return f"mss {int.from_bytes(data, 'big')}"
    if kind == dpkt.tcp.TCP_OPT_WSCALE and len(data) == 1:
        return f"wscale {data[0]}"
    if kind == dpkt.tcp.TCP_OPT_SACKOK and not data:
        return "sackOK"
    if kind == dpkt.tcp.TCP_OPT_TIMESTAMP and len(data) == 8:
        value, echo = struct.unpack(">II", data)
        return f"TS val {value} ecr {echo}"
    if kind == dpkt.tcp.TCP_OPT_SACK and data and len(data) % 8 == 0:
        edges = [(edge - ack_base) & SEQ_MASK for (edge,) in struct.iter_unpack(">I", data)]
        blocks = zip(edges[::2], edges[1::2], strict=True)
        return f"sack {len(edges) // 2} " + "".join(f"{{{a}:{b}}}" for a, b in blocks)
    return f"unknown-{kind}" + (f" 0x{data.hex()}" if data else "")


def describe_arp(packet: bytes, length: int) -> str:
    """Write an ARP request or reply."""
    arp = dpkt.arp.ARP(packet)
    if (arp.hrd, arp.pro, arp.hln, arp.pln) != (1, 0x0800, 6, 4):
        return f"Unknown hardware or protocol, length {length}"
    sender, target = socket.inet_ntoa(arp.spa), socket.inet_ntoa(arp.tpa)
    if arp.op == dpkt.arp.ARP_OP_REPLY:
        return f"Reply {sender} is-at {arp.sha.hex(':')}, length {length}"
    if arp.op != dpkt.arp.ARP_OP_REQUEST:
        return f"Unknown ({arp.op}), length {length}"
    if arp.spa == arp.tpa:
        return f"Announcement {sender}, length {length}"
    asked = f" ({arp.tha.hex(':')})" if any(arp.tha) else ""
    return f"Request who-has {target}{asked} tell {sender}, length {length}"


def describe_ip6(packet: bytes) -> str:
    """Write an IPv6 packet, which the stack does not support, by its addresses."""
    length, next_header = struct.unpack_from(">HB", packet, 4)
    src = socket.inet_ntop(socket.AF_INET6, packet[8:24])
    dst = socket.inet_ntop(socket.AF_INET6, packet[24:40])
    return f"{src} > {dst}: next-header {next_header}, length {length}"


def describe_udp(src: str, dst: str, body: bytes, length: int) -> str:
    """Write a UDP datagram."""
    if len(body) < 8:
        return f"{src} > {dst}: [|udp]"
    udp = dpkt.udp.UDP(body)
    payload = udp.ulen - 8
    problem = f"bad length {payload} > {length - 8}" if udp.ulen > length else f"length {payload}"
    return f"{src}.{udp.sport} > {dst}.{udp.dport}: UDP, {problem}"


def describe_icmp(body: bytes, length: int) -> str:
    """Write an ICMP message."""
    if len(body) < 8:
        return f"[|icmp], length {length}"
    kind, code = body[0], body[1]
    ident, seq = struct.unpack_from(">HH", body, 4)
    if kind in (0, 8):
        word = "request" if kind == 8 else "reply"
        return f"ICMP echo {word}, id {ident}, seq {seq}, length {length}"
    if kind == 3 and code in UNREACHABLE:
        return f"ICMP {describe_unreachable(code, body)}, length {length}"
    if kind == 11:
        which = {0: "time exceeded in-transit", 1: "ip reassembly time exceeded"}
        return f"ICMP {which.get(code, f'time exceeded-#{code}')}, length {length}"
    if kind == 12:
        return f"ICMP parameter problem - octet {body[4]}, length {length}"
    return f"ICMP type-#{kind}, length {length}"


def describe_unreachable(code: int, body: bytes) -> str:
    """Write what was unreachable, from the packet that the message quotes."""
    if len(body) < 36:
        return f"unreachable code {code}"
    quoted = dpkt.ip.IP(body[8:])
    ports = body[8 + quoted.hl * 4 :][:4]
    return UNREACHABLE[code].format(
        dst=socket.inet_ntoa(quoted.dst),
        proto=quoted.p,
        transport=TRANSPORT_NAMES.get(quoted.p, f"protocol {quoted.p}"),
        port=int.from_bytes(ports[2:4], "big"),
        mtu=int.from_bytes(body[6:8], "big"),
    )
