"""``ustack help questions``: each command that the page names, against a running daemon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kit.lab import Daemon, Namespace
from ustack.cli.help import page
from ustack.cli.main import main

COMMANDS = [
    line.split()[1:] for line in page("questions").splitlines() if line[:10] == "    ustack"
]


@pytest.fixture(scope="module")
def busy(ns: Namespace) -> Iterator[Daemon]:
    """A daemon that is pinged all the time."""
    with Daemon(ns) as daemon:
        ns.start("ping", "-q", "-i", "0.02", daemon.address)
        yield daemon


def test_the_page_answers_something():
    assert len(COMMANDS) > 50


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_command_has_an_answer(busy: Daemon, words: list[str], capsys, monkeypatch):
    monkeypatch.setenv("USTACK_SOCKET", str(busy.socket_path))
    assert main(words) == 0
    changes = any(option in words for option in ("-G", "-C", "-K"))
    queue_or_list = words[0] == "show" or "state" in words
    assert capsys.readouterr().out or changes or queue_or_list


def test_help_prints_the_page(capsys):
    assert main(["help"]) == 0
    assert capsys.readouterr().out == page("questions")
