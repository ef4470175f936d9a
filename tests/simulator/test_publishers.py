"""What publishers call acknowledged."""

from __future__ import annotations

import asyncio

import pytest

from simulator.publishers import MqttPublisher, NotAcknowledged, Reading

CONNACK = b"\x20\x02\x00\x00"
"""No session is present, and all is well (MQTT 3.1.1 §3.2)."""


async def test_what_a_broker_that_came_again_knows_nothing_of_is_not_acknowledged() -> None:
    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(CONNACK)
        await reader.read(1024)
        writer.close()

    async with await asyncio.start_server(broker, "127.0.0.1", 0) as server:
        publisher = MqttPublisher("kitchen", "127.0.0.1", server.sockets[0].getsockname()[1], "3.1.1")
        with pytest.raises(NotAcknowledged, match="before the broker acknowledged"):
            await publisher.publish([Reading("temperature", 1_700_000_000.0, 21.5, "Cel", 1)])
        await publisher.close()
