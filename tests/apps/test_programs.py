"""Programs written for the standard modules, run on the stack: in process, and on a TAP."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

import ustack
from apps import asyncio_echo, on_ustack
from kit.lab import Namespace, tools_missing, wait_for
from ustack import aio

HERE = Path(__file__).parent
SERVERS = ["article_server.py", "thread_echo.py", "epoll_echo.py"]
PORT = 7
STACK, HOST = "10.0.0.2", "10.0.0.1"


@pytest.fixture
def loopback() -> Iterator[None]:
    with ustack.up():
        yield


@pytest.mark.parametrize("program", SERVERS)
def test_a_server_written_for_linux_serves_on_ustack_unchanged(loopback, capsys, program):
    server = on_ustack.load(program)["main"]
    client = on_ustack.load("echo_client.py")["main"]
    thread = threading.Thread(target=server, args=("127.0.0.1", PORT, 3))
    thread.start()
    wait_for(lambda: "listening" in capsys.readouterr().out, "the server")
    for size in (1, 100_000):
        assert client("127.0.0.1", PORT, 1, size)
    assert client("127.0.0.1", PORT, 1, 1_000_000)
    thread.join(60)
    assert not thread.is_alive()


def test_an_asyncio_server_runs_in_process_without_a_thread(capsys):
    async def main() -> None:
        server = asyncio.ensure_future(asyncio_echo.serve(None, None, PORT, 1))
        while "listening" not in capsys.readouterr().out:
            await asyncio.sleep(0)
        assert not [t for t in threading.enumerate() if t.name.startswith("ustack")]
        reader, writer = await aio.open_connection("127.0.0.1", PORT)
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"hello"
        writer.close()
        await server

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    if tools_missing(["ip"]):
        pytest.skip("needs root and a TAP")
    with Namespace("apps") as namespace:
        namespace.output("ip", "tuntap", "add", "dev", "tap0", "mode", "tap", "vnet_hdr")
        namespace.output("ip", "addr", "add", f"{HOST}/24", "dev", "tap0")
        namespace.output("ip", "link", "set", "tap0", "up")
        yield namespace


@pytest.mark.tap
@pytest.mark.parametrize("program", [*SERVERS, "asyncio_echo.py"])
def test_linux_clients_get_every_byte_back(ns, program):
    clients = 1 if program == "article_server.py" else 8
    command = [sys.executable, str(HERE / "on_ustack.py"), "tap0", f"{STACK}/24", program]
    if program == "asyncio_echo.py":
        command = [sys.executable, str(HERE / program), "tap0", f"{STACK}/24"]
    server = ns.start(*command, str(PORT), str(clients))
    assert server.stdout is not None
    assert server.stdout.readline() == b"listening\n"
    size = 2_000_000
    client = ns.run(sys.executable, str(HERE / "echo_client.py"), STACK, str(PORT),
                    str(clients), str(size))  # fmt: skip
    assert client.returncode == 0, client.stderr
    assert server.wait(60) == 0, server.stdout.read()


@pytest.mark.tap
def test_a_program_that_ends_at_once_has_still_sent_everything(ns):
    """Data, FIN and exit(): Linux's kernel would deliver; so does the stack before it goes."""
    size = 5_000_000
    receiver = ns.python(
        "import socket\n"
        f"listener = socket.create_server(('{HOST}', 9000))\n"
        "print('listening', flush=True)\n"
        "connection, _ = listener.accept()\n"
        "total = 0\n"
        "while data := connection.recv(65536): total += len(data)\n"
        "print(total, flush=True)\n"
    )
    assert receiver.stdout is not None
    assert receiver.stdout.readline() == b"listening\n"
    sender = ns.run(
        sys.executable, "-c",
        "import ustack\n"
        "from ustack import socket\n"
        f"ustack.up('tap0', '{STACK}/24')\n"
        f"connection = socket.create_connection(('{HOST}', 9000))\n"
        f"connection.sendall(bytes({size}))\n",
    )  # fmt: skip
    assert sender.returncode == 0, sender.stderr
    assert receiver.stdout.readline() == b"%d\n" % size


@pytest.mark.tap
def test_ctrl_c_ends_a_blocked_server_with_fin_and_without_the_stack_left_behind(ns):
    server = ns.start(
        sys.executable, str(HERE / "on_ustack.py"), "tap0", f"{STACK}/24",
        "thread_echo.py", str(PORT), "9",
    )  # fmt: skip
    assert server.stdout is not None
    assert server.stdout.readline() == b"listening\n"
    client = ns.python(
        "import socket\n"
        f"connection = socket.create_connection(('{STACK}', {PORT}))\n"
        "connection.sendall(b'x')\n"
        "print(connection.recv(1), flush=True)\n"
        "print(connection.recv(1), flush=True)\n"
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"b'x'\n"
    os.kill(server.pid, signal.SIGINT)  # ip netns exec has become the server
    assert client.stdout.readline() == b"b''\n"
    assert server.wait(60) != 0
    assert b"KeyboardInterrupt" in server.stdout.read()


@pytest.mark.tap
def test_a_forked_child_does_not_keep_the_tap(ns):
    run = ns.run(
        sys.executable, "-c",
        "import os, time, ustack\n"
        "from ustack import socket\n"
        f"handle = ustack.up('tap0', '{STACK}/24')\n"
        "said, says = os.pipe()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try: socket.socket()\n"
        "    except OSError as exc: print(exc.strerror, flush=True)\n"
        "    os.write(says, b'x')\n"
        "    time.sleep(600)\n"
        "os.read(said, 1)\n"
        "ustack.down()\n"
        f"ustack.up('tap0', '{STACK}/24')\n"
        "print('up again', flush=True)\n"
        "os.kill(pid, 9); os.waitpid(pid, 0)\n",
    )  # fmt: skip
    assert run.stdout.splitlines() == ["Network is down", "up again"], run.stderr
