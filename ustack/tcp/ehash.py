"""The established hash: connections by four-tuple, from the SYN on (inet_hashinfo.ehash).

The table and the control blocks in it are C's. A connection's ``TcpSock`` may be gone while it
idles (``park.py``): looking it up here makes it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ustack.native.lib import ffi, lib
from ustack.tcp.park import tcp_unpark

if TYPE_CHECKING:
    from ustack.tcp.protocol import FlowKey, TcpProt
    from ustack.tcp.sock import TcpSock


class EstablishedHash:
    """All connections of one stack; reads like a mapping, oldest first."""

    __slots__ = ("_prot",)

    def __init__(self, prot: TcpProt) -> None:
        self._prot = prot

    def get(self, key: FlowKey) -> TcpSock | None:
        """Return the connection with this four-tuple (__inet_lookup_established)."""
        prot = self._prot
        handle = lib.us_tcp_lookup(prot.fast.ptr, *key)
        return (prot.socks.get(handle) or tcp_unpark(prot, handle)) if handle else None

    def insert(self, sk: TcpSock) -> None:
        """Let segments find ``sk``, whose four-tuple is no other's (inet_ehash_insert)."""
        lib.us_tcp_hash(self._prot.fast.ptr, sk.tp)

    def remove(self, sk: TcpSock) -> None:
        """Undo ``insert``, if it was done (inet_unhash)."""
        lib.us_tcp_unhash(self._prot.fast.ptr, sk.tp)

    def handles(self) -> list[int]:
        """Return every connection's handle, for ``TcpProt.sock_of``."""
        ptr = self._prot.fast.ptr
        count = lib.us_tcp_hashed(ptr)
        found = ffi.new("uint64_t[]", count)
        lib.us_tcp_list(ptr, found, count)
        return sorted(found)

    def values(self) -> Iterator[TcpSock]:
        """Yield every connection, oldest first."""
        for handle in self.handles():
            yield self._prot.sock_of(handle)

    def items(self) -> Iterator[tuple[FlowKey, TcpSock]]:
        """Yield four-tuples and connections."""
        return ((sk.key, sk) for sk in self.values())

    def __getitem__(self, key: FlowKey) -> TcpSock:
        sk = self.get(key)
        if sk is None:
            raise KeyError(key)
        return sk

    def __contains__(self, key: FlowKey) -> bool:
        return bool(lib.us_tcp_lookup(self._prot.fast.ptr, *key))

    def __len__(self) -> int:
        return int(lib.us_tcp_hashed(self._prot.fast.ptr))

    def __iter__(self) -> Iterator[FlowKey]:
        return (sk.key for sk in self.values())
