"""Programs on ustackd's stack, with real Linux peers across the TAP; what the daemon gives up."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import client_rounds, daemon_as_user, servers
from kit.lab import HOST_ADDRESS, STACK_ADDRESS, Daemon, Namespace, stop, wait_for
from ustack.cli.run import environment

CAP_NET_ADMIN = 1 << 12


@pytest.fixture(scope="module")
def clients(ns: Namespace) -> Iterator[Daemon]:
    """ustackd without services: the programs are the servers."""
    with Daemon(ns, serve="echo", tap="tap8") as running:
        yield running


@pytest.fixture(scope="module")
def page(ns: Namespace) -> Path:
    folder = ns.folder / "pages"
    folder.mkdir()
    (folder / "page").write_bytes(random.Random(1).randbytes(5_000_000))
    return folder


def under(daemon: Daemon) -> dict[str, str]:
    """Return the environment of a program that runs on ``daemon``'s stack."""
    return environment(daemon.socket_path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_linuxs_curl_fetches_from_pythons_server_on_the_stack(
    ns: Namespace, clients: Daemon, page: Path
):
    server = ("-m", "http.server", "8010", "-b", STACK_ADDRESS, "-d", str(page))
    ns.start(sys.executable, *server, env=under(clients))
    wait_for(lambda: f"{STACK_ADDRESS}:8010" in clients.cli("ss", "-lnt"), "http.server")
    url = f"http://{STACK_ADDRESS}:8010/page"
    for _ in range(3):
        ns.output("curl", "-sf", "-o", str(page / "got"), url)
        assert sha256(page / "got") == sha256(page / "page")


def test_curl_on_the_stack_fetches_from_pythons_server_on_linux(
    ns: Namespace, clients: Daemon, page: Path
):
    ns.start(sys.executable, "-m", "http.server", "8011", "-b", HOST_ADDRESS, "-d", str(page))
    wait_for(lambda: ":8011" in ns.output("ss", "-ltn"), "http.server")
    url = f"http://{HOST_ADDRESS}:8011/page"
    run = ns.run("curl", "-sf", "-o", str(page / "got"), url, env=under(clients))
    assert run.returncode == 0, run.stderr
    assert sha256(page / "got") == sha256(page / "page")
    assert f"{STACK_ADDRESS}:" in clients.cli("ss", "-ant")


@pytest.mark.parametrize("way", [(), ("-R",)])
def test_linuxs_iperf3_against_one_on_the_stack(
    ns: Namespace, clients: Daemon, way: tuple[str, ...]
):
    ns.start("iperf3", "-s", "-1", "-B", STACK_ADDRESS, "-p", "5301", env=under(clients))
    wait_for(lambda: f"{STACK_ADDRESS}:5301" in clients.cli("ss", "-lnt"), "iperf3")
    client = ("iperf3", "-c", STACK_ADDRESS, "-p", "5301", "-n", "50M", "-P", "4")
    assert "iperf Done" in ns.output(*client, *way)
    wait_for(lambda: f"{STACK_ADDRESS}:5301" not in clients.cli("ss", "-lnt"), "iperf3's end")


@contextlib.contextmanager
def serving(ns: Namespace, clients: Daemon, port: int, command: tuple[str, ...]) -> Iterator[None]:
    """Have a server on the stack while the block runs, which begins once it listens."""
    child = ns.start(*command, env=under(clients))
    address = f"{STACK_ADDRESS}:{port}"
    try:
        wait_for(lambda: address in clients.cli("ss", "-lnt"), command[0])
        yield
    finally:
        stop(child)


@pytest.mark.long
def test_linuxs_ssh_is_let_into_an_openssh_server_on_the_stack(
    ns: Namespace, clients: Daemon, tmp_path: Path
):
    """By its key: ten megabytes of a command's output, its exit status, as much input."""
    there = tmp_path, STACK_ADDRESS, 2222
    with serving(ns, clients, 2222, servers.sshd(*there)):
        data = random.Random(2).randbytes(10_000_000)
        (tmp_path / "data").write_bytes(data)
        ssh = servers.ssh(*there)
        got = ns.run(*ssh, f"cat {tmp_path}/data; exit 3", text=False)
        assert got.returncode == 3, got.stderr
        assert hashlib.sha256(got.stdout).digest() == hashlib.sha256(data).digest()
        given = ns.run(*ssh, "sha256sum", text=False, input=data)
        assert given.stdout.split()[0].decode() == sha256(tmp_path / "data")
        assert ns.output(*ssh, "echo $SSH_CONNECTION").split()[0] == HOST_ADDRESS


@pytest.mark.long
def test_linuxs_curl_fetches_from_nginx_on_the_stack(
    ns: Namespace, clients: Daemon, page: Path, tmp_path: Path
):
    with serving(ns, clients, 8012, servers.nginx(page, STACK_ADDRESS, 8012)):
        url = f"http://{STACK_ADDRESS}:8012/page"
        kept = [word for i in range(5) for word in ("-o", str(tmp_path / f"got{i}"), url)]
        ns.output("curl", "-sfZ", *kept)
        assert {sha256(path) for path in tmp_path.iterdir()} == {sha256(page / "page")}


@pytest.mark.long
def test_linuxs_redis_benchmark_on_a_redis_server_on_the_stack(ns: Namespace, clients: Daemon):
    with serving(ns, clients, 6380, servers.redis(STACK_ADDRESS, 6380)):
        bench = (servers.need("redis-benchmark"), "-h", STACK_ADDRESS, "-p", "6380", "-q")
        for pipeline in ("1", "16"):
            out = ns.output(*bench, "-n", "20000", "-c", "50", "-P", pipeline, "-t", "set,get")
            assert out.count("requests per second") == 2


@pytest.mark.long
def test_a_redis_benchmark_on_the_stack_of_linuxs_redis_server(ns: Namespace, clients: Daemon):
    ns.start(*servers.redis(HOST_ADDRESS, 6381))
    wait_for(lambda: ":6381" in ns.output("ss", "-ltn"), "redis-server")
    bench = (servers.need("redis-benchmark"), "-h", HOST_ADDRESS, "-p", "6381", "-q")
    run = ns.run(*bench, "-n", "20000", "-c", "50", "-t", "set,get", env=under(clients))
    assert run.stdout.count("requests per second") == 2, run.stderr


def test_the_daemon_serves_without_a_capability(clients: Daemon):
    for task in Path(f"/proc/{clients.process.pid}/task").iterdir():
        fields = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
        assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
        assert fields["NoNewPrivs"] == "1"


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can write to."""
    with tempfile.TemporaryDirectory(prefix="ustack-test-") as name:
        os.chmod(name, 0o777)
        yield Path(name)


def start_as(
    ns: Namespace, capabilities: int, folder: Path, tap: str, *arguments: str
) -> subprocess.Popen[bytes]:
    """Start ustackd as user 65534, who can open /dev/net/tun; return it once it is ready."""
    script = (
        "mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200 &&"
        ' exec env PYTHONPATH="$0" "$@"'
    )
    child = ns.start(
        "unshare", "--mount", "sh", "-c", script, os.pathsep.join(sys.path), sys.executable,
        daemon_as_user.__file__, "65534", hex(capabilities), "--tap", tap, "--serve", "echo",
        "--socket", str(folder / "u.sock"), *arguments, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None and child.stderr is not None
    assert b"ready" in child.stdout.readline() or child.stderr.read() == b""
    status = Path(f"/proc/{child.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert fields["Uid"].split() == ["65534"] * 4
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    return child


def test_a_user_on_a_tap_made_beforehand_needs_no_capability_at_all(ns: Namespace, public: Path):
    ns.output("ip", "tuntap", "add", "dev", "tap9", "mode", "tap", "user", "65534")
    ns.output("ip", "addr", "add", "10.0.9.1/24", "dev", "tap9")
    ns.output("ip", "link", "set", "tap9", "up")
    start_as(ns, 0, public, "tap9", "--address", "10.0.9.2/24")
    ns.ping("10.0.9.2")


def test_a_user_with_cap_net_admin_alone_makes_the_tap_and_gives_it_up(ns: Namespace, public: Path):
    net = ("--address", "10.0.13.2/24", "--host-address", "10.0.13.1/24")
    start_as(ns, CAP_NET_ADMIN, public, "tap13", *net)
    ns.ping("10.0.13.2")


def test_another_user_is_become_once_the_tap_is_there(ns: Namespace):
    with Daemon(
        ns, "--user", "65534", serve="echo", tap="tap10", address="10.0.10.2",
        host_address="10.0.10.1",
    ) as running:  # fmt: skip
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        assert "Uid:\t65534\t65534\t65534\t65534" in status
        ns.ping("10.0.10.2")


def test_rounds_of_a_real_daemon_leave_neither_descriptor_nor_device(ns: Namespace):
    program = (sys.executable, client_rounds.__file__, str(ns.folder))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = ns.run(*program, "--rounds", "1", "--clients", "20", "--tap", "tap11", env=env)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_hundred_rounds_of_a_real_daemon(ns: Namespace):
    program = (sys.executable, client_rounds.__file__, str(ns.folder))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = ns.run(*program, "--rounds", "100", "--tap", "tap12", env=env, timeout_s=7000)
    assert run.returncode == 0, run.stdout + run.stderr
