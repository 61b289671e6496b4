"""IPv4 input: every check on a header, then up to the transport (net/ipv4/ip_input.c).

``netif_receive_skb`` calls ``ip_rcv``; a packet for us goes on by ``ip_local_deliver`` to
the handler of its protocol number. Checks: RFC 791, RFC 1122 §3.2.1; counters: RFC 4293.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from ustack.core.skb import PACKET_OTHERHOST, Skb, consume_skb, kfree_skb, skb_linearize
from ustack.ipv4.options import OptionError, ip_options_compile
from ustack.ipv4.route import (
    INPUT_BROADCAST,
    INPUT_LOCAL,
    INPUT_NOT_OURS,
    InputRoute,
    ip_route_input,
)
from ustack.lib.drop_reason import DropReason
from ustack.native.checksum import ip_fast_csum
from ustack.wire.ethernet import ETH_HLEN
from ustack.wire.icmp import ICMP_DEST_UNREACH, ICMP_PARAMETERPROB, ICMP_PROT_UNREACH
from ustack.wire.ipv4 import (
    IP_HLEN,
    IP_MF,
    IP_OFFSET,
    IPPROTO_TCP,
    IPV4_HEADER,
)

if TYPE_CHECKING:
    from ustack.ipv4.protocol import Ipv4

_unpack_header = IPV4_HEADER.unpack_from
_unpack_addrs = Struct("!II").unpack_from
_PAYLOAD_AT = ETH_HLEN + IP_HLEN


def ip_addrs(skb: Skb) -> tuple[int, int]:
    """Return the source and the destination address of an IP packet."""
    addrs: tuple[int, int] = _unpack_addrs(skb.data, skb.network_offset + 12)
    return addrs


def ip_rcv(ip: Ipv4, skb: Skb) -> None:
    """Take an IPv4 frame from the device; it is consumed."""
    if skb.pkt_type == PACKET_OTHERHOST:
        kfree_skb(ip.net, skb, DropReason.OTHERHOST)
        return
    ip.mib.InReceives += 1
    data = skb.data
    length = len(skb) if skb.frags else len(data)
    ip.ext.InOctets += length - ETH_HLEN
    if length < _PAYLOAD_AT:
        _header_error(ip, skb, DropReason.HDR_TRUNC)
        return
    vihl, tos, tot_len, ident, frag, ttl, proto, csum, saddr, daddr = _unpack_header(data, ETH_HLEN)
    if vihl != 0x45:
        reason = _check_long_header(skb, vihl)
        if reason is not None:
            _header_error(ip, skb, reason)
            return
        skb.transport_offset = ETH_HLEN + (vihl & 15) * 4
    else:
        skb.transport_offset = _PAYLOAD_AT
        # The sum of a correct header is 0xffff; addition modulo 0xffff folds by itself.
        if (
            0x4500 + tos + tot_len + ident + frag + (ttl << 8) + proto + csum + saddr + daddr
        ) % 0xFFFF:
            _header_error(ip, skb, DropReason.IP_CSUM)
            return
    if length != ETH_HLEN + tot_len:
        if length < ETH_HLEN + tot_len:
            ip.ext.InTruncatedPkts += 1
            kfree_skb(ip.net, skb, DropReason.PKT_TOO_SMALL)
            return
        if ETH_HLEN + tot_len < skb.transport_offset:
            _header_error(ip, skb, DropReason.IP_INHDR)
            return
        skb_linearize(ip.net, skb)
        skb.data = skb.data[: ETH_HLEN + tot_len]  # Ethernet's padding
    if skb.frags and proto != IPPROTO_TCP:
        skb_linearize(ip.net, skb)  # only TCP reads payload in pieces
    dev = skb.dev
    assert dev is not None
    verdict = ip_route_input(ip, dev, saddr, daddr)
    if verdict is not INPUT_LOCAL and not _accept(ip, skb, verdict):
        return
    if vihl != 0x45 and not ip_rcv_options(ip, skb):
        return
    if frag & (IP_MF | IP_OFFSET):
        whole = ip.frags.ip_defrag(skb)
        if whole is None:
            return
        skb = whole
    ip_local_deliver(ip, skb, proto)


def ip_local_deliver(ip: Ipv4, skb: Skb, proto: int) -> None:
    """Hand a whole packet to its protocol, and copies to raw sockets; it is consumed."""
    handler = ip.inet_protos.get(proto)
    raw = ip.raw is not None and ip.raw.raw_local_deliver(skb, proto)
    if handler is not None:
        ip.mib.InDelivers += 1
        handler[0](skb)
    elif raw:
        ip.mib.InDelivers += 1
        consume_skb(ip.net, skb)
    else:
        _unknown_protocol(ip, skb)


def _check_long_header(skb: Skb, vihl: int) -> DropReason | None:
    """Check a header that is not version 4 and 20 bytes; return what is wrong with it."""
    ihl = (vihl & 15) * 4
    if vihl >> 4 != 4 or ihl < IP_HLEN:
        return DropReason.IP_INHDR
    if len(skb.data) < ETH_HLEN + ihl:
        return DropReason.HDR_TRUNC
    if ip_fast_csum(skb.data[ETH_HLEN : ETH_HLEN + ihl]):
        return DropReason.IP_CSUM
    return None


def _accept(ip: Ipv4, skb: Skb, verdict: InputRoute) -> bool:
    """Count a packet that is for more than us, or drop one that is not for us at all."""
    if verdict is INPUT_NOT_OURS:
        ip.mib.InAddrErrors += 1
    if verdict.reason is not None:
        kfree_skb(ip.net, skb, verdict.reason)
        return False
    if verdict is INPUT_BROADCAST:
        ip.ext.InBcastPkts += 1
        ip.ext.InBcastOctets += len(skb.data) - ETH_HLEN
    else:
        ip.ext.InMcastPkts += 1
        ip.ext.InMcastOctets += len(skb.data) - ETH_HLEN
    return True


def ip_rcv_options(ip: Ipv4, skb: Skb) -> bool:
    """Enter ourselves in the options that ask for it; source routes are refused.

    A malformed option is answered with a parameter problem (RFC 1122 §3.2.1.8). A source
    route would make us forward, or talk to whom the sender says: accept_source_route is 0.

    Returns:
        Whether the packet may go on; if not, it has been dropped.
    """
    at = skb.network_offset + IP_HLEN
    options = bytes(skb.data[at : skb.transport_offset])
    try:
        opt = ip_options_compile(ip, options, _spec_dst(ip, skb))
    except OptionError as error:
        ip.icmp.icmp_send(skb, ICMP_PARAMETERPROB, 0, error.pointer << 24)
        _header_error(ip, skb, DropReason.IP_INHDR)
        return False
    if opt.srr:
        kfree_skb(ip.net, skb, DropReason.IP_OPTIONS)
        return False
    if opt.data != options:
        skb.data = b"".join((skb.data[:at], opt.data, skb.data[skb.transport_offset :]))
    return True


def _spec_dst(ip: Ipv4, skb: Skb) -> int:
    """The address of ours that the sender means (fib_compute_spec_dst, RFC 1122 §3.2.1.3)."""
    saddr, daddr = ip_addrs(skb)
    if ip.is_local_address(daddr) or skb.dev is None:
        return daddr
    return ip.select_addr(skb.dev, saddr)


def _header_error(ip: Ipv4, skb: Skb, reason: DropReason) -> None:
    if reason is DropReason.IP_CSUM:
        ip.ext.InCsumErrors += 1
    ip.mib.InHdrErrors += 1
    kfree_skb(ip.net, skb, reason)


def _unknown_protocol(ip: Ipv4, skb: Skb) -> None:
    """RFC 1122 §3.2.2.1: protocol unreachable."""
    ip.mib.InUnknownProtos += 1
    ip.icmp.icmp_send(skb, ICMP_DEST_UNREACH, ICMP_PROT_UNREACH, 0)
    kfree_skb(ip.net, skb, DropReason.IP_NOPROTO)
