"""What a C struct says, to hold two runs side by side: one in which C did it, one by Python."""

from __future__ import annotations

from typing import Any

from ustack.native.lib import ffi

OWN = frozenset(
    ("place", "event", "punt_batch", "generation", "sockopts", "bind_share", "ends_plainly", "told")
)
"""Fields that say where a struct is and how it is kept, not what its connection is like."""


def fields(struct: Any) -> dict[str, Any]:
    """Return all numbers of what ``struct`` points to."""
    return {
        name: getattr(struct, name)
        for name, field in ffi.typeof(struct).item.fields
        if field.type.kind == "primitive" and name not in OWN
    }


def control_block(tp: Any) -> dict[str, Any]:
    """Return a connection's fields, what CUBIC remembers of it, and what its queues hold."""
    return {
        **fields(tp),
        "bictcp": fields(tp.bictcp) if tp.bictcp else None,
        "receive_queue": tp.receive_queue.len,
        "write_queue": tp.write_queue.len,
    }
