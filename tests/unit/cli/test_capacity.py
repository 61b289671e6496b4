"""``ustack capacity`` measures what a connection takes, and does the arithmetic."""

from __future__ import annotations

import argparse
import gc

from ustack.cli import capacity


def test_a_machine_of_128_gib_has_room_for_five_million_connections():
    lines = capacity.report(594.0, 128 << 30, 5_000_000, 100_000_000)
    assert lines == [
        "an idle connection: 594 bytes",
        "128.0 GiB: room for 231,378,709 idle connections",
        "5,000,000 connections: 2.8 GiB, 2.2 % of it; 26.3 KiB for the data of each",
        "100,000,000 users: 20 machines",
    ]


def test_what_a_connection_takes_is_measured(capsys, monkeypatch):
    monkeypatch.setattr(capacity, "PAIRS", 400)
    parser = argparse.ArgumentParser()
    capacity.add_arguments(parser)
    args = parser.parse_args(["--mem", "1.5g", "--users", "10", "--connections", "10"])
    assert args.mem == 3 << 29
    gc.collect()  # or other tests' stacks may go while it measures
    assert capacity.run(args) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert 100 < int(first.split()[3]) < 20_000
    assert last == "10 users: 1 machine"
