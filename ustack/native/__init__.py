"""The one door to the C code: ``_ustack_c``, compiled from ``ustack_c/`` through cffi.

Every other package imports ``ffi`` and ``lib`` from ``ustack.native.lib``, or the thin
classes beside it.
"""
