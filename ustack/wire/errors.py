"""The one exception that parsers of this package raise; each layer catches it in one place."""

from __future__ import annotations

from ustack.lib.drop_reason import DropReason


class WireError(ValueError):
    """The bytes are not what the format demands; ``reason`` is what to count."""

    def __init__(self, reason: DropReason) -> None:
        super().__init__(reason.name)
        self.reason = reason
