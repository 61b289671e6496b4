"""What commands share that go on until Ctrl-C: ``tcpdump``, ``trace`` and ``ping``."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator

from ustack.cli.client import Client, ClientError
from ustack.daemon.messages import StopRequest, StreamRequest


def note(text: str) -> None:
    """Say something that is not part of the answer."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def stop_signals(client: Client, request: StreamRequest) -> Iterator[None]:
    """Send ``request``; let the first SIGINT or SIGTERM end what it asks for, the second at once.

    One that comes while the request goes out counts: the daemon is told behind the request.
    """
    sent = too_soon = False

    def stop(signum: int, frame: object) -> None:
        nonlocal too_soon
        for number in previous:
            signal.signal(number, signal.default_int_handler)
        if sent:
            tell()
        else:
            too_soon = True

    def tell() -> None:
        with contextlib.suppress(ClientError):
            client.send(StopRequest())

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, stop)
    try:
        client.send(request)
        sent = True
        if too_soon:
            tell()
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
