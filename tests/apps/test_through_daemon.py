"""The programs of ``test_in_process`` on a daemon's stack, in two ways.

Unmodified under the preload library, and with ``ustack.connect()`` and ``ustack.install()``.
With that file's this is the README's table of what works.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.seen import NEED_CERTIFICATE, NEEDS, SEEN
from kit.calls_daemon import CallsDaemon
from kit.lab import Namespace, tools_missing
from ustack.cli.run import environment
from ustack.config import StackConfig, TcpConfig

pytestmark = pytest.mark.timeout(180)
HERE = Path(__file__).parent
CERTIFICATE = HERE / "localhost.pem"
PATIENCE_S = 150.0
HEAVY = ("in_process/packages_web.py", "in_process/packages_redis_ssh.py")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CallsDaemon]:
    config = StackConfig(tcp=TcpConfig(tcp_fastopen=3))
    with CallsDaemon(tmp_path_factory.mktemp("daemon") / "u.sock", config=config) as daemon:
        yield daemon


def run(daemon: CallsDaemon, program: str, *, preload: bool) -> list[str]:
    """Run a program; return the lines that it prints. It must have used the daemon's stack."""
    for package in NEEDS.get(program, ()):
        pytest.importorskip(package)
    words = [str(HERE / program), *([str(CERTIFICATE)] if program in NEED_CERTIFICATE else [])]
    if not preload:
        words = [str(HERE / "on_daemon.py"), str(daemon.path), *words]
    env = environment(daemon.path) if preload else {**os.environ}
    before = opened(daemon)
    done = subprocess.run(
        [sys.executable, *words], env=env, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert opened(daemon) > before
    return done.stdout.splitlines()


def opened(daemon: CallsDaemon) -> int:
    return int(daemon.ask(lambda: daemon.stack.net.mib.tcp.PassiveOpens))


def quick(preload: bool) -> list[object]:
    """The programs of one way, those marked that take long."""
    long = [
        name in HEAVY or not (preload or name == "in_process/https_blocking.py") for name in SEEN
    ]
    return [
        pytest.param(name, marks=pytest.mark.long if slow else ())
        for name, slow in zip(SEEN, long, strict=True)
    ]


@pytest.mark.parametrize("program", quick(preload=True))
def test_unmodified_under_the_preload_library(daemon: CallsDaemon, program: str):
    assert run(daemon, program, preload=True)[: len(SEEN[program])] == SEEN[program]


@pytest.mark.parametrize("program", quick(preload=False))
def test_after_connect_and_install(daemon: CallsDaemon, program: str):
    lines = run(daemon, program, preload=False)
    assert lines[: len(SEEN[program])] == SEEN[program]
    assert all(line.startswith("ustack.socket") for line in lines[len(SEEN[program]) :])


@pytest.fixture(scope="module")
def linux() -> list[str]:
    """What Linux says to ``tcp_calls.py``, in a namespace of its own."""
    if tools_missing(["ip"]):
        pytest.skip("needs root")
    with Namespace("tcp-calls") as namespace:
        namespace.sysctl("net.ipv4.tcp_fastopen", 3)
        return namespace.output(sys.executable, str(HERE / "tcp_calls.py")).splitlines()


@pytest.mark.tap
@pytest.mark.parametrize("preload", [True, False], ids=["preload", "install"])
def test_calls_that_a_bare_descriptor_cannot_do_give_what_they_give_on_linux(
    daemon: CallsDaemon, linux: list[str], preload: bool
):
    assert run(daemon, "tcp_calls.py", preload=preload) == linux


@pytest.mark.long
def test_redis_py_against_redis_server(daemon: CallsDaemon):
    pytest.importorskip("redis")
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    env = environment(daemon.path)
    words = ("redis-server", "--port", "6390", "--bind", "127.0.0.1", "--save", "")
    code = (
        "import redis, time\n"
        "c = redis.Redis(port=6390, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.1),"
        " 300))\n"
        "with c.pipeline() as p:\n"
        "    for i in range(1000): p.rpush('list', bytes(100))\n"
        "    p.execute()\n"
        "s = c.pubsub(); s.subscribe('news'); s.get_message(timeout=10); c.publish('news', 'x')\n"
        "print(c.llen('list'), s.get_message(timeout=10)['data'])\n"
    )
    server = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL)
    try:
        client = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True,
            timeout=PATIENCE_S,
        )  # fmt: skip
    finally:
        server.terminate()
        server.wait(PATIENCE_S)
    assert client.stdout == "1000 b'x'\n", client.stderr
