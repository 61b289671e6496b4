"""The stack's twin of the standard module ``select``, for its sockets and other descriptors."""

# mypy: disable-error-code="assignment, misc"

from __future__ import annotations

from select import *  # noqa: F403

from ustack.api.polling import epoll as epoll
from ustack.api.selecting import poll as poll
from ustack.api.selecting import select as select
