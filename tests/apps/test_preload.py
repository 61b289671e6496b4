"""Unmodified programs under the preload library: both ends on a daemon's loopback.

That it is the stack that they use, and not the kernel, is seen from the stack's own counters.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit import servers
from kit.calls_daemon import CallsDaemon
from kit.lab import Namespace
from kit.servers import need
from ustack.cli.run import environment

pytestmark = pytest.mark.timeout(120)
HERE = Path(__file__).parent
PATIENCE_S = 60.0


class Programs:
    """Runs programs on a daemon's stack; what is started is ended with the test."""

    def __init__(self, daemon: CallsDaemon) -> None:
        self.daemon = daemon
        self.env = environment(daemon.path)

    def run(self, *command: str, **options: Any) -> str:
        """Run a program to its end; it must succeed. Returns what it printed."""
        if "input" not in options:
            options["stdin"] = subprocess.DEVNULL
        run = subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=PATIENCE_S, **options
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    @contextlib.contextmanager
    def start(self, *command: str, port: int = 0) -> Iterator[subprocess.Popen[str]]:
        """Run a program while the block runs, which begins once it listens on ``port``."""
        child = subprocess.Popen(
            command, env=self.env, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, process_group=0,
        )  # fmt: skip
        try:
            self.wait_for(lambda: not port or self.listens(port), command[0])
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
            output, _ = child.communicate(timeout=PATIENCE_S)
            print(output)

    def listens(self, port: int) -> bool:
        rows = self.daemon.ask(self.daemon.stack.tcp.diag)
        return any(r["state"] == "LISTEN" and r["local"][1] == port for r in rows)

    def datagram_sockets(self) -> int:
        return len(self.daemon.stack.inet.diag(["udp"]))

    def wait_for(self, done: Any, what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < end, f"{what}: not in {PATIENCE_S:g} s"
            time.sleep(0.01)

    def opened(self) -> int:
        """Return how many connections the stack has accepted."""
        return int(self.daemon.ask(lambda: self.daemon.stack.net.mib.tcp.PassiveOpens))


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    with CallsDaemon(tmp_path / "u.sock") as daemon:
        yield Programs(daemon)


def test_curl_fetches_from_pythons_http_server(programs: Programs, tmp_path: Path):
    (tmp_path / "page").write_bytes(os.urandom(300_000))
    server = (sys.executable, "-m", "http.server", "-b", "127.0.0.1", "-d", str(tmp_path), "8000")
    with programs.start(*server, port=8000):
        url = "http://127.0.0.1:8000/"
        programs.run("curl", "-sf", "-o", str(tmp_path / "got"), url + "page")
        missing = programs.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url + "none")
    assert (tmp_path / "got").read_bytes() == (tmp_path / "page").read_bytes()
    assert missing == "404"
    assert programs.opened() == 2


def test_netcat_serves_and_calls(programs: Programs):
    with programs.start("nc", "-l", "127.0.0.1", "7777", port=7777) as server:
        programs.run("nc", "-N", "127.0.0.1", "7777", input="a line\n")
        assert server.stdout is not None and server.stdout.readline() == "a line\n"
        assert server.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("way", [(), ("-R",)])
def test_iperf3_in_both_roles(programs: Programs, way: tuple[str, ...]):
    with programs.start("iperf3", "-s", "-1", "-B", "127.0.0.1", port=5201):
        client = ("iperf3", "-c", "127.0.0.1", "-n", "20M", "-P", "2")
        assert "iperf Done" in programs.run(*client, *way)


def test_a_server_in_c_with_epoll(programs: Programs, tmp_path: Path):
    subprocess.run(["cc", "-o", tmp_path / "server", HERE / "epoll_echo.c"], check=True)
    with programs.start(str(tmp_path / "server"), "9000", port=9000):
        text = "".join(f"line {i}\n" for i in range(20_000))
        for _ in range(3):
            assert programs.run("nc", "-N", "127.0.0.1", "9000", input=text) == text


def test_uvloop_which_makes_its_system_calls_itself(programs: Programs):
    out = programs.run(sys.executable, str(HERE / "uvloop_echo.py"), "9100")
    assert out == "1000000 127.0.0.1 9100\nrefused\n"


def test_netcat_speaks_udp_in_both_roles(programs: Programs):
    with programs.start("nc", "-u", "-l", "127.0.0.1", "7778") as server:
        programs.wait_for(lambda: programs.daemon.ask(programs.datagram_sockets), "nc -u -l")
        programs.run("nc", "-u", "-q", "0", "127.0.0.1", "7778", input="a datagram\n")
        assert server.stdout is not None and server.stdout.readline() == "a datagram\n"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_datagram_endpoints_of_event_loops(programs: Programs, loop: str):
    out = programs.run(sys.executable, str(HERE / "udp_echo.py"), "7780", loop)
    assert out == "ONE 3 7780\nTWO 9000 7780\nConnectionRefusedError\n"


def test_every_call_for_udp_gives_what_it_gives_on_linux(programs: Programs, tmp_path: Path):
    program = tmp_path / "udp_calls"
    subprocess.run(["cc", "-o", program, HERE / "udp_calls.c"], check=True)
    with Namespace("udp-calls") as namespace:
        linux = namespace.output(str(program))
    assert programs.run(str(program)) == linux


