"""asyncio on ustack: streams and transports straight on the stack, in the loop's own thread."""

from ustack.api.aio import (
    create_connection,
    create_datagram_endpoint,
    create_server,
    current_runtime,
    open_connection,
    start_server,
    up,
)
from ustack.api.aio_tls import start_tls
from ustack.runtime.inline import InlineRuntime

__all__ = [
    "InlineRuntime",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "current_runtime",
    "open_connection",
    "start_server",
    "start_tls",
    "up",
]
