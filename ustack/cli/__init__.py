"""The ``ustack`` command: Linux's own views of a running daemon."""
