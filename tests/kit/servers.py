"""Servers from Linux's packages, and how they are started on an address and port of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SSH_OPTIONS = (
    "-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
    "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
)  # fmt: skip
NGINX = """
worker_processes 2; daemon off; error_log stderr; pid {folder}/pid; user root;
env LD_PRELOAD; env USTACK_SOCKET;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
    uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    server {{ listen {address}:{port}; root {folder}; }}
}}
"""


def need(program: str) -> str:
    """Return where a program is; skip the test if it is not installed."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def redis(address: str, port: int) -> tuple[str, ...]:
    """Return the command of a redis-server that keeps nothing."""
    options = ("--bind", address, "--port", str(port), "--save", "", "--protected-mode", "no")
    return need("redis-server"), *options


def nginx(folder: Path, address: str, port: int) -> tuple[str, ...]:
    """Return the command of an nginx with two workers that serves ``folder``."""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, address=address, port=port))
    return need("nginx"), "-c", str(config)


def sshd(folder: Path, address: str, port: int) -> tuple[str, ...]:
    """Make keys in ``folder``; return the command of a server that lets in who has the user's."""
    for name in ("host", "user"):
        keygen = [need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(keygen, check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    return (
        need("sshd"), "-D", "-e", "-f", "/dev/null", "-p", str(port), "-h", str(folder / "host"),
        "-o", f"ListenAddress={address}", "-o", "StrictModes=no", "-o", "UsePAM=no",
        "-o", f"AuthorizedKeysFile={folder}/user.pub", "-o", "PidFile=none",
        "-o", "PermitRootLogin=yes",
    )  # fmt: skip


def ssh(folder: Path, address: str, port: int) -> tuple[str, ...]:
    """Return the beginning of a command that is run over there, with the key from ``sshd``."""
    key = str(folder / "user")
    return need("ssh"), *SSH_OPTIONS, "-p", str(port), "-i", key, f"root@{address}"
