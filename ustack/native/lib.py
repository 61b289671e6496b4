"""``ffi`` and ``lib`` of the compiled module: the only import of it.

The declarations are ``ustack_c/abi/*.h``; ``_ustack_c.pyi`` gives them types.
"""

from __future__ import annotations

from ustack.native._ustack_c import ffi, lib

__all__ = ["ffi", "lib"]
