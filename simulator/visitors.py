"""Browsers that do not exist: they open pages as one does, over HTTP and Bokeh's websocket protocol, and draw nothing.

Of the protocol (docs.bokeh.org, "Server APIs", bokeh.protocol): a message is a JSON header, metadata and content, and a
buffer for each array, which the header counts.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np

LIVE_POINTS = "live-points"
"""Name of the columns of the live chart."""

_TOKEN = re.compile(r'"token":"([^"]+)"')


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        kind: Its type, such as PATCH-DOC.
        content: What it says.
        buffers: Id → bytes of the arrays in it.
    """

    kind: str
    content: Mapping[str, Any]
    buffers: Mapping[str, bytes]


class Visitor:
    """One open page."""

    def __init__(self, client: aiohttp.ClientSession, url: str) -> None:
        """Prepare; ``url`` is that of the page."""
        self._client = client
        self._url = url
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self.html_seconds = 0.0
        """How long the server took for the HTML."""

    async def open(self) -> None:
        """Open the page, and do what its scripts do when they have drawn it."""
        began = time.monotonic()
        async with self._client.get(self._url) as answer:
            answer.raise_for_status()
            html = await answer.text()
        self.html_seconds = time.monotonic() - began
        found = _TOKEN.search(html)
        if found is None:
            raise ConnectionError(f"{self._url} is no page with a session")
        path, _, _ = self._url.partition("?")
        origin = "/".join(self._url.split("/", 3)[:3])
        self._socket = await self._client.ws_connect(
            path.rstrip("/") + "/ws", protocols=("bokeh", found[1]), headers={"Origin": origin}, max_msg_size=0
        )
        await self._until("ACK")
        await self._send("PULL-DOC-REQ", {})
        document = (await self._until("PULL-DOC-REPLY")).content["doc"]
        self._points = next((id for id, name in _models(document) if name == LIVE_POINTS), None)
        await self._tell("document_ready", {})
        for component in (root["id"] for root in document["roots"] if root.get("name", "").endswith("ReactiveESM")):
            await self._tell("data_event", {"model": {"id": component}, "data": "ready"})

    async def values(self) -> AsyncIterator[float]:
        """Yield the newest value of the live chart each time that it changes."""
        while True:
            message = await self._receive()
            for event in message.content.get("events", ()):
                if event.get("model", {}).get("id") == self._points and (values := _column(event, "value", message)).size:
                    yield float(values[-1])

    async def close(self) -> None:
        """Leave."""
        if self._socket is not None:
            await self._socket.close()

    async def _until(self, kind: str) -> Message:
        while (message := await self._receive()).kind != kind:
            pass
        return message

    async def _receive(self) -> Message:
        assert self._socket is not None
        header = json.loads(await self._socket.receive_str())
        await self._socket.receive_str()
        content = json.loads(await self._socket.receive_str())
        buffers = {}
        for _ in range(header.get("num_buffers", 0)):
            reference = json.loads(await self._socket.receive_str())
            buffers[reference["id"]] = await self._socket.receive_bytes()
        return Message(header["msgtype"], content, buffers)

    async def _tell(self, name: str, values: Mapping[str, Any]) -> None:
        entries = {"type": "map", "entries": [list(pair) for pair in values.items()]}
        event = {"type": "event", "name": name, "values": entries}
        await self._send("PATCH-DOC", {"events": [{"kind": "MessageSent", "msg_type": "bokeh_event", "msg_data": event}]})

    async def _send(self, kind: str, content: Mapping[str, Any]) -> None:
        assert self._socket is not None
        header = {"msgid": secrets.token_hex(8), "msgtype": kind}
        for part in (header, {}, content):
            await self._socket.send_str(json.dumps(part))


def _models(part: Any) -> list[tuple[str, str]]:
    """Return id and name of every model in a part of a document."""
    found = []
    if isinstance(part, dict):
        if part.get("type") == "object" and "id" in part:
            found.append((part["id"], str(part.get("attributes", {}).get("name"))))
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            found += _models(one)
    return found


def _column(event: Mapping[str, Any], name: str, message: Message) -> Any:
    """Return a column of an event that changes columns; empty when it has none of that name."""
    data = event.get("data") or event.get("new") or {}
    for column, array in data.get("entries", ()) if isinstance(data, dict) else ():
        if column == name and isinstance(array, dict) and isinstance(array.get("array"), dict):
            content = array["array"]["data"]
            return np.frombuffer(message.buffers[content["id"]] if isinstance(content, dict) else b"", dtype=array["dtype"])
    return np.empty(0)
