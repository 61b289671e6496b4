"""Ctrl-C while an asyncio program sleeps."""

import asyncio
import os
import signal


async def main() -> None:
    await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 8310)
    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print("cancelled")
        raise


try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
