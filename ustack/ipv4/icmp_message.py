"""A finished ICMP message: the header with its checksum, and what follows it (RFC 792)."""

from __future__ import annotations

from ustack.native.checksum import csum_fold, csum_partial
from ustack.wire.icmp import build_icmp


def icmp_message(icmp_type: int, code: int, info: int, payload: bytes) -> bytes:
    """Return a message; ``info`` is bytes 4 to 7 of its header."""
    csum = csum_fold(csum_partial(build_icmp(icmp_type, code, info) + payload))
    return build_icmp(icmp_type, code, info, csum) + payload
