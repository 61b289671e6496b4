"""The real Linux side: network namespaces of our own, processes in them, a running ustackd.

Whatever is started here is ended here, by its process id, when the ``with`` block is left by
any way. Traffic stays inside the namespace. New namespaces begin with the machine's default
congestion control; ours say which one they use (``CONGESTION_CONTROL``).
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ustack.cli.main import main as ustack_main

HOST_ADDRESS = "10.0.0.1"
STACK_ADDRESS = "10.0.0.2"
CONGESTION_CONTROL = "reno"
CI = bool(os.environ.get("CI"))
INTERRUPTED = 130
"""What ``ustack`` says after Ctrl-C."""
PATIENCE_S = 60.0
"""How long anything may take before it counts as hanging, on a machine however busy."""


class LabError(RuntimeError):
    """The machine did not do what the lab needs; the text says what."""


def wait_for(done: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """Return the first true value of ``done()``, asked every 10 ms.

    Raises:
        LabError: it did not come true in ``timeout_s``.
    """
    end = time.monotonic() + timeout_s
    while not (value := done()):
        if time.monotonic() > end:
            raise LabError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.01)
    return value


def _run(*command: str) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise LabError(f"{' '.join(command)}: {run.stderr.strip() or run.returncode}")
    return run.stdout


class Namespace:
    """One network namespace; a context manager."""

    def __init__(self, label: str = "h") -> None:
        self.name = f"ustack-{label}-{os.getpid()}-{secrets.token_hex(3)}"
        self.folder = Path()
        self._children: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Namespace:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        try:
            _run("ip", "netns", "add", self.name)
            self.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
            self.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
            self.sysctl("net.ipv4.tcp_congestion_control", CONGESTION_CONTROL)
            self.output("ip", "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End what was started here, delete the namespace and its folder."""
        for child in reversed(self._children):
            stop(child)
        if self.name in _run("ip", "netns", "list"):
            for pid in _run("ip", "netns", "pids", self.name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)  # a child of one of our children
            _run("ip", "netns", "delete", self.name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, *command: str) -> list[str]:
        """Return the command that runs ``command`` in here."""
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, *command: str, timeout_s: float = 2 * PATIENCE_S, **options: Any) -> Any:
        """Run a command to its end, output captured as text; its exit status is not checked."""
        options = {"stdin": subprocess.DEVNULL, "text": True, **options}
        if "input" in options:
            del options["stdin"]
        return subprocess.run(
            self.command(*command), capture_output=True, timeout=timeout_s, check=False, **options
        )

    def output(self, *command: str, timeout_s: float = 2 * PATIENCE_S) -> str:
        """Run a command that must succeed and return what it printed."""
        run = self.run(*command, timeout_s=timeout_s)
        if run.returncode:
            raise LabError(f"{' '.join(command)}: exit {run.returncode}\n{run.stdout}{run.stderr}")
        return str(run.stdout)

    def start(self, *command: str, **options: Any) -> subprocess.Popen[Any]:
        """Start a command in the background; it is ended with the namespace."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
                   "stderr": subprocess.STDOUT, **options}  # fmt: skip
        child = subprocess.Popen(self.command(*command), **options)
        self._children.append(child)
        return child

    def python(self, code: str, *args: str, **options: Any) -> subprocess.Popen[Any]:
        """Start a Python program given as text."""
        return self.start(sys.executable, "-c", code, *args, **options)

    @contextlib.contextmanager
    def serving(self, *command: str, **options: Any) -> Iterator[subprocess.Popen[Any]]:
        """Have a program run during the block that prints "ready" first; it is then ended."""
        child = self.start(*command, text=True, **options)
        try:
            assert child.stdout is not None
            if (line := child.stdout.readline()) != "ready\n":
                raise LabError(f"{' '.join(command)}: {line}{child.stdout.read()}")
            yield child
        finally:
            stop(child)

    def sysctl(self, name: str, value: int | str) -> None:
        """Set a sysctl of this namespace."""
        path = "/proc/sys/" + name.replace(".", "/")
        self.output("sh", "-c", f"echo {value} > {path}")

    def nstat(self) -> dict[str, int]:
        """Return the kernel's counters in here, as ``TcpInCsumErrors``."""
        values: dict[str, int] = {}
        lines = self.output("cat", "/proc/net/snmp", "/proc/net/netstat").splitlines()
        for names, numbers in zip(lines[::2], lines[1::2], strict=True):
            table, *keys = names.replace(":", "").split()
            values |= {table + k: int(v) for k, v in zip(keys, numbers.split()[1:], strict=True)}
        return values

    def ping(self, address: str, *options: str, count: int = 1) -> str:
        """Have Linux's ping send requests, each when the one before is answered; what it printed.

        With ``-c 3`` ping itself would give the last one no more than its interval.

        Raises:
            LabError: one is not answered.
        """
        one = ("ping", "-c", "1", "-W", f"{PATIENCE_S:g}", *options, address)
        return "".join(self.output(*one) for _ in range(count))

    def flood(self, address: str, count: int, *options: str) -> int:
        """Have Linux's ping -f send ``count`` requests; return how many replies have come.

        Up to 50 are on their way at a time, so that nobody has to wait for a turn with each. The
        kernel counts: ping's own socket may be full while ping waits for a processor.
        """
        before = self.nstat()["IcmpInEchoReps"]
        text = self.output("ping", "-f", "-l", "50", "-q", "-c", str(count), *options, address)
        if f"{count} packets transmitted" not in text:
            raise LabError(text)
        wait_for(lambda: self.nstat()["IcmpInEchoReps"] - before >= count, "the last reply")
        return self.nstat()["IcmpInEchoReps"] - before

    def link_exists(self, name: str) -> bool:
        """Whether an interface of this name is in here."""
        return bool(self.run("ip", "link", "show", "dev", name).returncode == 0)

    @contextlib.contextmanager
    def capture(self, device: str, *filter_words: str, snaplen: int = 262144) -> Iterator[Path]:
        """Capture with tcpdump while the block runs; the pcap file is complete behind it."""
        path = self.folder / f"{secrets.token_hex(4)}.pcap"
        dump = self.start(
            "tcpdump", "-i", device, "-U", "-n", "-B", "65536", "-s", str(snaplen),
            "--immediate-mode", "-w", str(path), *filter_words,
        )  # fmt: skip
        wait_for(lambda: path.exists() and path.stat().st_size >= 24, "tcpdump's first bytes")
        try:
            yield path
            # What was sent last is still on its way through tcpdump.
            wait_for(_still(path, dump.pid), "tcpdump coming to rest")
        finally:
            stop(dump, signal.SIGINT)


