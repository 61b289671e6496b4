"""The demo: ustackd on a TAP in a namespace of its own, and Linux's own programs as its clients.

Every step prints the command it runs and what came of it; the first one that fails ends the
demo with exit status 1. Whatever was started is gone when it ends, also after Ctrl-C.
"""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from rich.console import Console

from kit.capture import handshake, tcp_segments
from kit.lab import CONGESTION_CONTROL, Daemon, LabError, Namespace, stop, wait_for
from kit.segment import format_segment
from ustack.lib.addresses import format_ipv4

URL = "http://10.0.0.2"
BIG_BYTES = 100_000_000

console = Console(highlight=False, soft_wrap=True)


class DemoFailure(Exception):
    """A step did not show what it should."""


def step(title: str, command: str) -> None:
    """Announce a step."""
    console.print(f"\n[bold cyan]== {title}[/]")
    console.print(f"[dim]$ {command}[/]")


def must(condition: object, what: str) -> None:
    """End the demo unless ``condition`` holds."""
    if not condition:
        raise DemoFailure(what)


def show(text: str, limit: int = 40) -> None:
    """Print a program's output as it is, at most ``limit`` lines."""
    lines = text.rstrip().splitlines()
    for line in lines[:limit]:
        console.print(line, markup=False)
    if len(lines) > limit:
        console.print(f"... {len(lines) - limit} more lines", markup=False)


def show_ping(ns: Namespace) -> None:
    """Linux's ping."""
    step("ping", "ping -c 4 10.0.0.2")
    run = ns.run("ping", "-c", "4", "-i", "0.2", "10.0.0.2")
    show(run.stdout)
    must(" 4 received" in run.stdout, "not every ping was answered")


def show_page(ns: Namespace, daemon: Daemon) -> None:
    """A page by curl, and its handshake out of a tcpdump capture."""
    step("a page, captured by tcpdump", f"curl {URL}/hello.html")
    with ns.capture(daemon.tap, "tcp", "port", "80") as path:
        run = ns.run("curl", "-sSf", "--max-time", "60", f"{URL}/hello.html")
        wait_for(lambda: not daemon.connections(), "the connection closed")
    show(run.stdout)
    must("Hello from ustack" in run.stdout, "the page did not come")
    step("its handshake, decoded from the capture", f"tcpdump -i {daemon.tap} tcp port 80")
    segments = handshake(tcp_segments(path), 80)
    for seg, isn, ack_isn in zip(
        segments,
        (segments[0].seq, segments[1].seq, segments[0].seq),
        (0, segments[0].seq, segments[1].seq),
        strict=True,
    ):
        ends = f"{format_ipv4(seg.saddr)}:{seg.sport} > {format_ipv4(seg.daddr)}:{seg.dport}"
        show(f"{ends}  {format_segment(seg, isn, ack_isn)}")


def sha256(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def show_download(ns: Namespace, big: Path) -> float:
    """100 MB from the stack; returns the seconds it took."""
    step("100 MB downloaded", f"curl {URL}/{big.name} | sha256sum")
    copy = ns.folder / "copy"
    begin = time.monotonic()
    run = ns.run("curl", "-sSf", "--max-time", "60", "-o", str(copy), f"{URL}/{big.name}")
    seconds = time.monotonic() - begin
    must(run.returncode == 0, run.stderr)
    show(f"served    {sha256(big)}\nreceived  {sha256(copy)}")
    must(sha256(big) == sha256(copy), "the download differs")
    copy.unlink()
    return seconds


def show_upload(ns: Namespace, big: Path) -> float:
    """100 MB to the stack; returns the seconds it took."""
    step("100 MB uploaded", f"curl -T {big.name} {URL}/upload")
    begin = time.monotonic()
    run = ns.run("curl", "-sSf", "--max-time", "60", "-T", str(big), f"{URL}/upload")
    seconds = time.monotonic() - begin
    must(run.returncode == 0, run.stderr)
    show(f"sent      {sha256(big)}\nstack's   {run.stdout.strip()}")
    must(sha256(big) in run.stdout, "the upload differs")
    return seconds


def show_views(ns: Namespace, daemon: Daemon) -> None:
    """The stack's own ss and netstat, while a connection is open."""
    client = ns.start("nc", "10.0.0.2", "7", stdin=subprocess.PIPE)
    wait_for(daemon.connections, "nc's connection")
    step("the stack's sockets", "ustack ss -ant")
    sockets = daemon.cli("ss", "-ant")
    show(sockets)
    must("LISTEN" in sockets and "ESTAB" in sockets, "ss shows no listener or no connection")
    step("its counters", "ustack netstat -s")
    counters = daemon.cli("netstat", "-s")
    show(counters, 80)
    must("Tcp:" in counters, "netstat -s shows no Tcp")
    stop(client)


def show_speed(down_s: float, up_s: float) -> None:
    """What the two transfers reached, curl, hashing and disk included."""
    console.print("\n[bold cyan]== speed[/]")
    for name, seconds in (("download", down_s), ("upload", up_s)):
        show(f"{name:9} {BIG_BYTES * 8 / seconds / 1e9:6.2f} Gbit/s  (100 MB in {seconds:.2f} s)")
    show(f"One connection each, Linux's side with {CONGESTION_CONTROL}, curl's start and the")
    show("hashing of the upload included. tools/bench measures the stack itself beside veth.")


def run_demo(ns: Namespace) -> None:
    """All steps in order."""
    www = ns.folder / "www"
    www.mkdir()
    page = "<h1>Hello from ustack</h1>\n<p>No Linux socket sent this.</p>\n"
    (www / "hello.html").write_text(page)
    big = www / "big.bin"
    big.write_bytes(random.Random(20).randbytes(BIG_BYTES))
    with Daemon(ns, serve=f"echo,discard,chargen,http={www}") as daemon:
        step("ustackd in a network namespace", "ustackd " + " ".join(daemon.arguments))
        show(daemon.log())
        show_ping(ns)
        show_page(ns, daemon)
        down_s = show_download(ns, big)
        up_s = show_upload(ns, big)
        show_views(ns, daemon)
        show_speed(down_s, up_s)
        daemon.process.terminate()
        must(daemon.process.wait(60) == 0, f"ustackd did not end well: {daemon.log()}")
        must(not ns.link_exists(daemon.tap), f"{daemon.tap} is still there")


def _stop(signum: int, frame: FrameType | None) -> None:
    for again in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(again, signal.SIG_IGN)  # taking down is not to be stopped
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo; 0 if every step showed what it should."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _stop)
    begin = time.monotonic()
    try:
        with Namespace("demo") as ns:
            run_demo(ns)
    except (DemoFailure, LabError, subprocess.TimeoutExpired, AssertionError) as error:
        console.print(f"\ntools/demo failed: {error}", style="bold red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("\ntools/demo: stopped, everything taken down", markup=False)
        return 130
    seconds = time.monotonic() - begin
    console.print(f"\n[bold green]all shown in {seconds:.0f} s[/], nothing left behind")
    return 0


if __name__ == "__main__":
    sys.exit(main())
