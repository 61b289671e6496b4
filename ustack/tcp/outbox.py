"""Short answers to the letters of one delivery (``inbox``): several go in one call into C.

While ``Inbox.deliver`` hands text out the outbox is open. What is posted then waits until there
are LETTERS of them, or delivery is over, or somebody calls ``flush`` because his next call must
not overtake them. A text that C does not take whole is its sender's again, in order.
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import TYPE_CHECKING, Protocol

from ustack.native.lib import lib
from ustack.tcp.fast_rx import run_events
from ustack.tcp.sendmsg import tcp_may_send_now

if TYPE_CHECKING:
    from ustack.tcp.fast import TcpFast

LETTERS: int = lib.US_TCP_SEND_LETTERS
LETTER_BYTES = 4096
"""The longest text that waits for others: more is worth a call of its own."""
_ADDRESSES = [Struct(f"={n}Q{n}I") for n in range(LETTERS + 1)]
"""For so many letters: their handles, then their lengths."""


class TextSender(Protocol):
    """Who has posted a text."""

    def text_left(self, text: bytes, /) -> None:
        """Send what could not be sent now, after what was; it must not raise."""


class Outbox:
    """One stack's outbox."""

    def __init__(self, fast: TcpFast) -> None:
        self._fast = fast
        self._prot = fast.prot
        self.is_open = False
        """Texts may be posted: somebody will flush them soon."""
        self._handles: list[int] = []
        """Of the letters that wait, and below what they say and who has posted them."""
        self._texts: list[bytes] = []
        self._senders: list[TextSender] = []
        self._left: deque[tuple[TextSender, bytes]] = deque()
        """What has to go back to its sender, before anything else is sent."""

    def post(self, handle: int, text: bytes, sender: TextSender) -> int:
        """Send ``text`` soon, while the outbox is open; return its length, 0: it cannot be."""
        sk = self._prot.socks.get(handle)
        if sk is not None and not tcp_may_send_now(sk):
            return 0
        self._handles.append(handle)
        self._texts.append(text)
        self._senders.append(sender)
        if len(self._handles) >= LETTERS:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Send what waits; what does not go whole, and all behind it, is its sender's again."""
        while self._handles or self._left:
            if self._left:
                sender, text = self._left.popleft()
                sender.text_left(text)
                continue
            handles, texts, senders = self._handles, self._texts, self._senders
            self._handles, self._texts, self._senders = [], [], []
            done, taken = self._send(handles, texts)
            if done < len(handles):
                self._left.append((senders[done], texts[done][taken:]))
                self._left.extend(zip(senders[done + 1 :], texts[done + 1 :], strict=True))

    def _send(self, handles: list[int], texts: list[bytes]) -> tuple[int, int]:
        """Return how many letters C took, and how much of the next."""
        prot, fast = self._prot, self._fast
        ptr, count, text = fast.ptr, len(handles), b"".join(texts)
        result: int = lib.us_tcp_send_letters(
            ptr,
            _ADDRESSES[count].pack(*handles, *map(len, texts)),
            count,
            text,
            len(text),
            prot.clock.now_us,
            prot.ip.fib.genid,
        )
        done, taken = result & 0xFFFFFFFF, result >> 32
        prot.copied_bytes += sum(map(len, texts[:done])) + taken if done < count else len(text)
        if ptr.nevents or (ptr.doorbell and not ptr.hold):
            run_events(fast)
        return done, taken
