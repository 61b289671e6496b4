"""``ustackd --impair``: Linux's own programs over a wire that loses, delays and corrupts."""

from __future__ import annotations

import hashlib
import random
import re
import statistics
import time
from pathlib import Path

import pytest

from kit.lab import Daemon, Namespace, script, wait_for

pytestmark = pytest.mark.tap


@pytest.fixture(scope="module")
def page(ns: Namespace) -> Path:
    """A folder with one megabyte in it."""
    folder = ns.folder / "bad"
    folder.mkdir()
    (folder / "page").write_bytes(random.Random(5).randbytes(1_000_000))
    return folder


def fetch(ns: Namespace) -> tuple[str, float]:
    """Return the page's digest and the seconds it took."""
    begin = time.monotonic()
    body = ns.run(
        "curl", "-sSf", "-m", "250", "http://10.0.0.2/page", text=False, timeout_s=280
    ).stdout
    return hashlib.sha256(body).hexdigest(), time.monotonic() - begin


def digest(page: Path) -> str:
    return hashlib.sha256((page / "page").read_bytes()).hexdigest()


def round_trips_ms(ns: Namespace, count: int = 10) -> list[float]:
    text = ns.ping("10.0.0.2", count=count)
    return [float(ms) for ms in re.findall(r"time=([\d.]+) ms", text)]


def is_between(least: float, most: float, ns: Namespace) -> bool:
    """Whether the usual round trip takes so long, in one of three attempts on a busy machine."""
    return any(least <= statistics.median(round_trips_ms(ns)) < most for _ in range(3))


def test_a_delay_is_there_and_back_again(ns: Namespace, page: Path):
    with Daemon(ns, "--impair", "delay=10ms", serve=f"http={page}"):
        assert is_between(20, 200, ns)
        assert fetch(ns)[0] == digest(page)


def test_one_way_alone_can_be_slow(ns: Namespace, page: Path):
    with Daemon(ns, "--impair", "delay=15ms,way=received", serve=f"http={page}"):
        assert is_between(15, 200, ns)


def test_curl_gets_every_byte_over_a_wire_that_does_everything_wrong(ns: Namespace, page: Path):
    faults = "loss=1%,duplicate=1%,reorder=1%,corrupt=0.5%,delay=2ms,jitter=1ms,seed=7"
    with Daemon(ns, "--impair", faults, serve=f"http={page}") as daemon:
        before = ns.nstat()["TcpInCsumErrors"]
        for _ in range(10):  # which frames are hit depends on how many ACKs there are
            assert fetch(ns)[0] == digest(page), daemon.log()
            put = ("-T", str(page / "page"), "http://10.0.0.2/upload")
            assert digest(page) in ns.output("curl", "-sSf", "-m", "250", *put)
            lines = daemon.cli("nstat", "-az", "TcpInCsumErrors", "TcpRetransSegs").splitlines()
            ours = [int(line.split()[1]) for line in lines[1:]]
            theirs = ns.nstat()["TcpInCsumErrors"] - before
            if theirs and all(ours):
                break
        assert theirs > 0  # the kernel saw wrong bits
        assert len(ours) == 2 and all(ours), lines
        assert "internal error" not in daemon.log()


def test_a_rate_is_what_a_download_gets(ns: Namespace, page: Path):
    with Daemon(ns, "--impair", "rate=10mbit,queue=4mb", serve=f"http={page}"):
        got, seconds = fetch(ns)
        assert got == digest(page)
        mbit = 8 / seconds
        assert 0.1 < mbit < 10, f"{mbit:.1f} Mbit/s"


def test_loss_is_counted_by_ping(ns: Namespace, page: Path):
    with Daemon(ns, "--impair", "loss=20%,way=sent,seed=3", serve=f"http={page}"):
        text = ns.run("ping", "-c", "200", "-i", "0.005", "-q", "10.0.0.2").stdout
        lost = re.search(r"(\d+(?:\.\d+)?)% packet loss", text)
        assert lost and 8 <= float(lost[1]) <= 34, text


def test_a_recording_of_the_wire_is_replayed_to_another_daemon(ns: Namespace, page: Path):
    """Five pings recorded; played back at twenty frames a second they are answered again."""
    path = str(ns.folder / "wire.pcapng")
    mac = ("--mac", "02:00:00:00:00:02")
    with Daemon(ns, "--record", path, "--impair", "delay=1ms", *mac, serve=f"http={page}"):
        assert fetch(ns)[0] == digest(page)
        assert len(round_trips_ms(ns, 5)) == 5
    listing = ns.output("tcpdump", "-n", "-r", path, "icmp")
    assert listing.count("echo request") == listing.count("echo reply") == 5
    with Daemon(ns, "--replay", path, *mac, serve=f"http={page}") as daemon:
        line = "IcmpInEchos"
        wait_for(lambda: f"{line} " in daemon.cli("nstat", line), "the replayed pings")
        wait_for(lambda: daemon.cli("nstat", line).split()[2] == "5", "all of them")
        assert fetch(ns)[0] == digest(page)


def test_a_capture_that_is_not_there_is_one_line(ns: Namespace):
    for option, path in (("--replay", "/nonexistent"), ("--record", "/nonexistent/file")):
        run = ns.run(
            script("ustackd"), "--tap", "tap7", "--address", "10.0.7.2/24", option, path,
            "--socket", str(ns.folder / "seven.sock"),
        )  # fmt: skip
        assert run.returncode == 1
        assert run.stderr.splitlines() == [f"ustackd: {path}: No such file or directory"]
