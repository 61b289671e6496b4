"""MD5 signatures with the kernel at the other end; tcpdump judges every one of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kit.lab import Namespace

PROGRAM = Path(__file__).with_name("signed_echo.py")


@pytest.mark.parametrize("connects", ["kernel", "ustack"])
def test_a_signed_echo_with_the_kernel(ns: Namespace, connects: str):
    with ns.capture("any", "tcp") as path:
        said = ns.output(sys.executable, str(PROGRAM), connects, "secret")
    assert said.split() == ["True"]
    lines = ns.output("tcpdump", "-n", "-r", str(path), "-M", "secret").splitlines()
    assert len(lines) > 200
    assert [line for line in lines if "md5 valid" not in line] == []


def test_the_kernels_syn_with_another_key_is_not_answered(ns: Namespace):
    said = ns.output(sys.executable, str(PROGRAM), "kernel", "another")
    assert said.split() == ["TimeoutError"]
