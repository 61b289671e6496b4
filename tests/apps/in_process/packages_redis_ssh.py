"""redis-py, blocking and asyncio, against a server of three commands; asyncssh both ways."""

import asyncio
import threading

import asyncssh
import redis
import redis.asyncio

PORT = 6379


async def serve_redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak as much of RESP as a client needs for SET, GET and INCR."""
    while line := await reader.readline():
        words = []
        for _ in range(int(line[1:])):
            size = int((await reader.readline())[1:])
            words.append((await reader.readexactly(size + 2))[:-2])
        writer.write(reply_to(*words))
        await writer.drain()
    writer.close()


STORE: dict[bytes, bytes] = {}


def reply_to(command: bytes, *args: bytes) -> bytes:
    if command == b"SET":
        STORE[args[0]] = args[1]
    elif command == b"INCRBY":
        STORE[args[0]] = b"%d" % (int(STORE.get(args[0], b"0")) + 1)
        return b":" + STORE[args[0]] + b"\r\n"
    elif command == b"GET":
        return b"$%d\r\n%s\r\n" % (len(STORE[args[0]]), STORE[args[0]])
    elif command == b"HELLO":
        return b"-ERR unknown command\r\n"
    return b"+OK\r\n"


def blocking_client() -> tuple[bytes, int]:
    with redis.Redis(port=PORT, protocol=2) as client:
        client.set("key", b"v" * 100_000)
        threads = [threading.Thread(target=client.incr, args=("count",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return client.get("key"), int(client.get("count"))


async def main() -> None:
    server = await asyncio.start_server(serve_redis, "127.0.0.1", PORT)
    value, count = await asyncio.to_thread(blocking_client)
    print("redis", len(value), count)
    async with redis.asyncio.Redis(port=PORT, protocol=2) as client:
        print("redis.asyncio", int(await client.get("count")))
    server.close()

    class Anybody(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

    def greet(process: asyncssh.SSHServerProcess) -> None:
        process.stdout.write(f"hello {process.command}\n")
        process.exit(3)

    key = asyncssh.generate_private_key("ssh-ed25519")
    listener = await asyncssh.create_server(
        Anybody, "127.0.0.1", 8022, server_host_keys=[key], process_factory=greet
    )
    async with asyncssh.connect("127.0.0.1", 8022, known_hosts=None, username="u") as conn:
        done = await conn.run("world")
        print("asyncssh", done.stdout.strip(), done.exit_status)
    listener.close()


asyncio.run(main())
