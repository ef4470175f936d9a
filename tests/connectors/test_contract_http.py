"""HTTP and its WebSocket keep the promises of `tests/contracts/connector.py`."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from aiohttp import ClientSession, WSMsgType

from tests.contracts.connector import Answer, ConnectorContract
from tests.support.stack import Stack

pytestmark = pytest.mark.servers


LAST = '[{"bver":99}]'
"""Refused for a reason that the contract does not count: with its answer, what was sent before is answered too."""


class TestHttp(ConnectorContract):
    protocol = "http"
    device_in_channel = False

    async def send(self, stack: Stack, payload: bytes, tool: Callable[..., str]) -> Answer:
        url = f"http://127.0.0.1:{stack.ports.http}/api/v1/readings"
        headers = {"Content-Type": "application/senml+json"}
        async with ClientSession() as session, session.post(url, data=payload, headers=headers) as answer:
            return Answer(answer.status == 204, await answer.text())


class TestWebSocket(ConnectorContract):
    """The ledger counts it under http."""

    protocol = "http"
    device_in_channel = False

    async def send(self, stack: Stack, payload: bytes, tool: Callable[..., str]) -> Answer:
        errors = []
        async with (
            ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{stack.ports.http}/api/v1/ws") as ws,
        ):
            await ws.send_frame(payload, WSMsgType.TEXT)  # as text, whatever it is
            await ws.send_str(LAST)
            async for message in ws:
                error = json.loads(message.data).get("error")
                if error and error["reason"] == "version":
                    break
                if error:
                    errors.append(error)
        return Answer(not errors, json.dumps(errors))
