"""The Internet checksum in C (RFC 1071).

A sum is the ones-complement sum of big-endian 16-bit words, 0 to 0xffff; a checksum is
its complement, as a header carries it. Addresses are int in host order. The names and
what they return are those of Linux's include/net/checksum.h.
"""

from __future__ import annotations

from collections.abc import Callable

from ustack.native.lib import ffi, lib

_from_buffer = ffi.from_buffer
_csum_partial = lib.us_csum_partial
_ip_fast_csum = lib.us_ip_fast_csum

Buffer = bytes | bytearray | memoryview
"""Contiguous bytes; a memoryview has format "B"."""


def csum_partial(buf: Buffer, start: int = 0) -> int:
    """Return ``start`` plus the sum of ``buf``, whose first byte is the high half of a word.

    What follows a piece of odd length is joined by ``csum_block_add``.
    """
    data = buf if type(buf) is bytes else _from_buffer(buf)
    total: int = _csum_partial(data, len(buf), start)
    return total


def ip_fast_csum(header: Buffer) -> int:
    """Return the checksum of a whole IPv4 header: 0 if the one in it is right.

    With the checksum field zero, this is the value that belongs there.
    """
    data = header if type(header) is bytes else _from_buffer(header)
    checksum: int = _ip_fast_csum(data, len(header))
    return checksum


csum_fold: Callable[[int], int] = lib.us_csum_fold
"""csum_fold(sum): the checksum that stands for ``sum``."""

csum_block_add: Callable[[int, int, int], int] = lib.us_csum_block_add
"""csum_block_add(sum, part, offset): ``sum`` plus that of a piece that begins at ``offset``."""

csum_tcpudp_nofold: Callable[[int, int, int, int, int], int] = lib.us_csum_tcpudp_nofold
"""csum_tcpudp_nofold(saddr, daddr, length, proto, sum): ``sum`` plus the pseudo header's.

``length`` is the bytes of transport header and payload. With sum 0 it is what the
checksum field of a CHECKSUM_PARTIAL packet holds.
"""

csum_tcpudp_magic: Callable[[int, int, int, int, int], int] = lib.us_csum_tcpudp_magic
"""csum_tcpudp_magic(saddr, daddr, length, proto, sum): the checksum, pseudo header included."""
