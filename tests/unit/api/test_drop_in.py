"""``ustack.socket`` and ``ustack.select`` have what the standard modules have, or a reason."""

from __future__ import annotations

import select as standard_select
import socket as standard

import pytest

from ustack import select, socket

IMPORTS = "an import of the standard module's own"
WITHOUT = {
    "send_fds": "SCM_RIGHTS is of Unix sockets", "recv_fds": "SCM_RIGHTS is of Unix sockets",
    "IntEnum": IMPORTS, "IntFlag": IMPORTS, "array": IMPORTS, "errno": IMPORTS, "io": IMPORTS,
    "os": IMPORTS, "selectors": IMPORTS, "sys": IMPORTS,
}  # fmt: skip
WITHOUT_METHODS = {"sendmsg_afalg": "AF_ALG is the kernel's cryptography"}


def public(module: object) -> set[str]:
    return {name for name in dir(module) if not name.startswith("_")}


def test_every_name_of_socket_is_there_or_has_a_reason():
    assert public(standard) - public(socket) == WITHOUT.keys()


def test_every_public_name_is_exported():
    assert set(standard.__all__) - set(socket.__all__) == {"send_fds", "recv_fds"}
    assert all(hasattr(socket, name) for name in socket.__all__)


def test_every_method_of_a_socket_is_there_or_has_a_reason():
    assert public(standard.socket) - public(socket.socket) == WITHOUT_METHODS.keys()


def test_every_name_of_select_and_every_method_of_epoll_and_poll_is_there():
    assert public(standard_select) - public(select) == set()
    assert public(standard_select.epoll) - public(select.epoll) == set()
    assert public(standard_select.poll()) - public(select.poll) == set()


def test_constants_and_errors_are_the_standard_modules_own():
    same = [name for name in public(standard) if name.isupper() and hasattr(socket, name)]
    assert len(same) > 200
    assert all(getattr(socket, name) == getattr(standard, name) for name in same)
    assert socket.timeout is TimeoutError and socket.error is OSError
    assert socket.gaierror is standard.gaierror


def test_what_the_stack_has_not_is_said_to_be_missing():
    assert not socket.has_ipv6 and not socket.has_dualstack_ipv6()
    with pytest.raises(OSError, match="kernel's descriptor"):
        socket.fromfd(1, socket.AF_INET, socket.SOCK_STREAM)
    with pytest.raises(OSError, match="not supported by protocol"):
        socket.socket(socket.AF_UNIX)


def test_a_socketpair_is_connected_over_loopback():
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        a, b = socket.socketpair(socket.AF_INET, kind)
        with a, b:
            a.send(b"there")
            b.send(b"back")
            assert (b.recv(10), a.recv(10)) == (b"there", b"back")
            assert a.getpeername() == b.getsockname() and b.getpeername() == a.getsockname()
    a, b = socket.socketpair()
    with a, b:
        assert (a.family, a.type) == (socket.AF_INET, socket.SOCK_STREAM)
