"""The services that ``--serve`` can name, and starting them on a stack.

``echo,discard,chargen,http=FOLDER``; ``:PORT`` behind a name moves it to another port, as in
``http:8080=site``. Each service is a protocol factory on ``ustack.aio``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ustack.api.aio import create_server
from ustack.api.aio_server import StackServer
from ustack.daemon.services.http import HttpConnection
from ustack.daemon.services.http_site import HttpSite
from ustack.daemon.services.simple import Chargen, Discard, Echo, chargen_block
from ustack.runtime.inline import InlineRuntime

WELL_KNOWN_PORTS = {"echo": 7, "discard": 9, "chargen": 19, "http": 80}
BACKLOG = 4096
"""Connections that may wait for accept; the stack's somaxconn limits it further."""


@dataclass(frozen=True)
class ServiceSpec:
    """One service to start."""

    name: str
    port: int
    folder: Path | None = None
    """What http serves."""


def parse_services(text: str) -> tuple[ServiceSpec, ...]:
    """Read ``--serve``'s value.

    Raises:
        ValueError: an unknown service, a bad port, a missing folder or two on one port.
    """
    specs = tuple(_parse_service(item.strip()) for item in text.split(",") if item.strip())
    ports = [spec.port for spec in specs]
    for port in ports:
        if ports.count(port) > 1:
            raise ValueError(f"two services on port {port}")
    return specs


def _parse_service(item: str) -> ServiceSpec:
    name_and_port, equals, folder = item.partition("=")
    name, colon, port_text = name_and_port.partition(":")
    if name not in WELL_KNOWN_PORTS:
        known = ", ".join(WELL_KNOWN_PORTS)
        raise ValueError(f"unknown service {name!r} (known: {known})")
    port = WELL_KNOWN_PORTS[name]
    if colon:
        if not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) < 65536):
            raise ValueError(f"bad port {port_text!r} for service {name}")
        port = int(port_text)
    if name != "http":
        if equals:
            raise ValueError(f"service {name} takes no folder")
        return ServiceSpec(name, port)
    if not folder:
        raise ValueError("service http needs a folder: http=FOLDER")
    if not Path(folder).is_dir():
        raise ValueError(f"folder {folder!r} for http does not exist")
    return ServiceSpec(name, port, Path(folder))


def protocol_factory(
    spec: ServiceSpec, runtime: InlineRuntime, status_text: Callable[[], str]
) -> Callable[[], asyncio.BaseProtocol]:
    """Return what makes a protocol for each connection to ``spec``."""
    buffer = runtime.read_buffer
    if spec.name == "echo":
        return Echo
    if spec.name == "discard":
        return lambda: Discard(buffer)
    if spec.name == "chargen":
        block = chargen_block()
        return lambda: Chargen(buffer, block)
    assert spec.folder is not None
    site = HttpSite(spec.folder, status_text)
    return lambda: HttpConnection(site, buffer, runtime.loop)


async def start_services(
    specs: tuple[ServiceSpec, ...], runtime: InlineRuntime, status_text: Callable[[], str]
) -> list[StackServer]:
    """Listen for every service, on any address.

    Raises:
        OSError: a port cannot be bound.
    """
    return [
        await create_server(
            protocol_factory(spec, runtime, status_text),
            port=spec.port,
            backlog=BACKLOG,
            runtime=runtime,
        )
        for spec in specs
    ]
