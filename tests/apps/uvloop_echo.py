"""An echo server and its client on uvloop, as one writes them for Linux: bytes there and back."""

from __future__ import annotations

import asyncio
import sys

import uvloop


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def main(port: int) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", port)
    async with server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"z" * 1_000_000)
        writer.write_eof()
        print(len(await reader.read()), *writer.get_extra_info("peername"), flush=True)
        writer.close()
        await writer.wait_closed()
    try:
        await asyncio.open_connection("127.0.0.1", 9)
    except ConnectionRefusedError:
        print("refused", flush=True)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
