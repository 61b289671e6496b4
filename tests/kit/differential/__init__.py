"""The same script played against the running kernel's TCP and against ours, and compared."""
