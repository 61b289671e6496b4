"""Linux's ping: nothing is lost, nothing is changed."""

from __future__ import annotations

import re

import pytest

from kit.lab import Daemon, Namespace


def test_ten_thousand_pings_come_back(ns: Namespace, daemon: Daemon):
    assert ns.flood("10.0.0.2", 10_000) == 10_000


@pytest.mark.parametrize("size", [0, 1, 7, 55, 56, 1472])
def test_any_payload_comes_back_as_it_was(ns: Namespace, daemon: Daemon, size: int):
    text = ns.ping("10.0.0.2", "-p", "a5c3", "-s", str(size), count=3)
    assert "wrong data" not in text


def test_a_ping_to_an_address_that_nobody_has_is_not_answered(ns: Namespace, daemon: Daemon):
    assert ns.run("ping", "-c", "1", "-W", "1", "10.0.0.3").returncode == 1


def test_the_stack_counts_what_it_answered(ns: Namespace, daemon: Daemon):
    before = icmp_counts(daemon)
    ns.flood("10.0.0.2", 100)
    after = icmp_counts(daemon)
    assert after[0] - before[0] >= 100
    assert after[0] - before[0] == after[1] - before[1]


def icmp_counts(daemon: Daemon) -> tuple[int, int]:
    """Return echo requests in and echo replies out, as netstat -s prints them."""
    text = daemon.cli("netstat", "-s")
    sections = re.split(r"^(?=\S+:$)", text, flags=re.M)
    (icmp,) = [s for s in sections if s.startswith("Icmp:")]
    received, sent = icmp.split("output histogram", 1) if "histogram" in icmp else (icmp, icmp)
    asked = re.search(r"echo requests?: (\d+)", received)
    answered = re.search(r"echo repl(?:ies|y): (\d+)", sent)
    assert asked and answered, icmp
    return int(asked[1]), int(answered[1])
