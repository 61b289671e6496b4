"""Programs that know nothing of ustack, run by ``ustack run`` on a stack in their own process.

Each prints what it has seen; the last line shows whose sockets they were. The README's table of
what works is these tests.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from apps.seen import NEEDS, SEEN

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


def test_a_script_ends_as_under_python():
    """Threads serve on, daemon threads just stop, and what it raises is told."""
    command = [sys.executable, "-m", "ustack.cli.main", "run", str(FOLDER / "ending.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "main is done\nhello\nhello\n"
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.endswith("BrokenPipeError: [Errno 32] Broken pipe\n")
    assert done.returncode == 1


def test_ctrl_c_cancels_an_asyncio_program():
    assert run("interrupted.py") == ["cancelled", "interrupted", "True"]


def seen(name: str) -> list[str]:
    """Return what a program prints on any stack; what it imports must be there."""
    for package in NEEDS.get(f"in_process/{name}", ()):
        pytest.importorskip(package)
    return SEEN[f"in_process/{name}"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost and its key, in one file."""
    key, cert = (tmp_path_factory.mktemp("tls") / name for name in ("key.pem", "cert.pem"))
    command = [*OPENSSL.split(), "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    cert.write_text(cert.read_text() + key.read_text())
    return cert


def test_http_server_socketserver_urllib_and_xmlrpc():
    assert run(name := "stdlib_http.py") == [*seen(name), "ustack.socket"]


def test_smtplib_and_ftplib():
    assert run(name := "stdlib_mail_and_ftp.py") == seen(name)


def test_asyncio_streams_datagrams_tls_signals_and_subprocesses(certificate: Path):
    name = "asyncio_all.py"
    assert run(name, str(certificate)) == [*seen(name), "ustack.socket ustack True"]


def test_blocking_tls_of_urllib_requests_and_httpx(certificate: Path):
    assert run(name := "https_blocking.py", str(certificate)) == seen(name)


def test_aiohttp_requests_httpx_uvicorn_and_websockets():
    assert run(name := "packages_web.py") == [*seen(name), "ustack.socket"]


def test_redis_py_and_asyncssh():
    assert run(name := "packages_redis_ssh.py") == seen(name)
