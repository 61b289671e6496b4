"""Daemons for tests of the command line: one with prepared rows, one with a real stack's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from ustack.cli.main import main
from ustack.daemon.messages import AnyRequest, Failure, decode_request, encode, row_messages
from ustack.daemon.views import Views
from ustack.stack import Stack

Answer = Callable[[AnyRequest], Iterable[bytes]]


class FakeDaemon:
    """Listens at ``path``; ``answers`` are rows by request type, or a function."""

    def __init__(self, path: Path, answers: dict[type[Any], list[msgspec.Struct]] | Answer) -> None:
        self.requests: list[AnyRequest] = []
        self._answers = answers
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen(4)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> FakeDaemon:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(60)
                try:
                    while data := sock.recv(65536):
                        self._reply(sock, decode_request(data))
                except OSError:
                    pass

    def _reply(self, sock: socket.socket, request: AnyRequest) -> None:
        self.requests.append(request)
        if callable(self._answers):
            messages = self._answers(request)
        else:
            messages = row_messages(self._answers[type(request)])
        for message in messages:
            sock.send(message)


class ViewsDaemon:
    """The daemon's own views of ``stack`` behind a control socket at ``path``."""

    def __init__(self, stack: Stack, path: Path) -> None:
        self.stack = stack
        self._views = Views(stack, lambda function: function())
        self._path = path

    def _answer(self, request: AnyRequest) -> Iterator[bytes]:
        try:
            yield from self._views.answer(request)
        except LookupError as error:
            yield encode(Failure(str(error.args[0])))

    def run(self, *words: str) -> int:
        """Run ``ustack WORDS`` and return its exit status."""
        with FakeDaemon(self._path, self._answer):
            status = main([words[0], "--socket", str(self._path), *words[1:]])
        self._path.unlink()
        return status
