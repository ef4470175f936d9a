"""Very many devices that are configured over TCP, each on a connection of its own and as cheap as can be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

AT_ONCE = 100
"""Connections that are being opened."""


class SwarmDevice(asyncio.Protocol):
    """One device: it takes over every configuration that it is told."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._say({"hello": {"device": self._name, "commands": True}})

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "command" in said:
                command: dict[str, Any] = said["command"]
                self._say({"reply": {"id": command["id"], "result": command["parameters"].get("values")}})

    def close(self) -> None:
        """Leave."""
        if self._transport is not None:
            self._transport.abort()

    def _say(self, message: object) -> None:
        assert self._transport is not None
        self._transport.write(json.dumps(message).encode() + b"\n")


async def gather(
    host: str, port: int, names: Sequence[str], connected: Callable[[int], None] = lambda _: None
) -> list[SwarmDevice]:
    """Let devices come; returns them when all are connected.

    Args:
        host: Of the TCP connector.
        port: The same.
        names: Of the devices.
        connected: Is told how many are there, now and then.

    Raises:
        OSError: one cannot connect.
    """
    loop = asyncio.get_running_loop()
    found: list[SwarmDevice] = []
    for first in range(0, len(names), AT_ONCE):
        some = [SwarmDevice(name) for name in names[first : first + AT_ONCE]]
        await asyncio.gather(*(loop.create_connection(lambda one=one: one, host, port) for one in some))  # type: ignore[misc]
        found += some
        connected(len(found))
    return found
