"""The CoAP connector over real sockets: blocks, garbage, and Kafka away."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiocoap
import pytest
from aiocoap import optiontypes

from connectors import coap, intake
from tests.support.intake import Bench
from tests.support.ports import free_port


@asynccontextmanager
async def listening() -> AsyncIterator[Bench]:
    bench = Bench()
    bench.settings.coap_port = free_port()
    async with asyncio.timeout(30), bench.intake.running(), coap.listening(bench.site):
        yield bench


async def post(bench: Bench, payload: bytes, context: Any = None, **options: Any) -> Any:
    own = context or await aiocoap.Context.create_client_context(transports=["udp6"])
    try:
        uri = f"coap://127.0.0.1:{bench.settings.coap_port}/readings"
        message = aiocoap.Message(code=aiocoap.POST, uri=uri, payload=payload, content_format=110, **options)
        return await own.request(message, handle_blockwise="block1" not in options).response
    finally:
        if context is None:
            await own.shutdown()


def pack(device: str, count: int) -> bytes:
    return b"[%s]" % b",".join(b'{"n":"%s/t","v":%d}' % (device.encode(), value) for value in range(count))


async def test_a_large_payload_comes_in_blocks() -> None:
    async with listening() as bench:
        answer = await post(bench, pack("a", 1000))
        assert answer.code == aiocoap.CHANGED
    assert bench.producer.values_of("a/t") == list(range(1000))


async def test_blocks_of_several_devices_do_not_mix() -> None:
    async with listening() as bench:
        answers = await asyncio.gather(*(post(bench, pack(f"d{i}", 300)) for i in range(5)))
        assert {str(answer.code) for answer in answers} == {str(aiocoap.CHANGED)}
    for i in range(5):
        assert bench.producer.values_of(f"d{i}/t") == list(range(300))


async def test_blocks_that_do_not_fit_together_are_told_to_begin_again() -> None:
    async with listening() as bench:
        context = await aiocoap.Context.create_client_context(transports=["udp6"])
        for number, more in ((0, True), (2, False)):  # block 1 is missing
            block = optiontypes.BlockOption.BlockwiseTuple(number, more, 2)
            answer = await post(bench, b"x" * 64, context, block1=block)
        assert answer.code == aiocoap.REQUEST_ENTITY_INCOMPLETE
        await context.shutdown()
        assert (await post(bench, pack("a", 1))).code == aiocoap.CHANGED


async def test_garbage_is_ignored_and_others_go_on() -> None:
    async with listening() as bench:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for size in range(200):
                sender.sendto(os.urandom(size), ("127.0.0.1", bench.settings.coap_port))
        assert (await post(bench, pack("a", 1))).code == aiocoap.CHANGED


async def test_kafka_away_is_refused_in_time_and_what_was_taken_arrives_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "REFUSE_SECONDS", 0.1)
    async with listening() as bench:
        bench.producer.on.clear()
        answer = await post(bench, pack("a", 3))
        assert answer.code == aiocoap.SERVICE_UNAVAILABLE
        assert b"Kafka did not acknowledge" in answer.payload
        bench.producer.on.set()
        assert (await post(bench, pack("b", 1))).code == aiocoap.CHANGED
    assert bench.producer.values_of("a/t") == [0, 1, 2]
