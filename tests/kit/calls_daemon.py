"""A daemon's socket calls without a TAP: loopback only, on an event loop in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvloop

import ustack
from ustack.config import StackConfig
from ustack.daemon.calls import CallServer, PortRule
from ustack.daemon.control import OWNER_ONLY, ControlServer, SocketAccess
from ustack.daemon.join_hub import JoinHub
from ustack.runtime.clock import monotonic_us
from ustack.runtime.inline import InlineRuntime
from ustack.stack import Stack


class CallsDaemon:
    """What ustackd does for its clients' sockets; a context manager.

    Args:
        path: where its control socket is.
        options: ``client_sockets`` and ``sockets`` as ``JoinHub``'s.
    """

    def __init__(
        self, path: Path, *, access: SocketAccess = OWNER_ONLY, privileged: bool = True,
        config: StackConfig | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self.path = path
        self._access = access
        self._privileged = privileged
        self._config = config
        self._options = options
        self.faults: list[dict[str, Any]] = []
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True)

    def __enter__(self) -> CallsDaemon:
        self._thread.start()
        assert self._started.wait(30)
        return self

    def __exit__(self, *exc: object) -> None:
        self.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(30)
        assert not self._thread.is_alive()
        assert self.faults == []

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda loop, context: self.faults.append(context))
        self._stopping = asyncio.Event()
        self.stack = Stack(self._config, rng=random.SystemRandom(), now_us=monotonic_us())
        self.runtime = InlineRuntime(self.stack, self.loop)
        self.hub = JoinHub(self.runtime, **self._options)
        below = 1024 if self._privileged else 65536
        ports = PortRule(lambda: below)
        self.control = ControlServer(
            self.path, no_answer, no_stream, calls=CallServer(self.hub, ports), access=self._access
        )
        self.control.start(self.loop)
        self._started.set()
        await self._stopping.wait()
        self.hub.close()
        self.control.close()
        self.runtime.close()
        self.stack.close()

    def ask(self, question: Callable[[], Any]) -> Any:
        """Return what ``question`` says in the daemon's own thread."""

        async def asked() -> Any:
            return self.runtime.call(question)

        return asyncio.run_coroutine_threadsafe(asked(), self.loop).result(30)

    def states(self) -> list[str]:
        """Return the state of every connection, as ``ss`` names them."""
        return sorted(row["state"] for row in self.ask(self.stack.tcp.diag))


@contextlib.contextmanager
def connected(path: Path, **options: Any) -> Iterator[CallsDaemon]:
    """Run a daemon whose sockets ``ustack.socket`` gives while the block runs."""
    with CallsDaemon(path, **options) as daemon:
        ustack.connect(str(path))
        try:
            yield daemon
        finally:
            ustack.down()


def no_answer(request: object) -> Iterator[bytes]:
    raise LookupError("no views here")


def no_stream(request: object, notify: object) -> Any:
    raise ValueError("no streams here")
