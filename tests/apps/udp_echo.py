"""UDP by an event loop, which may be asyncio's own or uvloop's: an echo and who asks it.

    udp_echo.py PORT [uvloop]

Prints what came back, and what a port where nobody is says.
"""

import asyncio
import sys


class Echo(asyncio.DatagramProtocol):
    """Sends back what comes, in capitals."""

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(data.upper(), addr)


class Asker(asyncio.DatagramProtocol):
    """Hears answers and errors."""

    def __init__(self):
        self.heard = asyncio.Queue()

    def datagram_received(self, data, addr):
        self.heard.put_nowait((data, addr[1]))

    def error_received(self, exc):
        self.heard.put_nowait(type(exc).__name__)


async def main(port):
    loop = asyncio.get_running_loop()
    echo, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", port))
    transport, asker = await loop.create_datagram_endpoint(Asker, remote_addr=("127.0.0.1", port))
    for data in (b"one", b"two" * 3000):
        transport.sendto(data)
        answer, origin = await asyncio.wait_for(asker.heard.get(), 30)
        print(answer[:3].decode(), len(answer), origin)
    echo.abort()
    async with asyncio.timeout(30):
        while asker.heard.empty():  # until it is closed, whoever has to hear of it
            transport.sendto(b"anybody?")
            await asyncio.sleep(0.05)
    print(asker.heard.get_nowait())
    transport.close()


if __name__ == "__main__":
    if sys.argv[2:] == ["uvloop"]:
        import uvloop

        uvloop.install()
    asyncio.run(main(int(sys.argv[1])))
