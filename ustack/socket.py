"""The stack's twin of the standard module ``socket``.

Constants, errors and name look-ups are the standard module's own; sockets, and what makes
them, are the stack's. What cannot be on a TCP/IPv4 stack (socketpair, SCM_RIGHTS) is not here.
"""

# mypy: disable-error-code="assignment, misc"

from __future__ import annotations

from socket import *  # noqa: F403
from socket import SocketIO as SocketIO

from ustack.api.connecting import create_connection as create_connection
from ustack.api.connecting import create_server as create_server
from ustack.api.connecting import has_dualstack_ipv6 as has_dualstack_ipv6
from ustack.api.sockets import GLOBAL_DEFAULT_TIMEOUT as _GLOBAL_DEFAULT_TIMEOUT  # noqa: F401
from ustack.api.sockets import close as close
from ustack.api.sockets import dup as dup
from ustack.api.sockets import fromfd as fromfd
from ustack.api.sockets import socket as socket

SocketType = socket
has_ipv6 = False
del socketpair, send_fds, recv_fds  # noqa: F821
