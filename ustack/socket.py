"""The stack's twin of the standard module ``socket``.

Constants, errors and conversions are the standard module's own; sockets, what makes them,
and the names of hosts are the stack's.
"""

# mypy: disable-error-code="assignment, misc"

from __future__ import annotations

import socket as _socket
from socket import *  # noqa: F403
from socket import EAGAIN as EAGAIN
from socket import EBADF as EBADF
from socket import EWOULDBLOCK as EWOULDBLOCK
from socket import AddressInfo as AddressInfo
from socket import MsgFlag as MsgFlag
from socket import SocketIO as SocketIO

from ustack.api.connecting import create_connection as create_connection
from ustack.api.connecting import create_server as create_server
from ustack.api.connecting import has_dualstack_ipv6 as has_dualstack_ipv6
from ustack.api.descriptors import close as close
from ustack.api.descriptors import dup as dup
from ustack.api.descriptors import fromfd as fromfd
from ustack.api.descriptors import socketpair as socketpair
from ustack.api.lookups import getaddrinfo as getaddrinfo
from ustack.api.lookups import getfqdn as getfqdn
from ustack.api.lookups import gethostbyaddr as gethostbyaddr
from ustack.api.lookups import gethostbyname as gethostbyname
from ustack.api.lookups import gethostbyname_ex as gethostbyname_ex
from ustack.api.lookups import getnameinfo as getnameinfo
from ustack.api.sockets import GLOBAL_DEFAULT_TIMEOUT as _GLOBAL_DEFAULT_TIMEOUT  # noqa: F401
from ustack.api.sockets import socket as socket

SocketType = socket
has_ipv6 = False
del send_fds, recv_fds  # noqa: F821
__all__ = [name for name in _socket.__all__ if name in globals()]
