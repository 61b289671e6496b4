"""Many connections to an echo server at once: ``multi_client.py ADDRESS CONNECTIONS ROUNDS``.

Each sends a message of its own every round and wants it back; prints "ok" at the end.
"""

from __future__ import annotations

import asyncio
import sys


async def talk(address: str, number: int, rounds: int) -> None:
    reader, writer = await asyncio.open_connection(address, 7)
    for turn in range(rounds):
        message = f"{number} {turn} ".encode() * 100
        writer.write(message)
        assert await reader.readexactly(len(message)) == message
    writer.close()
    await writer.wait_closed()


async def main(address: str, connections: int, rounds: int) -> None:
    await asyncio.gather(*[talk(address, number, rounds) for number in range(connections)])
    print("ok")


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
