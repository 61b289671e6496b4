"""One daemon's sockets in several processes: shared, passed on, killed."""

from __future__ import annotations

import itertools
import os
import pickle
import random
import select
import shutil
import signal
import socket as std
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ustack
from kit import client_rounds
from ustack import socket
from ustack.cli.client import is_alive

pytestmark = pytest.mark.timeout(300)
PATIENCE_S = 60.0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Path]:
    """The control socket of a daemon in a process of its own."""
    path = tmp_path / "u.sock"
    pid = client_rounds.forked(lambda: client_rounds.daemon(path, None))
    try:
        client_rounds.until(lambda: is_alive(path), "the daemon does not start")
        ustack.connect(str(path))
        yield path
    finally:
        ustack.down()
        os.kill(pid, 15)
        assert client_rounds.wait(pid) == 0


@pytest.fixture
def pair(daemon: Path) -> Iterator[tuple[std.socket, std.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        yield client, server


def fork(work: Callable[[], None]) -> int:
    def status() -> int:
        work()
        return 0

    return client_rounds.forked(status)


def readable(sock: std.socket, wait_s: float) -> bool:
    return bool(select.select([sock], [], [], wait_s)[0])


def test_four_readers_lose_and_double_nothing(pair, tmp_path: Path):
    """Each read has a piece of the stream; the pieces of all four are the whole, once."""
    client, server = pair
    data = random.Random(4).randbytes(2_000_000)

    def read(name: str) -> None:
        client.close()
        pieces = []
        while piece := server.recv(random.randrange(64, 5000)):
            pieces.append(piece)
        (tmp_path / name).write_bytes(pickle.dumps(pieces))

    readers = [fork(lambda name=str(i): read(name)) for i in range(4)]
    server.close()
    client.sendall(data)
    client.shutdown(std.SHUT_WR)
    assert [client_rounds.wait(pid) for pid in readers] == [0] * 4
    parts = [pickle.loads((tmp_path / str(i)).read_bytes()) for i in range(4)]
    assert sum(map(bool, parts)) > 1
    assert sum(len(piece) for part in parts for piece in part) == len(data)
    # Eight random bytes are in one place only; a shorter piece is in one of the gaps.
    places = [[(data.index(p), len(p)) for p in part if len(p) >= 8] for part in parts]
    assert all(part == sorted(part) for part in places)
    ordered = sorted(place for part in places for place in part)
    assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(ordered))


def test_the_fin_goes_with_the_last_of_three_processes(pair):
    client, server = pair
    gates = [os.pipe() for _ in range(2)]

    def hold(gate: int) -> None:
        for _, writer in gates:
            os.close(writer)
        os.read(gate, 1)

    children = [fork(lambda gate=reader: hold(gate)) for reader, _ in gates]
    client.close()
    for child, (_, writer) in zip(children, gates, strict=True):
        assert not readable(server, 0.05)
        os.close(writer)
        if child == children[0]:
            assert client_rounds.wait(child) == 0
    assert readable(server, PATIENCE_S)
    assert server.recv(10) == b""
    assert client_rounds.wait(children[1]) == 0


def test_a_shutdown_by_one_process_is_a_fin_at_once_for_all(pair):
    client, server = pair
    told, tell = os.pipe()

    def child() -> None:
        os.close(tell)
        os.read(told, 1)
        with pytest.raises(BrokenPipeError):
            client.send(b"x")

    pid = fork(child)
    client.shutdown(std.SHUT_WR)
    assert server.recv(10) == b""
    os.close(tell)
    assert client_rounds.wait(pid) == 0
    os.close(told)


def test_a_connection_goes_to_one_of_the_processes_that_wait_for_it(daemon: Path, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            listener.settimeout(PATIENCE_S)
            while True:
                conn, _ = listener.accept()
                with conn:
                    conn.sendall(b"%d" % os.getpid())

        workers = [fork(serve) for _ in range(3)]
        answers = []
        for _ in range(30):
            with socket.create_connection(listener.getsockname()) as sock:
                answers.append(int(sock.makefile("rb").read()))
        for pid in workers:
            os.kill(pid, 9)
            client_rounds.wait(pid)
    assert len(answers) == 30 and set(answers) <= set(workers)


def test_multiprocessing_passes_a_socket_on(daemon: Path):
    code = (
        "import multiprocessing as mp, sys, ustack\n"
        "from ustack import socket\n"
        "def work(sock):\n"
        "    sock.sendall(b'by another process'); sock.close()\n"
        "if __name__ == '__main__':\n"
        "    listener = socket.create_server(('127.0.0.1', 0))\n"
        "    client = socket.create_connection(listener.getsockname())\n"
        "    server, _ = listener.accept()\n"
        "    p = mp.get_context('spawn').Process(target=work, args=(server,)); p.start()\n"
        "    server.close()\n"
        "    print(client.makefile().read()); p.join()\n"
    )
    program = daemon.with_name("program.py")
    program.write_text(code)
    env = {**os.environ, "USTACK_SOCKET": str(daemon)}
    run = subprocess.run(
        [sys.executable, str(program)], env=env, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert run.stdout == "by another process\n", run.stderr


def test_a_killed_daemon_is_an_error_within_a_second_and_another_one_can_be_used(tmp_path: Path):
    path = tmp_path / "u.sock"
    pid = client_rounds.forked(lambda: client_rounds.daemon(path, None))
    client_rounds.until(lambda: is_alive(path), "the daemon does not start")
    ustack.connect(str(path))
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    for blocked in (lambda: client.recv(1), listener.accept, socket.socket):
        with pytest.raises(OSError):
            blocked()
    path.unlink()
    pid = client_rounds.forked(lambda: client_rounds.daemon(path, None))
    client_rounds.until(lambda: is_alive(path), "the daemon does not start")
    with socket.create_server(("127.0.0.1", 0)) as again:
        socket.create_connection(again.getsockname()).close()
    ustack.down()
    os.kill(pid, 15)
    assert client_rounds.wait(pid) == 0
    for sock in (listener, client, server):
        sock.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_other_users_have_sockets_if_the_file_lets_them_but_no_low_ports():
    import ustack.api.remote_kinds  # now: others need not be able to read the package
    from ustack.daemon.messages import SocketsRequest, encode

    folder = Path(tempfile.mkdtemp(prefix="ustack-test-"))
    folder.chmod(0o755)
    path = folder / "u.sock"
    pid = client_rounds.forked(lambda: client_rounds.daemon(path, None))
    try:
        client_rounds.until(lambda: is_alive(path), "the daemon does not start")

        def stranger() -> None:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            with pytest.raises(PermissionError):
                ustack.connect(str(path))
            os.kill(os.getpid(), signal.SIGSTOP)  # until the file's mode has changed
            ustack.connect(str(path))
            with socket.socket() as sock:
                with pytest.raises(PermissionError):
                    sock.bind(("127.0.0.1", 80))
                sock.bind(("127.0.0.1", 8080))
            with std.socket(std.AF_UNIX, std.SOCK_SEQPACKET) as line:
                line.connect(str(path))
                line.send(encode(SocketsRequest()))
                assert b"permission denied" in line.recv(1000)

        child = fork(stranger)
        os.waitpid(child, os.WUNTRACED)
        path.chmod(0o666)
        os.kill(child, signal.SIGCONT)
        assert client_rounds.wait(child) == 0
    finally:
        os.kill(pid, 15)
        client_rounds.wait(pid)
        shutil.rmtree(folder)


def rounds(folder: Path, *options: str) -> str:
    command = [sys.executable, client_rounds.__file__, str(folder), *options]
    path = os.pathsep.join(sys.path)
    run = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_twenty_rounds_of_clients_killed_at_random_leave_nothing(tmp_path: Path):
    """Half as many clients as in the long tier: this one has some ten seconds."""
    assert "20 rounds of 25" in rounds(tmp_path, "--rounds", "20", "--clients", "25")


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_thousand_rounds(tmp_path: Path):
    assert "1000 rounds of 50" in rounds(tmp_path, "--rounds", "1000", "--seed", "1")
