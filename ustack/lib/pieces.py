"""Several buffers read as one: payload that lies in pieces, without joining it.

TCP sees the payload of a packet from lo so (the frags of ``core/skb.py``) and copies each
piece straight into the receive queue.
"""

from __future__ import annotations


class Pieces:
    """A sequence of bytes made of ``pieces``; slices share them."""

    __slots__ = ("_length", "pieces")

    def __init__(self, pieces: list[memoryview]) -> None:
        self.pieces = pieces
        self._length = sum([len(piece) for piece in pieces])

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, cut: slice) -> Pieces:
        """Return the bytes from ``cut.start`` to ``cut.stop``; there is no step."""
        start, stop, _ = cut.indices(self._length)
        pieces = []
        at = 0
        for piece in self.pieces:
            end = at + len(piece)
            if end > start and at < stop:
                pieces.append(piece[max(start - at, 0) : stop - at])
            at = end
        return Pieces(pieces)

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)
