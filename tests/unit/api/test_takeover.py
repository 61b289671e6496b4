"""What ``ustack.install()`` puts into the place of what."""

from __future__ import annotations

import select
import socket
import subprocess
import sys

from ustack.takeover import replacements


def test_the_modules_public_objects_are_replaced_and_nothing_of_the_interpreters():
    replaced = [theirs for theirs, _ in replacements()]
    assert socket.socket in replaced
    assert select.epoll in replaced
    # A built-in module's loader is a class of importlib's, and it is everybody's.
    assert not [thing for thing in replaced if getattr(thing, "__name__", "").endswith("Importer")]
    assert not [thing for thing in replaced for m in (socket, select) if thing is m.__loader__]


OWN_IMPORTS = """
import sys, types
import ustack
from ustack import socket as own
from ustack.socket import create_server as own_server
import socket, select, ssl
ssl_class = ssl.SSLContext.sslsocket_class
from socket import create_connection
before = socket, select, create_connection, ssl.socket
ustack.install()
during = socket, select, create_connection, ssl.socket
from ustack import socket as own_later
import socket as later, select as select_later
from socket import create_server as server_later, getaddrinfo
loaded = types.ModuleType("loaded")
sys.modules["loaded"] = loaded
source = "import socket; from select import epoll; from ustack.socket import create_connection"
exec(source, vars(loaded))
assert not {id(thing) for thing in before} & {id(thing) for thing in during}
assert later is socket and create_connection is loaded.create_connection
assert socket.__name__ == "socket" and "create_server" in dir(socket) and server_later is own_server
assert socket.AF_INET is own.AF_INET and loaded.socket.socket is own.socket
ustack.uninstall()
assert (socket, select, create_connection, ssl.socket) == before
assert (later, select_later, loaded.socket) == (socket, select, socket)
assert server_later is socket.create_server and getaddrinfo is socket.getaddrinfo
assert loaded.epoll is select.epoll and ssl.SSLContext.sslsocket_class is ssl_class
ours = own, own_later, own_server, loaded.create_connection
print([thing.__module__ if hasattr(thing, "__module__") else thing.__name__ for thing in ours])
"""


def test_uninstall_puts_back_what_install_substituted_and_leaves_a_programs_own_imports_of_ours():
    run = subprocess.run(
        [sys.executable, "-c", OWN_IMPORTS], capture_output=True, text=True, timeout=60
    )
    assert run.stderr == ""
    connecting = "ustack.api.connecting"
    assert run.stdout.strip() == str(["ustack.socket", "ustack.socket", connecting, connecting])