def _still(path: Path, pid: int) -> Callable[[], bool]:
    """Return a test of whether the file has not grown for a fifth of a second.

    And its writer waits for packets, or has ended with its device: one that is ready to run
    has only not got its turn.
    """
    seen = (-1, time.monotonic())

    def still() -> bool:
        nonlocal seen
        size = path.stat().st_size
        if size != seen[0] or _state(pid) not in "SZ":
            seen = (size, time.monotonic())
        return time.monotonic() - seen[1] > 0.2

    return still


def _state(pid: int) -> str:
    """Return what a process is doing, as ps says it: S sleeps, R runs or wants to, Z has ended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def stop(child: subprocess.Popen[Any], signum: int = signal.SIGTERM, timeout_s: float = 30) -> None:
    """End one process: politely, then not; its pipes are closed."""
    if child.poll() is None:
        child.send_signal(signum)
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    pipes: list[IO[Any] | None] = [child.stdin, child.stdout, child.stderr]
    for pipe in pipes:
        if pipe is not None:
            pipe.close()


class Daemon:
    """A running ustackd in a namespace, and the ``ustack`` command against it."""

    def __init__(
        self, ns: Namespace, *extra: str, serve: str = "echo,discard,chargen", tap: str = "tap0",
        address: str = STACK_ADDRESS, host_address: str | None = HOST_ADDRESS,
        offloads: bool = True,
    ) -> None:  # fmt: skip
        self.ns = ns
        self.offloads = offloads
        self.tap = tap
        self.address = address
        self.socket_path = ns.folder / f"{tap}.sock"
        self.log_path = ns.folder / f"{tap}.log"
        self.arguments = [
            "--tap", tap, "--address", f"{address}/24",
            *(["--host-address", f"{host_address}/24"] if host_address else []),
            "--serve", serve, "--socket", str(self.socket_path),
            *([] if offloads else ["--offloads", "off"]), *extra,
        ]  # fmt: skip
        self._process: subprocess.Popen[Any] | None = None

    @property
    def process(self) -> subprocess.Popen[Any]:
        """The daemon's process."""
        assert self._process is not None, "the daemon has not been started"
        return self._process

    def __enter__(self) -> Daemon:
        with self.log_path.open("wb") as log:
            self._process = self.ns.start(script("ustackd"), *self.arguments, stdout=log)
        wait_for(self._answers, f"ustackd's ready line ({self.log()})")
        return self

    def __exit__(self, *exc: object) -> None:
        stop(self.process)

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise LabError(f"ustackd ended at once, exit {self.process.returncode}: {self.log()}")
        return " ready " in self.log()

    def log(self) -> str:
        """Return what the daemon has printed so far."""
        return self.log_path.read_text().strip() if self.log_path.exists() else ""

    def cli(self, *arguments: str) -> str:
        """Return what ``ustack ARGUMENTS`` prints; it must succeed.

        It runs in this process: a Python of its own for each would take most of the time.
        """
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = ustack_main(["--socket", str(self.socket_path), *arguments])
        if status == INTERRUPTED:
            raise KeyboardInterrupt
        if status:
            raise LabError(f"ustack {' '.join(arguments)}: exit {status}: {err.getvalue()}")
        return out.getvalue()

    def connections(self) -> list[str]:
        """Return ``ustack ss -ant`` without its head and without listeners and TIME-WAIT."""
        lines = self.cli("ss", "-ant").splitlines()[1:]
        return [x for x in lines if x.strip() and not x.startswith(("LISTEN", "TIME-WAIT"))]


def script(name: str) -> str:
    """Return the console script of the interpreter that runs us.

    Raises:
        LabError: this tree is not installed there.
    """
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise LabError(f"{path} is missing: pip install this tree first")
    return str(path)


def tools_missing(names: Sequence[str]) -> list[str]:
    """Return what keeps the lab from working here: no root, no TAP, no command."""
    missing = [name for name in names if shutil.which(name) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        missing.append("/dev/net/tun")
    return missing
