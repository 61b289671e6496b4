"""An echo server in process on uvloop, its stack driven by the loop itself (inline)."""

import asyncio
import sys

import uvloop

from ustack import aio


async def serve(tap: str | None, address: str | None, port: int, clients: int = 1) -> None:
    runtime = aio.up(tap, address)
    done = asyncio.get_running_loop().create_future()
    left = clients

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        left -= 1
        if not left:
            done.set_result(None)

    server = await aio.start_server(echo, None, port)
    print("listening", flush=True)
    await done
    server.close()
    await asyncio.sleep(0.2)  # the last FIN's acknowledgement
    runtime.close()
    runtime.stack.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
