"""What ``ustack ip`` and ``ustack tc`` have of iproute2: its exit statuses, its way with words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ustack.cli.client import ClientError, Refusal

RTNETLINK_REFUSED = 2
"""iproute2's exit status when the kernel says no."""
USAGE = 255
"""... and when it does not understand its own words."""


@contextmanager
def rtnetlink_answers() -> Iterator[None]:
    """Let what the daemon refuses be said, and end, as if the kernel had.

    Raises:
        ClientError: the daemon refuses.
    """
    try:
        yield
    except Refusal as error:
        text = str(error).removeprefix("netlink error: ")
        raise ClientError(f"RTNETLINK answers: {text}", RTNETLINK_REFUSED) from None


def behind_show(words: list[str]) -> list[str]:
    """Return the words behind ``show``, ``list`` or ``lst``, which may be short or left out."""
    if words and any(verb.startswith(words[0]) for verb in ("show", "list", "lst")):
        return words[1:]
    return list(words)
