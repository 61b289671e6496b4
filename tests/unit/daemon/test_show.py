"""``ustack ps`` inside an event loop."""

from __future__ import annotations

import asyncio
import random

from ustack.daemon.show import show_lines
from ustack.stack import Stack


def test_ps_lists_the_loops_tasks():
    async def waits() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> list[str]:
        task = asyncio.ensure_future(waits())
        await asyncio.sleep(0)
        lines = list(show_lines(Stack(rng=random.Random(1)), "ps"))
        task.cancel()
        return lines

    lines = asyncio.run(main())
    assert any(line.startswith("      - S    ") and "waits (task)" in line for line in lines)
