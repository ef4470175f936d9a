"""Every connector keeps the promises of `tests/contracts/connector.py`; none is forgotten."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from typing import Any

import aiocoap
import pytest

from tests.contracts.connector import Answer, ConnectorContract
from tests.support.stack import Stack

pytestmark = pytest.mark.servers


class TestTcp(ConnectorContract):
    protocol = "tcp"
    device_in_channel = False

    async def send(self, stack: Stack, payload: bytes, tool: Callable[..., str]) -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.ports.tcp)
        writer.write(b'{"hello":{"ack":true}}\n' + payload + b"\n")
        writer.write_eof()
        answers = [json.loads(line) for line in (await reader.read()).splitlines()]
        writer.close()
        errors = [answer["error"] for answer in answers if "error" in answer]
        return Answer(not errors, json.dumps(errors))


class TestMqtt(ConnectorContract):
    protocol = "mqtt"
    device_in_channel = True

    async def send(self, stack: Stack, payload: bytes, tool: Callable[..., str]) -> Answer:
        options = ["-h", "127.0.0.1", "-p", str(stack.ports.mqtt), "-t", "devices/contract/readings", "-q", "1", "-s"]
        command = [tool("mosquitto_pub"), *options]
        await asyncio.to_thread(subprocess.run, command, input=payload, check=True, timeout=20)
        return Answer(None, "")  # the broker's PUBACK says nothing about the payload


class TestCoap(ConnectorContract):
    protocol = "coap"
    device_in_channel = False

    async def send(self, stack: Stack, payload: bytes, tool: Callable[..., str]) -> Answer:
        context: Any = await aiocoap.Context.create_client_context()
        try:
            uri = f"coap://127.0.0.1:{stack.ports.coap}/readings"
            request = aiocoap.Message(code=aiocoap.POST, uri=uri, payload=payload, content_format=110)
            response = await context.request(request).response
        finally:
            await context.shutdown()
        return Answer(response.code.is_successful(), response.payload.decode())
