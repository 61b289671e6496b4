"""ustackd: a stack on a TAP, its services and its control socket."""
