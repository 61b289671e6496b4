"""``ustack redirect --sockmap``: what it asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.cli.fake_daemon import FakeDaemon
from ustack.cli.main import main
from ustack.daemon.messages import RedirectRequest


@pytest.mark.parametrize(("words", "on"), [((), True), (("on",), True), (("off",), False)])
def test_the_shortcut_is_switched(tmp_path: Path, words: tuple[str, ...], on: bool):
    path = tmp_path / "d.sock"
    with FakeDaemon(path, {RedirectRequest: []}) as daemon:
        assert main(["--socket", str(path), "redirect", "--sockmap", *words]) == 0
    assert daemon.requests == [RedirectRequest(on)]


@pytest.mark.parametrize("words", [[], ["--sockmap", "maybe"]])
def test_other_words_are_refused(words: list[str]):
    with pytest.raises(SystemExit) as exit_:
        main(["redirect", *words])
    assert exit_.value.code == 2
