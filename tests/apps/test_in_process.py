"""Programs that know nothing of ustack, run by ``ustack run`` on a stack in their own process.

Each prints what it has seen; the last line shows whose sockets they were. The README's table of
what works is these tests.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "in_process"
OPENSSL = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
    "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
)


def run(program: str, *args: str) -> list[str]:
    """Run a program of ``in_process`` and return the lines that it prints."""
    command = [sys.executable, "-m", "ustack.cli.main", "run", str(FOLDER / program), *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost and its key, in one file."""
    key, cert = (tmp_path_factory.mktemp("tls") / name for name in ("key.pem", "cert.pem"))
    command = [*OPENSSL.split(), "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    cert.write_text(cert.read_text() + key.read_text())
    return cert


def test_http_server_socketserver_urllib_and_xmlrpc():
    assert run("stdlib_http.py") == [
        "hello", "200000", "1024", "echo", "UDP", "ConnectionRefusedError", "ustack.socket",
    ]  # fmt: skip


def test_smtplib_and_ftplib():
    assert run("stdlib_mail_and_ftp.py") == ["True", "40000"]


def test_asyncio_streams_datagrams_tls_signals_and_subprocesses(certificate: Path):
    assert run("asyncio_all.py", str(certificate)) == [
        "2000000", "DATAGRAM", "child", "thread", "secret True", "ustack.socket ustack True",
    ]  # fmt: skip


def test_aiohttp_requests_httpx_uvicorn_and_websockets():
    for name in ("aiohttp", "requests", "httpx", "uvicorn", "websockets"):
        pytest.importorskip(name)
    assert run("packages_web.py") == [
        "httpx /async", "httpx /sync", "requests /there", "aiohttp 301000",
        "websockets HELLO", "websockets FROM A THREAD", "ustack.socket",
    ]  # fmt: skip


def test_redis_py_and_asyncssh():
    for name in ("redis", "asyncssh"):
        pytest.importorskip(name)
    assert run("packages_redis_ssh.py") == [
        "redis 100000 8", "redis.asyncio 8", "asyncssh hello world 3",
    ]  # fmt: skip
