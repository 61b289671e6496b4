"""The stack as the client of Linux servers, in process, through the blocking socket API."""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

import pytest

from kit.lab import Namespace, wait_for

PROGRAM = Path(__file__).with_name("fetch.py")


@pytest.fixture(scope="module")
def served(ns: Namespace) -> Path:
    """The folder that python's http.server serves in the namespace, on port 8000."""
    folder = ns.folder / "served"
    folder.mkdir()
    ns.start(sys.executable, "-m", "http.server", "8000", "--directory", str(folder))
    wait_for(lambda: ":8000" in ns.output("ss", "-ltn"), "http.server")
    return folder


@pytest.mark.parametrize("size", [0, 1000, 20_000_000])
def test_a_file_is_fetched_from_pythons_http_server(ns: Namespace, served: Path, size: int):
    data = random.Random(size).randbytes(size)
    (served / "file").write_bytes(data)
    answer = ns.output(sys.executable, str(PROGRAM), "tap6", "get", "8000", "/file")
    assert answer.split() == [str(size), hashlib.sha256(data).hexdigest()]
    assert not ns.link_exists("tap6")


def test_a_connection_to_a_closed_linux_port_is_refused(ns: Namespace):
    answer = ns.output(sys.executable, str(PROGRAM), "tap6", "get", "9", "/")
    assert answer.split() == ["ConnectionRefusedError"]


def test_an_address_that_nobody_has_is_unreachable(ns: Namespace):
    answer = ns.output(sys.executable, str(PROGRAM), "tap6", "connect", "10.0.6.77", "80")
    assert answer.split() == ["OSError", "EHOSTUNREACH"]


def test_a_connect_that_takes_too_long_times_out(ns: Namespace):
    answer = ns.output(sys.executable, str(PROGRAM), "tap6", "connect", "10.0.6.77", "80", "0.2")
    assert answer.split()[0] == "TimeoutError"
