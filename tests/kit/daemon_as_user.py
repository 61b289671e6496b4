"""ustackd as a user who may do little: ``daemon_as_user.py UID CAPABILITIES ARGUMENT...``.

Whoever starts this gives all of it up before the daemon's first step; only Python and its
modules are loaded by then, which the user may have no right to read. CAPABILITIES is a mask.
"""

from __future__ import annotations

import ctypes
import os
import sys

import pyroute2  # noqa: F401
import uvloop  # noqa: F401

from ustack.api import remote_kinds  # noqa: F401
from ustack.daemon import main as ustackd
from ustack.daemon.privileges import LINUX_CAPABILITY_VERSION_3

PR_SET_KEEPCAPS = 8


def become(uid: int, capabilities: int) -> None:
    """Be ``uid`` with these capabilities, whatever user that is."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(capabilities, capabilities, 0, 0, 0, 0)
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    become(int(sys.argv[1]), int(sys.argv[2], 0))
    sys.exit(ustackd.main(sys.argv[3:]))
