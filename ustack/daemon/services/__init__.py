"""What ustackd serves to the network, written on the public API (ustack.aio)."""
