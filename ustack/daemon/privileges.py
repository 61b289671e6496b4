"""What ustackd gives up once it serves: it needs no privilege any more.

Opening the TAP and setting up its kernel side may take CAP_NET_ADMIN (they do not on a TAP made
beforehand for our user, which is up already); everything after that takes none. Capabilities
belong to threads, so no other thread may be there yet.
"""

from __future__ import annotations

import ctypes
import os
import pwd

LINUX_CAPABILITY_VERSION_3 = 0x20080522
PR_SET_NO_NEW_PRIVS = 38


def drop_privileges(uid: int | None) -> None:
    """Become ``uid`` (None: stay who we are) without capabilities or a way to get any.

    Raises:
        OSError: the kernel refuses: EPERM, only root can become another user.
    """
    if uid is not None and uid != os.geteuid():
        become(uid)
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    if libc.capset(header, none) or libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def become(uid: int) -> None:
    """Change user, and groups to the user's own."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        groups, gid = [], uid
    else:
        groups, gid = os.getgrouplist(entry.pw_name, entry.pw_gid), entry.pw_gid
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
