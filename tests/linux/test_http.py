"""curl against the daemon's http service: content, many at once, uploads, refusal."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from kit.lab import Daemon, Namespace, wait_for

URL = "http://10.0.0.2"
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def files(www: Path) -> dict[str, str]:
    """200 different files of 1 MB; name to SHA-256."""
    digests = {}
    for index in range(200):
        data = random.Random(index).randbytes(MEGABYTE)
        (www / f"file{index}.bin").write_bytes(data)
        digests[f"file{index}.bin"] = hashlib.sha256(data).hexdigest()
    return digests


def test_200_curls_at_once_get_the_right_megabyte(
    ns: Namespace, daemon: Daemon, files: dict[str, str], tmp_path: Path
):
    """Without offloads 50, which are more segments."""
    wanted = dict(list(files.items())[: 200 if daemon.offloads else 50])
    one = f"curl -sSf --max-time 250 -o {tmp_path}/{{}} {URL}/{{}}"
    run = ns.run("xargs", "-P", "200", "-I{}", *one.split(), input="\n".join(wanted), timeout_s=280)
    assert run.returncode == 0, run.stderr
    got = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.iterdir()}
    assert got == wanted
    wait_for(lambda: not daemon.connections(), "all connections closed")


def test_a_download_is_not_copied_at_the_socket(ns: Namespace, daemon: Daemon, www: Path):
    (www / "long.bin").write_bytes(bytes(30 * MEGABYTE))
    before = bytes_sent(daemon)
    got = ns.output("curl", "-sSf", "-o", "/dev/null", "-w", "%{size_download}", f"{URL}/long.bin")
    after = bytes_sent(daemon)
    (www / "long.bin").unlink()
    assert int(got) == after["RefBytes"] - before["RefBytes"] == 30 * MEGABYTE
    assert after["CopiedBytes"] - before["CopiedBytes"] < 1000  # the answer's head


def bytes_sent(daemon: Daemon) -> dict[str, int]:
    lines = daemon.cli("nstat", "-az", "CopiedBytes", "RefBytes").splitlines()[1:]
    return {name: int(value) for name, value, _ in (line.split() for line in lines)}


def test_an_upload_arrives_whole(ns: Namespace, daemon: Daemon, tmp_path: Path):
    data = random.Random(7).randbytes(10 * MEGABYTE + 1)
    path = tmp_path / "up.bin"
    path.write_bytes(data)
    answer = ns.output("curl", "-sSf", "--max-time", "120", "-T", str(path), f"{URL}/upload")
    assert hashlib.sha256(data).hexdigest() in answer
    assert str(len(data)) in answer


def test_a_file_of_every_odd_size_comes_whole(ns: Namespace, daemon: Daemon, www: Path):
    for size in (0, 1, 535, 536, 1447, 1448, 1449, 65_535, 65_536, 65_537, 200_001):
        data = random.Random(size).randbytes(size)
        (www / f"size{size}").write_bytes(data)
        run = ns.run("curl", "-sSf", "--max-time", "60", f"{URL}/size{size}", text=False)
        assert run.returncode == 0, run.stderr
        assert run.stdout == data, f"{size} bytes, got {len(run.stdout)}"


def test_the_status_page_shows_the_counters(ns: Namespace, daemon: Daemon):
    page = ns.output("curl", "-sSf", "--max-time", "60", f"{URL}/status")
    assert "InSegs" in page or "segments received" in page


def test_a_file_that_is_not_there_is_a_404(ns: Namespace, daemon: Daemon):
    code = ns.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{URL}/nothing").stdout
    assert code == "404"


@pytest.mark.parametrize("path", ["/../secret", "/%2e%2e/secret", "//../secret"])
def test_nothing_outside_the_folder_is_served(ns: Namespace, daemon: Daemon, www: Path, path: str):
    (www.parent / "secret").write_text("not for you")
    text = ns.run("curl", "-s", "--path-as-is", f"{URL}{path}").stdout
    assert "not for you" not in text


def test_a_closed_port_refuses_at_once(ns: Namespace, daemon: Daemon):
    run = ns.run("curl", "-sS", "--max-time", "60", f"{URL}:81/")
    assert run.returncode == 7, run.stderr  # "Failed to connect to host", not "timed out"


def test_a_client_killed_in_the_middle_leaves_no_socket(
    ns: Namespace, daemon: Daemon, files: dict[str, str]
):
    client = ns.start("curl", "-sS", "-o", "/dev/null", "--limit-rate", "50k", f"{URL}/file0.bin")
    wait_for(daemon.connections, "the download's connection")
    client.kill()
    client.wait()
    wait_for(lambda: not daemon.connections(), "the killed client's socket gone")


def test_an_uploader_killed_in_the_middle_leaves_no_socket(
    ns: Namespace, daemon: Daemon, tmp_path: Path
):
    path = tmp_path / "up.bin"
    path.write_bytes(bytes(10 * MEGABYTE))
    client = ns.start("curl", "-sS", "--limit-rate", "50k", "-T", str(path), f"{URL}/upload")
    wait_for(daemon.connections, "the upload's connection")
    client.kill()
    client.wait()
    wait_for(lambda: not daemon.connections(), "the killed client's socket gone")
