"""``ustack help TOPIC``: the pages of ``ustack/docs``."""

from __future__ import annotations

import argparse
from importlib.resources import files

PAGES = files("ustack") / "docs"
TOPICS = ("questions", "python", "daemon", "supported", "speed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare help's argument."""
    parser.add_argument("topic", choices=TOPICS, nargs="?", default=TOPICS[0])


def page(topic: str) -> str:
    """Return a page's text (Markdown)."""
    return (PAGES / f"{topic}.md").read_text(encoding="utf-8")


def run(args: argparse.Namespace) -> int:
    """Print one page; no daemon is asked."""
    print(page(args.topic), end="")
    return 0
