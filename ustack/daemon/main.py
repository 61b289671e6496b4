"""``ustackd``: run a stack on a TAP until SIGTERM or SIGINT.

Prints one line on stdout once it serves, so that scripts know when to begin. What goes wrong
before that is one line on stderr and exit status 1, or 2 if the command line is wrong.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence

import uvloop

from ustack.daemon.options import DaemonOptions, parse_options
from ustack.daemon.startup import Daemon, StartError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon; the console script ``ustackd``.

    Returns:
        0 after a signal, 1 if it could not start or the TAP was deleted.
    """
    options = parse_options(argv)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(options))


async def serve(options: DaemonOptions) -> int:
    """Start, say so, wait for a signal, stop; returns the exit status."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    daemon = Daemon(options)
    starting = asyncio.ensure_future(daemon.start())
    stop_asked = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait((starting, stop_asked), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            print(ready_line(options), flush=True)
            await asyncio.wait((daemon.lost, stop_asked), return_when=asyncio.FIRST_COMPLETED)
        if daemon.lost.done():
            print(f"ustackd: {daemon.lost.result().strerror}", file=sys.stderr)
            return 1
        return 0
    except StartError as error:
        print(f"ustackd: {error}", file=sys.stderr)
        return 1
    finally:
        for task in (starting, stop_asked):
            task.cancel()
        await asyncio.gather(starting, stop_asked, return_exceptions=True)
        await daemon.stop()


def ready_line(options: DaemonOptions) -> str:
    """Return what is printed once packets are answered."""
    return f"ustackd: {options.tap} {options.address} ready (control {options.control_path})"


if __name__ == "__main__":
    sys.exit(main())
