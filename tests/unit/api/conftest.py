"""Every test here has a process stack of its own with nothing but a loopback device."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
import uvloop

import ustack
from ustack import aio, socket
from ustack.config import CoreConfig, StackConfig

PORT = 8000


@pytest.fixture(autouse=True)
def stack() -> Iterator[ustack.api.stacks.StackHandle]:
    handle = ustack.up(config=StackConfig(core=CoreConfig(arena_bytes=32 << 20)))
    yield handle
    handle.close()


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", PORT)) as sock:
        yield sock


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    """A datagram socket that is bound to loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


@pytest.fixture
def pair(listener):
    """A client's socket and the server's for it."""
    client = socket.create_connection(("127.0.0.1", PORT), timeout=60)
    client.settimeout(None)
    server, _ = listener.accept()
    yield client, server
    client.close()
    server.close()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Run a coroutine function on a loop of its own, and take the loop's stack down."""

    def run(main):
        async def body():
            errors = []
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: errors.append(context))
            runtime = aio.current_runtime()
            try:
                await asyncio.wait_for(main(), 20)
            finally:
                runtime.close()
                runtime.stack.close()
            assert errors == []

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(body())

    return run


class Call:
    """A blocking call in a thread of its own."""

    def __init__(self, fn, *args):
        self.result = self.error = None
        self._fn, self._args = fn, args
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self.result = self._fn(*self._args)
        except BaseException as exc:
            self.error = exc

    def wait(self):
        """Return what the call returned, or raise what it raised."""
        self._thread.join(60)
        assert not self._thread.is_alive(), "the call does not return"
        if self.error is not None:
            raise self.error
        return self.result

    @property
    def blocked(self) -> bool:
        """Whether it has not returned yet."""
        return self._thread.is_alive()


@pytest.fixture
def calls(stack):
    """Start a call and return when it sleeps in the runtime (or has returned)."""

    def start(fn, *args):
        runtime = stack.runtime
        before = _asleep(runtime)
        call = Call(fn, *args)
        while call.blocked and _asleep(runtime) <= before:
            threading.Event().wait(0.0005)
        return call

    return start


def _asleep(runtime) -> int:
    with runtime._lock:
        leader = runtime._leader
        leads = leader is not None and leader is not runtime._background.waiter
        return len(runtime._sleepers) + int(leads and leader.asleep)
