"""How many open files there may be: ``fs.file-max`` by the memory (files_maxfiles_init)."""

from __future__ import annotations

from dataclasses import replace

from ustack.config import StackConfig

NR_FILE = 8192
"""Never fewer than so many."""
KB_A_FILE = 10
"""A tenth of the memory, at 1 KB a file."""


def files_maxfiles_init(config: StackConfig) -> StackConfig:
    """Set ``fs.file-max`` by the size of the arena unless somebody has."""
    if config.fs.file_max:
        return config
    file_max = max(config.core.arena_bytes // 1024 // KB_A_FILE, NR_FILE)
    return replace(config, fs=replace(config.fs, file_max=file_max))
