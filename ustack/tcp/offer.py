"""What C needs to know of a listener to open its connections alone (``tcp_listen.c``).

The first child that Python makes at one of our addresses is the pattern for the next: unless
there is something about the listener that only Python knows, C answers the plain SYNs that
follow, and makes the children. Whatever changes what children are like ends that
(``tcp_withdraw``), until Python has made another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.native.lib import ffi, lib
from ustack.tcp.ecn import tcp_ca_needs_ecn
from ustack.tcp.ip_header import ip_dont_fragment
from ustack.tcp.park import closes_plainly, tcp_has_more
from ustack.tcp.reuseport import inet_listener_group

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock

SYNCOOKIES_ALWAYS = 2


def tcp_offer(lsk: TcpSock, child: TcpSock) -> None:
    """Let C make children of ``lsk`` like ``child``, which is new, if it may."""
    queues = lsk.listen
    tp = child.tp
    if queues is None or tp.saddr in queues.offers or not _is_plain(lsk, child):
        return
    prot = lsk.prot
    number = prot.parking.number_of(child)
    if number is None:
        return
    offer = queues.offers[tp.saddr] = ffi.new("struct us_tcp_offer *")
    ffi.memmove(ffi.addressof(offer, "child"), tp, ffi.sizeof("struct us_tcp_sock"))
    offer.child.sockopts = number
    offer.child.ends_plainly = closes_plainly(child)
    offer.listen = queues.c
    lib.us_tcp_offer_add(prot.fast.ptr, offer)


def _is_plain(lsk: TcpSock, child: TcpSock) -> bool:
    """Whether nothing about the listener or its children is Python's business."""
    prot = lsk.prot
    queues = lsk.listen
    assert queues is not None
    tp = child.tp
    if queues.table is not None or queues.defer_accept:
        return False
    if prot.config.tcp_syncookies == SYNCOOKIES_ALWAYS or prot.config.tcp_reflect_tos:
        return False
    if prot.md5_needed or not ip_dont_fragment(lsk) or tcp_ca_needs_ecn(lsk):
        return False
    if child.keepopen or child.upcall is not None or child.ca_priv is not None:
        return False
    if tp.slow or not tp.ca_kind or tp.ecn_flags or not tp.bind_share:
        return False
    if tcp_has_more(child):
        return False
    return len(inet_listener_group(prot, tp.saddr, tp.sport)) == 1


def tcp_withdraw(lsk: TcpSock) -> None:
    """Let Python make the next child of ``lsk``, which may be a listener."""
    if lsk.listen is None or not lsk.listen.offers:
        return
    for offer in lsk.listen.offers.values():
        lib.us_tcp_offer_remove(lsk.prot.fast.ptr, offer)
    lsk.listen.offers.clear()


def tcp_withdraw_all(prot: TcpProt, port: int | None = None) -> None:
    """Let Python make the next child of every listener, or of those on one port."""
    for (_, their_port), group in prot.listening_hash.items():
        if port is None or port == their_port:
            for lsk in group:
                tcp_withdraw(lsk)
