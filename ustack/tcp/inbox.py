"""Text that goes straight to its reader, without anybody being woken to ask for it.

A connection with a reader has the bit ``inbox`` in its control block. When a batch of segments
is through, C empties the receive queues of such connections into one buffer
(``us_tcp_fill_inbox``) and notes whose bytes lie where, and whose the last are; ``deliver``,
after the poll, hands them out. What did not come that way (segments that were Python's, a full
inbox) stays in the receive queue, and the reader is woken as by a wait queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import length_hint
from struct import Struct
from sys import byteorder
from typing import TYPE_CHECKING, Any, Protocol

from ustack.native.lib import ffi

if TYPE_CHECKING:
    from ustack.tcp.fast import TcpFast
    from ustack.tcp.outbox import Outbox

INBOX_BYTES = 256 * 1024
_LETTER = Struct("=IIII")
"""struct us_tcp_letter: generation, start, end, is_last."""


class TextReader(Protocol):
    """Who wants a connection's text."""

    def text_received(self, text: bytes, /) -> None:
        """Take it: it is in no queue any more. Called after the poll; must not raise."""

    def end_received(self) -> None:
        """There is no more text; called behind the last of it, after the poll; must not raise."""

    def woken(self, events: int, /) -> bool:
        """Something else has changed, in the middle of the poll (see ``WaitEntry``)."""


class Inbox:
    """One stack's inbox and the readers of its connections."""

    def __init__(self, fast: TcpFast, outbox: Outbox) -> None:
        self._outbox = outbox
        self._ptr = fast.ptr
        self._fast = fast
        self._letters = ffi.buffer(fast.ptr.letters)
        self._memory: Any = None
        self._text: Any = None
        self.readers: dict[int, TextReader] = {}
        """By the generation of the control block, which no other use of it has. Filled by ``add``,
        and for those that C has accepted for readers (``us_tcp_accept``)."""
        self._batch = b""
        """The letters that are being handed out, and those of them that still are to be."""
        self._mail: Iterator[tuple[int, ...]] = iter(())

    def open(self) -> None:
        """See to it that there is an inbox."""
        if self._memory is None:
            self._memory = ffi.new("uint8_t[]", INBOX_BYTES)
            self._text = ffi.buffer(self._memory)
            self._ptr.inbox, self._ptr.inbox_size = self._memory, INBOX_BYTES

    def add(self, tp: Any, reader: TextReader, paused: bool) -> None:
        """Have ``reader`` get the text of a connection, but for what is there already."""
        self.open()
        self.readers[tp.generation] = reader
        tp.inbox = not paused
        tp.told = True

    def reader_of(self, tp: Any) -> TextReader | None:
        """Return who reads the text of a connection."""
        return self.readers.get(tp.generation)

    def pause(self, tp: Any, paused: bool) -> None:
        """Leave the text of a connection in its queue, or no longer if it has a reader."""
        tp.inbox = not paused and tp.generation in self.readers

    def remove(self, tp: Any) -> TextReader | None:
        """Forget the reader of a connection and return it; what lies here for it is lost."""
        tp.inbox = False
        return self.readers.pop(tp.generation, None)

    def close(self, generation: int) -> bool:
        """Forget a connection's reader, if any; return whether text lies here that it has not had.

        Args:
            generation: the control block's.
        """
        self.readers.pop(generation, None)
        batch = self._batch
        if self._ptr.nletters:
            batch += self._letters[: self._ptr.nletters * _LETTER.size]
        name = generation.to_bytes(4, byteorder)
        handed = len(self._batch) - length_hint(self._mail) * _LETTER.size
        if batch.find(name, handed) < 0:
            return False
        return any(
            whose == generation and start != end
            for whose, start, end, _ in _LETTER.iter_unpack(batch[handed:])
        )

    def deliver(self) -> None:
        """Hand out what the last poll has brought."""
        ptr = self._ptr
        count = ptr.nletters
        if not count:
            return
        ptr.nletters = 0
        if count == 1:
            self._hand_out(*_LETTER.unpack_from(self._letters))
            return
        self._batch = self._letters[: count * _LETTER.size]
        self._mail = _LETTER.iter_unpack(self._batch)
        outbox = self._outbox
        ptr.hold = 1  # the answers leave together: whom they wake has more to do
        outbox.is_open = True
        try:
            for letter in self._mail:
                self._hand_out(*letter)
        finally:
            self._batch = b""
            outbox.is_open = False
            outbox.flush()
            ptr.hold = 0
            self._fast.ring_doorbells()

    def _hand_out(self, generation: int, start: int, end: int, is_last: int) -> None:
        """Give a letter to its reader, if there still is one."""
        reader = self.readers.get(generation)
        if reader is not None and start != end:
            reader.text_received(self._text[start:end])
            if is_last:
                reader = self.readers.get(generation)
        if is_last and reader is not None:
            reader.end_received()
