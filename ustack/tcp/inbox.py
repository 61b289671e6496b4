"""Text that goes straight to its reader, without anybody being woken to ask for it.

A connection with a reader has the bit ``inbox`` in its control block. When a batch of segments
is through, C empties the receive queues of such connections into one buffer
(``us_tcp_fill_inbox``) and notes whose bytes lie where; ``deliver``, after the poll, hands them
out. What did not come that way (segments that were Python's, a full inbox) stays in the receive
queue, and the wait queue tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import length_hint
from struct import Struct
from typing import TYPE_CHECKING, Any, Protocol

from ustack.native.lib import ffi

if TYPE_CHECKING:
    from ustack.tcp.fast import TcpFast
    from ustack.tcp.sock import TcpSock

INBOX_BYTES = 256 * 1024
_LETTER = Struct("=III")
"""struct us_tcp_letter: generation, start, end."""


class TextReader(Protocol):
    """Who wants a connection's text."""

    def text_received(self, text: bytes, /) -> None:
        """Take it: it is in no queue any more. Called after the poll; must not raise."""


class Inbox:
    """One stack's inbox and the readers of its connections."""

    def __init__(self, fast: TcpFast) -> None:
        self._ptr = fast.ptr
        self._fast = fast
        self._letters = ffi.buffer(fast.ptr.letters)
        self._memory: Any = None
        self._text: Any = None
        self._readers: dict[int, TextReader] = {}
        """By the generation of the control block, which no other use of it has."""
        self._batch = b""
        """The letters that are being handed out, and those of them that still are to be."""
        self._mail: Iterator[tuple[int, int, int]] = iter(())

    def add(self, sk: TcpSock, reader: TextReader, paused: bool) -> None:
        """Have ``reader`` get the text of ``sk``, but for what is there already."""
        if self._memory is None:
            self._memory = ffi.new("uint8_t[]", INBOX_BYTES)
            self._text = ffi.buffer(self._memory)
            self._ptr.inbox, self._ptr.inbox_size = self._memory, INBOX_BYTES
        self._readers[sk.tp.generation] = reader
        sk.tp.inbox = not paused

    def pause(self, sk: TcpSock, paused: bool) -> None:
        """Leave the text of ``sk`` in its queue, or no longer if it has a reader."""
        sk.tp.inbox = not paused and sk.tp.generation in self._readers

    def remove(self, sk: TcpSock) -> None:
        """Forget the reader of ``sk``; what lies in the inbox for it is lost."""
        sk.tp.inbox = False
        self._readers.pop(sk.tp.generation, None)

    def close(self, sk: TcpSock) -> bool:
        """Forget the reader of ``sk``, if any; return whether there is text that it has not had."""
        generation = sk.tp.generation
        if self._readers.pop(generation, None) is None:
            return False
        left = length_hint(self._mail) * _LETTER.size
        waiting = self._batch[len(self._batch) - left :]
        waiting += self._letters[: self._ptr.nletters * _LETTER.size]
        return any(letter[0] == generation for letter in _LETTER.iter_unpack(waiting))

    def deliver(self) -> None:
        """Hand out what the last poll has brought."""
        ptr = self._ptr
        count = ptr.nletters
        if not count:
            return
        self._batch = self._letters[: count * _LETTER.size]
        self._mail = _LETTER.iter_unpack(self._batch)
        ptr.nletters = 0
        if count > 1:
            ptr.hold = 1  # the answers leave together: whom they wake has more to do
        text, readers = self._text, self._readers
        try:
            for generation, start, end in self._mail:
                reader = readers.get(generation)
                if reader is not None:
                    reader.text_received(text[start:end])
        finally:
            if count > 1:
                ptr.hold = 0
                self._fast.ring_doorbells()
