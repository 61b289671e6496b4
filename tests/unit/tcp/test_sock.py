"""A socket that is used again after its connection is over."""

from __future__ import annotations

import errno
import random

from ustack.native.lib import lib
from ustack.stack import Stack


def test_a_reset_socket_knows_nothing_of_its_last_connection():
    """tcp_disconnect: neither what came twice nor what ICMP said is the next peer's business."""
    stack = Stack(rng=random.Random(1))
    sk = stack.tcp.create()
    sk.duplicate_sack = (1, 2)
    sk.sk_err_soft = errno.EHOSTUNREACH
    sk.tp.done = 1
    sk.tp.slow = lib.US_TCP_SLOW_OPTION | lib.US_TCP_SLOW_URG
    sk.reset()
    assert sk.tp.slow == lib.US_TCP_SLOW_OPTION  # SO_RCVLOWAT stays set
    assert sk.duplicate_sack is None
    assert sk.sk_err_soft == 0
    assert not sk.done
