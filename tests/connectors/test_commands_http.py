"""Commands over HTTP, which a device polls for, and over a WebSocket."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession

from connectors import http
from tests.contracts.commands import CommandContract, Conversation, Device, send, state
from tests.support.intake import Bench

pytestmark = [pytest.mark.servers, pytest.mark.timeout(60)]

Come = Callable[[str], AbstractAsyncContextManager[Device]]


@asynccontextmanager
async def client_of(bench: Bench) -> AsyncIterator[ClientSession]:
    async with http.listening(bench.site) as where:
        base = re.findall(r"http://[0-9.]+:\d+", where)[0]
        async with ClientSession(base) as client:
            yield client


class Poller:
    """A device that asks over HTTP."""

    def __init__(self, client: ClientSession, name: str) -> None:
        self._client = client
        self._name = name

    async def command(self) -> dict[str, Any]:
        while True:
            async with self._client.get("/api/v1/commands", params={"device": self._name, "wait": "5"}) as answer:
                if answer.status == 204:
                    continue
                assert answer.status == 200
                command: dict[str, Any] = await answer.json()
                return command

    async def reply(self, reply: dict[str, Any]) -> str:
        async with self._client.post("/api/v1/replies", params={"device": self._name}, json=reply) as answer:
            return "" if answer.status == 204 else str((await answer.json())["reason"])


class TestHttp(CommandContract):
    """The contract."""

    is_seen_to_come = False

    @asynccontextmanager
    async def listening(self, bench: Bench) -> AsyncIterator[Come]:
        async with client_of(bench) as client:

            @asynccontextmanager
            async def come(name: str) -> AsyncIterator[Device]:
                yield Poller(client, name)

            yield come

    async def test_who_does_not_wait_hears_at_once_that_there_is_none(self, bench: Bench) -> None:
        async with client_of(bench) as client:
            async with client.get("/api/v1/commands?device=room-1&wait=0") as answer:
                assert answer.status == 204
            sent = await send(bench, "room-1", "blink")
            async with client.get("/api/v1/commands?device=room-1&wait=0") as answer:
                assert (await answer.json())["id"] == sent.id

    @pytest.mark.parametrize("query", ["", "?device=room-1&wait=x", "?device=room-1&wait=61", "?device=a%20b"])
    async def test_what_is_no_poll(self, bench: Bench, query: str) -> None:
        async with client_of(bench) as client, client.get(f"/api/v1/commands{query}") as answer:
            assert answer.status in (400, 401)
            assert answer.content_type == "application/problem+json"

    async def test_a_device_that_leaves_while_it_waits_loses_nothing(self, bench: Bench) -> None:
        async with client_of(bench) as client:
            polling = asyncio.create_task(client.get("/api/v1/commands?device=room-1&wait=30"))
            await asyncio.wait({polling}, timeout=0.5)
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
            sent = await send(bench, "room-1", "blink")
            assert (await Poller(client, "room-1").command())["id"] == sent.id

    async def test_a_stop_does_not_wait_for_those_who_wait(self, bench: Bench) -> None:
        async with asyncio.timeout(20):
            async with client_of(bench) as client:
                polling = asyncio.create_task(client.get("/api/v1/commands?device=room-1&wait=60"))
                await asyncio.wait({polling}, timeout=0.5)
            await asyncio.gather(polling, return_exceptions=True)


class TestWebSocket(CommandContract):
    """The contract."""

    @asynccontextmanager
    async def listening(self, bench: Bench) -> AsyncIterator[Come]:
        async with client_of(bench) as client:

            @asynccontextmanager
            async def come(name: str) -> AsyncIterator[Device]:
                async with client.ws_connect("/api/v1/ws") as ws:
                    await ws.send_json({"hello": {"device": name, "commands": True}})
                    yield Conversation(ws.send_json, ws.receive_json)

            yield come

    async def test_who_does_not_say_whose_commands_it_wants_is_told(self, bench: Bench) -> None:
        async with client_of(bench) as client, client.ws_connect("/api/v1/ws") as ws:
            await ws.send_json({"hello": {"commands": True}})
            assert (await ws.receive_json())["error"]["reason"] == "no_device"
            sent = await send(bench, "room-1", "blink")
            await ws.send_json({"hello": {"device": "room-1", "commands": True}})
            assert "error" in await ws.receive_json(), "a hello is the first message"
            await state(bench.control.table, sent, "queued")
