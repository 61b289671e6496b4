"""aiohttp, uvicorn, websockets as servers; aiohttp, requests, httpx and websockets as clients."""

import asyncio
import socket

import aiohttp
import aiohttp.web
import httpx
import requests
import uvicorn
import websockets.asyncio.client
import websockets.asyncio.server
import websockets.sync.client

LARGE = b"x" * 300_000


async def app(scope: dict, receive, send) -> None:
    """An ASGI application that says which path it was asked for."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})


async def on_uvicorn() -> None:
    server = uvicorn.Server(uvicorn.Config(app, port=8001, lifespan="off", log_level="error"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    url = "http://127.0.0.1:8001/"
    async with httpx.AsyncClient() as client:
        print("httpx", (await client.get(url + "async")).text)
    print("httpx", (await asyncio.to_thread(httpx.get, url + "sync")).text)
    print("requests", (await asyncio.to_thread(requests.get, url + "there")).text)
    server.should_exit = True
    await serving


async def on_aiohttp() -> None:
    async def large(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(body=LARGE + await request.read())

    web = aiohttp.web.Application()
    web.router.add_post("/", large)
    runner = aiohttp.web.AppRunner(web)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 8002).start()
    async with (
        aiohttp.ClientSession() as session,
        session.post("http://localhost:8002/", data=b"y" * 1000) as response,
    ):
        print("aiohttp", len(await response.read()))
    await runner.cleanup()


async def on_websockets() -> None:
    async def shout(connection: websockets.asyncio.server.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message.upper())

    def ask() -> str:
        with websockets.sync.client.connect("ws://127.0.0.1:8003") as connection:
            connection.send("from a thread")
            return connection.recv()

    async with websockets.asyncio.server.serve(shout, "127.0.0.1", 8003):
        async with websockets.asyncio.client.connect("ws://127.0.0.1:8003") as connection:
            await connection.send("hello")
            print("websockets", await connection.recv())
        print("websockets", await asyncio.to_thread(ask))


async def main() -> None:
    await on_uvicorn()
    await on_aiohttp()
    await on_websockets()


asyncio.run(main())
print(socket.socket.__module__)
