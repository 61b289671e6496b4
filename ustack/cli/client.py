"""The command line's end of the control socket: find the daemon, ask, read the answer."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from ustack.daemon.command_line import CONTROL_FOLDER
from ustack.daemon.messages import (
    MAX_MESSAGE_BYTES,
    AnyReply,
    Done,
    Failure,
    Request,
    Rows,
    decode_reply,
    encode,
)

ANSWER_TIMEOUT_S = 30.0
"""A daemon that says nothing for so long is taken for stuck."""

RowT = TypeVar("RowT", bound=msgspec.Struct)


class ClientError(Exception):
    """The daemon cannot be asked, or refused; the text is one line for the user."""

    def __init__(self, text: str, status: int = 1) -> None:
        """Say what is wrong, and the exit status that the original of the command has for it."""
        super().__init__(text)
        self.status = status


class Refusal(ClientError):
    """The daemon has been asked and says no."""


def find_socket(option: str | None, folder: Path = CONTROL_FOLDER) -> Path:
    """Choose the daemon: ``--socket``, else USTACK_SOCKET, else the only one running.

    Raises:
        ClientError: none is running, or several are.
    """
    named = option or os.environ.get("USTACK_SOCKET")
    if named:
        return Path(named)
    try:
        candidates = sorted(path for path in folder.iterdir() if is_alive(path))
    except OSError:
        candidates = []
    if not candidates:
        raise ClientError("no ustackd is running (start one, or name its socket with --socket)")
    if len(candidates) > 1:
        names = ", ".join(str(path) for path in candidates)
        raise ClientError(f"several ustackd are running, choose one with --socket: {names}")
    return candidates[0]


def is_alive(path: Path) -> bool:
    """Whether a daemon listens at ``path``, as far as we may know."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            probe.connect(str(path))
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:
        pass  # it is there but not for us: let the real attempt say why
    return True


class Client:
    """One connection to a daemon."""

    def __init__(self, path: Path) -> None:
        """Connect.

        Raises:
            ClientError: nobody listens there, or we may not.
        """
        self._path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.settimeout(ANSWER_TIMEOUT_S)
        try:
            self._sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            self._sock.close()
            raise ClientError(f"no ustackd is running at {path}") from None
        except OSError as error:
            self._sock.close()
            raise ClientError(f"{path}: {error.strerror or error}") from error

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def fileno(self) -> int:
        """Return the socket's descriptor, for select."""
        return self._sock.fileno()

    def send(self, request: Request) -> None:
        """Send a request.

        Raises:
            ClientError: the daemon is gone.
        """
        try:
            self._sock.send(encode(request))
        except OSError as error:
            raise ClientError(f"{self._path}: the daemon is gone") from error

    def receive(self) -> AnyReply:
        """Wait for the next message of an answer.

        Raises:
            Refusal: the daemon says no.
            ClientError: it is gone, stuck, or speaks another language.
        """
        try:
            data = self._sock.recv(MAX_MESSAGE_BYTES)
        except TimeoutError:
            raise ClientError(f"{self._path}: the daemon does not answer") from None
        except OSError as error:
            raise ClientError(f"{self._path}: {error.strerror or error}") from error
        if not data:
            raise ClientError(f"{self._path}: the daemon is gone")
        try:
            reply = decode_reply(data)
        except ValueError as error:
            raise ClientError(f"{self._path}: not understood: {error}") from error
        if isinstance(reply, Failure):
            raise Refusal(reply.message)
        return reply

    def wait_forever(self) -> None:
        """Let ``receive`` wait without limit: a capture may see nothing for hours."""
        self._sock.settimeout(None)

    def ask(self, request: Request) -> None:
        """Have something done that is answered with ``Done`` alone.

        Raises:
            ClientError: see ``receive``; the daemon refuses.
        """
        for _ in self.rows(request, msgspec.Struct):
            pass

    def rows(self, request: Request, row_type: type[RowT]) -> Iterator[RowT]:
        """Ask, and yield the rows of the answer as they come.

        Raises:
            ClientError: see ``receive``.
        """
        self.send(request)
        decoder = msgspec.json.Decoder(row_type)
        while True:
            reply = self.receive()
            if isinstance(reply, Done):
                return
            if not isinstance(reply, Rows):
                raise ClientError(f"{self._path}: unexpected {type(reply).__name__}")
            try:
                yield from (decoder.decode(raw) for raw in reply.rows)
            except msgspec.MsgspecError as error:
                raise ClientError(f"{self._path}: not understood: {error}") from error
