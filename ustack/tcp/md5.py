"""MD5 signatures of segments, for peers that share a key (RFC 2385, TCP_MD5SIG).

A socket holds keys by address and prefix (``RareOptions.md5_keys``); a child takes its peer's
along. ``transmit.py`` leaves room in the options and has ``tcp_md5_sign`` fill it, demux.py asks
``tcp_inbound_hash`` about every segment once any socket has a key (tcp_ipv4.c, tcp.c).
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ustack.lib.drop_reason import DropReason
from ustack.lib.socket_error import socket_error
from ustack.tcp.offer import tcp_withdraw_all
from ustack.wire.tcp import MD5SIG_ROOM, TCP_HEADER_LEN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ustack.core.skb import Skb
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment

TCP_MD5SIG = 14
TCP_MD5SIG_EXT = 32
TCP_MD5SIG_FLAG_PREFIX = 1
TCP_MD5SIG_FLAG_IFINDEX = 2
TCP_MD5SIG_MAXKEYLEN = 80
AF_INET = 2
TCP_MD5SIG_STRUCT = struct.Struct("=HH4s120xBBHi80s")
"""struct tcp_md5sig: a sockaddr_storage, flags, prefix length, key length, ifindex, key."""
_PSEUDO_HEADER = struct.Struct(">IIBBH")
_CSUM = slice(16, 18)


class Md5Key(NamedTuple):
    """A key, and the peers that it is for (struct tcp_md5sig_key)."""

    addr: int
    prefixlen: int
    flags: int
    key: bytes

    def matches(self, addr: int) -> bool:
        """Whether a peer's address is one of those."""
        return not (self.addr ^ addr) >> (32 - self.prefixlen)


def tcp_v4_parse_md5_keys(sk: TcpSock, opt: int, value: int | bytes) -> None:
    """Set a peer's key, or take it away with a key of no length, in any state.

    Raises:
        OSError: EINVAL, not a struct tcp_md5sig, not IPv4, a prefix beyond 32 bits, a key
            beyond 80 bytes, an interface (there are no L3 masters); ENOENT, no such key.
    """
    if not isinstance(value, bytes) or len(value) < TCP_MD5SIG_STRUCT.size:
        raise socket_error(errno.EINVAL)
    family, _, addr, flags, prefixlen, keylen, ifindex, key = TCP_MD5SIG_STRUCT.unpack_from(value)
    extended = opt == TCP_MD5SIG_EXT
    if not (extended and flags & TCP_MD5SIG_FLAG_PREFIX):
        prefixlen = 32
    if family != AF_INET or prefixlen > 32 or keylen > TCP_MD5SIG_MAXKEYLEN:
        raise socket_error(errno.EINVAL)
    flags &= TCP_MD5SIG_FLAG_IFINDEX
    if extended and flags and ifindex:
        raise socket_error(errno.EINVAL)
    _tcp_md5_do_set(sk, Md5Key(int.from_bytes(addr, "big"), prefixlen, flags, key[:keylen]))


def _tcp_md5_do_set(sk: TcpSock, new: Md5Key) -> None:
    """tcp_md5_do_add, tcp_md5_do_del: the newest stands first, a changed one where it was."""
    keys = list(sk.opts.md5_keys)
    place = next((i for i, old in enumerate(keys) if old[:3] == new[:3]), None)
    if not new.key:
        if place is None:
            raise socket_error(errno.ENOENT)
        del keys[place]
    elif place is None:
        keys.insert(0, new)
    else:
        keys[place] = new
    tcp_md5_set_keys(sk, tuple(keys))


def tcp_md5_set_keys(sk: TcpSock, keys: tuple[Md5Key, ...]) -> None:
    """Give ``sk`` its keys; C stands aside for a socket that has any."""
    sk.opts = replace(sk.opts, md5_keys=keys)
    if keys and not sk.prot.md5_needed:
        sk.prot.md5_needed = True
        tcp_withdraw_all(sk.prot)
    sk.set_dst(sk.dst)


def tcp_md5_key_copy(child: TcpSock) -> None:
    """Leave a child only the key of its peer (tcp_v4_syn_recv_sock)."""
    key = tcp_md5_do_lookup(child, child.tp.daddr)
    own = () if key is None else (Md5Key(child.tp.daddr, 32, 0, key),)
    tcp_md5_set_keys(child, own)


def tcp_md5_do_lookup(sk: TcpSock, addr: int) -> bytes | None:
    """Return the key for a peer, that with the longest prefix; None: it need not sign."""
    best = None
    for key in sk.opts.md5_keys:
        if key.matches(addr) and (best is None or key.prefixlen > best.prefixlen):
            best = key
    return best.key if best is not None else None


def tcp_v4_md5_hash(
    key: bytes, saddr: int, daddr: int, header: bytes, payload: Iterable[bytes | memoryview] = ()
) -> bytes:
    """Return the signature of a segment (RFC 2385 §2.0).

    Args:
        header: TCP's with the options, of which only the length counts.
        payload: the text, in pieces.
    """
    pieces = list(payload)
    length = len(header) + sum([len(piece) for piece in pieces])
    digest = hashlib.md5(_PSEUDO_HEADER.pack(saddr, daddr, 0, 6, length), usedforsecurity=False)
    fixed = bytearray(header[:TCP_HEADER_LEN])
    fixed[_CSUM] = b"\0\0"
    digest.update(fixed)
    for piece in pieces:
        digest.update(piece)
    digest.update(key)
    return digest.digest()


def tcp_md5_sign(prot: TcpProt, skb: Skb, key: bytes, saddr: int, daddr: int) -> None:
    """Fill the room for a signature in a segment that is otherwise ready to go."""
    data = bytes(skb.data)
    header_len = (data[12] >> 4) * 4
    text: list[bytes | memoryview] = [data[header_len:]]
    text += [prot.net.mem.read_at(addr, n) for addr, n in skb.frags]
    digest = tcp_v4_md5_hash(key, saddr, daddr, data[:header_len], text)
    place = data.index(MD5SIG_ROOM, TCP_HEADER_LEN) + 4
    skb.data = data[:place] + digest + data[place + len(digest) :]


def tcp_inbound_hash(sk: TcpSock, seg: Segment) -> DropReason | None:
    """Say why a segment for ``sk`` is not taken: its signature is missing, unasked for, wrong.

    None: it is good, or neither is there one nor need there be.
    """
    mib = sk.prot.mib_ext
    if seg.md5sig == b"":
        return DropReason.TCP_AUTH_HDR
    key = tcp_md5_do_lookup(sk, seg.saddr)
    if key is None and seg.md5sig is None:
        return None
    if seg.md5sig is None:
        mib.TCPMD5NotFound += 1
        return DropReason.TCP_MD5NOTFOUND
    if key is None:
        mib.TCPMD5Unexpected += 1
        return DropReason.TCP_MD5UNEXPECTED
    if not tcp_md5_is_right(seg, key):
        mib.TCPMD5Failure += 1
        return DropReason.TCP_MD5FAILURE
    return None


def tcp_md5_is_right(seg: Segment, key: bytes) -> bool:
    """Whether a received segment is signed with ``key``; a super-frame never is."""
    skb = seg.skb
    if seg.md5sig is None or skb.gso_size:
        return False
    start = skb.transport_offset
    header_len = (skb.data[start + 12] >> 4) * 4
    header = bytes(skb.data[start : start + header_len])
    digest = tcp_v4_md5_hash(key, seg.saddr, seg.daddr, header, [bytes(seg.payload)])
    return hmac.compare_digest(digest, seg.md5sig)
