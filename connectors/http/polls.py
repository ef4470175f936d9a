"""Commands over HTTP: a device asks for the next one, and waits for it (RFC 6202, long polling).

GET /api/v1/commands?wait=30      200 with a command, or 204 when none came within so many seconds
POST /api/v1/replies              what came of it: {"id":"…","result":…}; 204 when Kafka has it
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import msgspec
from aiohttp import web

from connectors.dispatch import Dispatcher, Given, payload
from connectors.http.answers import problem
from connectors.identity import Identity
from isotherm.commands import Command

MAX_WAIT_SECONDS = 60.0
"""Proxies and NATs end a request that is silent for longer."""

DEFAULT_WAIT_SECONDS = 30.0

ASK_SECONDS = 0.25
"""How long the store may take to say that there is none, when a device does not want to wait."""


class Polls:
    """The requests that wait for commands."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._open: set[_Poll] = set()
        self._is_stopping = False

    async def serve(self, request: web.Request, identity: Identity) -> web.StreamResponse:
        """Answer with the next command of the peer, or of a gateway's children."""
        if identity.device is None:
            return problem(400, "commands of nobody; name the device: ?device=room-1", reason="no_device")
        try:
            wait = float(request.query.get("wait", DEFAULT_WAIT_SECONDS))
        except ValueError:
            wait = -1.0
        if not 0 <= wait <= MAX_WAIT_SECONDS:
            detail = f"wait is {request.query['wait'][:40]!r}, expected 0 to {MAX_WAIT_SECONDS:g} seconds"
            return problem(400, detail, reason="malformed")
        poll = _Poll(request)
        self._open.add(poll)
        try:
            with self._dispatcher.reaching(identity.device, poll, is_new=False):  # it asks all the time
                return await poll.answer(0.0 if self._is_stopping else wait)
        finally:
            poll.end("returned")
            self._open.discard(poll)

    def close(self) -> None:
        """Let nobody wait any longer."""
        self._is_stopping = True
        for poll in self._open:
            poll.hurry()


class _Poll:
    """One request: a way for one command."""

    def __init__(self, request: web.Request) -> None:
        loop = asyncio.get_running_loop()
        self._request = request
        self._command: asyncio.Future[Command | None] = loop.create_future()
        self._given: asyncio.Future[Given] = loop.create_future()

    async def give(self, command: Command) -> Given:
        """Answer the request with a command; returns when that is written."""
        if self._command.done() or self._request.transport is None or self._request.transport.is_closing():
            return "returned"
        self._command.set_result(command)
        return await self._given

    def hurry(self) -> None:
        """Wait no longer."""
        if not self._command.done():
            self._command.set_result(None)

    def end(self, given: Given) -> None:
        """Say how far the command got, if that was not said."""
        if not self._given.done():
            self._given.set_result(given)

    async def answer(self, wait: float) -> web.StreamResponse:
        """Return the answer, which is written when it holds a command."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(wait, ASK_SECONDS)):
                await asyncio.shield(self._command)
        self.hurry()
        command = self._command.result()
        if command is None:
            return web.Response(status=204)
        if self._request.transport is None or self._request.transport.is_closing():
            raise ConnectionResetError("the device has left")
        response = web.Response(body=msgspec.json.encode(payload(command)), content_type="application/json")
        try:
            await response.prepare(self._request)
            await response.write_eof()
        finally:
            self.end("sent")  # of one that was cut off while it was written to, nobody knows
        return response


def refusal(reason: str, detail: str) -> web.Response:
    """Return the answer to a reply that is refused."""
    return problem({"identity": 403, "command": 404, "too_large": 413}.get(reason, 400), detail, reason=reason)