def test_iperf3_sends_udp(programs: Programs):
    with programs.start("iperf3", "-s", "-1", "-B", "127.0.0.1", port=5201):
        out = programs.run("iperf3", "-u", "-c", "127.0.0.1", "-b", "2M", "-t", "1", "-l", "1000")
    assert "iperf Done" in out and "(0%)" in out


def test_other_sockets_stay_the_kernels(programs: Programs):
    code = (
        "import socket;"
        "a = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); a.bind('');"
        "print(a.getsockname()[:1])"
    )
    assert programs.run(sys.executable, "-c", code) == "b'\\x00'\n"
    assert programs.daemon.ask(lambda: len(programs.daemon.hub)) == 0


def test_without_a_daemon_a_program_is_told_at_once(tmp_path: Path):
    env = environment(tmp_path / "nobody.sock")
    command = [need("curl"), "-s", "http://127.0.0.1:1/"]
    run = subprocess.run(command, env=env, capture_output=True, timeout=PATIENCE_S)
    assert run.returncode == 7  # couldn't connect


def test_a_killed_program_is_a_close_of_what_it_held(programs: Programs):
    code = (
        "import socket, time;"
        "l = socket.create_server(('127.0.0.1', 9200));"
        "c = socket.create_connection(('127.0.0.1', 9200)); s, _ = l.accept();"
        "print('ready', flush=True); time.sleep(600)"
    )
    with programs.start(sys.executable, "-c", code, port=9200) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        assert programs.daemon.ask(lambda: len(programs.daemon.hub)) == 3
        child.kill()
        programs.wait_for(lambda: not programs.daemon.ask(lambda: len(programs.daemon.hub)), "end")
    assert "LISTEN" not in programs.daemon.states()


def test_a_server_whose_daemon_has_gone_is_told_once_and_then_waits_at_each_accept(tmp_path: Path):
    code = (
        "import errno, select, socket, time\n"
        "def accept(sock):\n"
        "    try: sock.accept()\n"
        "    except OSError as error: return errno.errorcode[error.errno]\n"
        "server = socket.create_server(('127.0.0.1', 9300)); copy = server.dup()\n"
        "shut = socket.create_server(('127.0.0.1', 9301)); shut.shutdown(socket.SHUT_RD)\n"
        "print('ready', flush=True); select.select([server], [], [])\n"
        "print([accept(sock) for sock in (server, copy, server, shut)])\n"
        "begin = time.monotonic()\n"
        "for _ in range(5): accept(server)\n"
        "print(time.monotonic() - begin > 0.04)\n"
    )
    with CallsDaemon(tmp_path / "u.sock") as daemon:
        child = subprocess.Popen(
            [sys.executable, "-c", code], env=environment(daemon.path), text=True,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    assert child.communicate(timeout=PATIENCE_S)[0] == (
        "['ENETDOWN', 'ENFILE', 'ENFILE', 'EINVAL']\nTrue\n"
    )


@pytest.mark.long
def test_redis_under_its_own_benchmark(programs: Programs):
    with programs.start(*servers.redis("127.0.0.1", 6399), port=6399):
        bench = (need("redis-benchmark"), "-h", "127.0.0.1", "-p", "6399", "-n", "5000")
        out = programs.run(*bench, "-c", "20", "-q", "-t", "set,get")
        out += programs.run(*bench, "-c", "20", "-P", "16", "-q", "-t", "set,get")
    assert out.count("requests per second") == 4
    assert programs.opened() >= 40


@pytest.mark.long
def test_nginx_with_two_workers(programs: Programs, tmp_path: Path):
    (tmp_path / "page").write_bytes(os.urandom(2_000_000))
    with programs.start(*servers.nginx(tmp_path, "127.0.0.1", 8081), port=8081):
        for i in range(10):
            got = tmp_path / f"got{i}"
            programs.run("curl", "-sf", "-o", str(got), "http://127.0.0.1:8081/page")
            assert got.read_bytes() == (tmp_path / "page").read_bytes()


@pytest.mark.long
def test_an_openssh_server_and_client(programs: Programs, tmp_path: Path):
    there = tmp_path, "127.0.0.1", 2222
    with programs.start(*servers.sshd(*there), port=2222):
        ssh = servers.ssh(*there)
        assert programs.run(*ssh, "wc -c", input="x" * 3_000_000).strip() == "3000000"
        assert len(programs.run(*ssh, "yes | head -c 3000000")) == 3_000_000


def test_the_librarys_descriptor_survives_a_program_that_closes_all_it_does_not_know(
    programs: Programs,
):
    code = (
        "import os, socket;"
        "a = socket.socket(); os.closerange(max(a.fileno(), 2) + 1, 1024);"
        "fds = [os.open('/dev/null', os.O_RDONLY) for _ in range(250)];"
        "b = socket.socket(); b.bind(('127.0.0.1', 0)); print(b.getsockname()[0])"
    )
    assert programs.run(sys.executable, "-c", code) == "127.0.0.1\n"
