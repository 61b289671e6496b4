"""A daemon for tests of the command line: answers each request with prepared rows."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from ustack.daemon.messages import AnyRequest, decode_request, row_messages

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
