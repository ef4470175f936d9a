"""Commands over CoAP, which a device observes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiocoap
import pytest

from connectors import coap
from connectors.coap import datagrams, message, numbers, observing, transmissions
from connectors.coap.numbers import ACK, CON, RST
from connectors.coap.options import Block, Option
from isotherm.store.client import Client
from tests.contracts.commands import CommandContract, Device, dispatching, send, state
from tests.support.coap import Peer
from tests.support.intake import Bench, eventually
from tests.support.ports import free_ports

pytestmark = [pytest.mark.servers, pytest.mark.timeout(60)]

COMMANDS: list[Option] = [(numbers.URI_PATH, part) for part in (b"devices", b"lamp", b"commands")]

Come = Callable[[str], AbstractAsyncContextManager[Device]]


class CoapDevice:
    """A device that observes with aiocoap."""

    def __init__(self, bench: Bench, context: aiocoap.Context, name: str) -> None:
        self._base = f"coap://127.0.0.1:{bench.settings.coap_port}/devices/{name}"
        self._context = context
        self._heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def observe(self) -> None:
        """Observe until the task is cancelled."""
        asked = self._context.request(aiocoap.Message(code=aiocoap.GET, uri=self._base + "/commands", observe=0))
        first = await asked.response
        assert (first.code, first.payload, first.opt.observe is not None) == (aiocoap.CONTENT, b"", True)
        async for notification in asked.observation:
            assert notification.opt.content_format == numbers.JSON
            self._heard.put_nowait(json.loads(notification.payload))

    async def command(self) -> dict[str, Any]:
        return await self._heard.get()

    async def reply(self, reply: dict[str, Any]) -> str:
        message = aiocoap.Message(
            code=aiocoap.POST, uri=self._base + "/replies", payload=json.dumps(reply).encode(), content_format=numbers.JSON
        )
        answer = await self._context.request(message).response
        return "" if answer.code == aiocoap.CHANGED else str(answer.code)


class TestCoap(CommandContract):
    """The contract."""

    says_delivered = True

    @pytest.fixture
    async def bench(self, redis: Client) -> AsyncIterator[Bench]:
        base = free_ports(5)
        ports = {"coap_port": base, "coap_tcp_port": base + 1, "coap_tls_port": base + 2}
        async with asyncio.timeout(60), dispatching(redis, **ports) as bench:
            yield bench

    @asynccontextmanager
    async def listening(self, bench: Bench) -> AsyncIterator[Come]:
        async with coap.listening(bench.site):

            @asynccontextmanager
            async def come(name: str) -> AsyncIterator[Device]:
                context = await aiocoap.Context.create_client_context(transports=["udp6"])
                device = CoapDevice(bench, context, name)
                observing_ = asyncio.create_task(device.observe())
                yield device
                observing_.cancel()
                await asyncio.gather(observing_, return_exceptions=True)
                await context.shutdown()

            yield come

    @pytest.mark.parametrize("size", [800, 1_024, 16_000])
    async def test_a_command_of_any_size_arrives(self, bench: Bench, size: int) -> None:
        parameters = {"text": "ä" * (size // 2)}
        async with self.listening(bench) as come, come("room-1") as device:
            sent = await send(bench, "room-1", "show", parameters)
            assert (await device.command())["parameters"] == parameters
            assert (await bench.control.table.get("room-1", sent.id)).state in ("sent", "delivered")  # type: ignore[union-attr]
            second = await send(bench, "room-1", "second")
            assert (await device.command())["id"] == second.id
            assert await device.reply({"id": sent.id, "result": 1}) == ""
            await state(bench.control.table, sent, "answered")

    async def test_in_blocks_it_is_no_further_than_sent_until_the_device_says_so(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(observing, "NOTIFY_SECONDS", 1.0)
        monkeypatch.setattr(transmissions, "ACK_TIMEOUT", 0.1)
        async with coap.listening(bench.site):
            with Peer(bench) as peer, Peer(bench) as stranger:
                await observe(peer, block=2)
                first = await send(bench, "lamp", "show", {"text": "x" * 200})
                told = await peer.hear()
                assert (Block.decode(told.option(numbers.BLOCK2) or b""), len(told.payload)) == (Block(0, True, 2), 64)
                peer.send(message.encode(ACK, numbers.EMPTY, told.id))
                second = await send(bench, "lamp", "second", {"text": "y" * 200})
                other = await stranger.ask(
                    options=[*COMMANDS, (numbers.BLOCK2, Block(1, False, 2).encode())], code=numbers.GET
                )
                assert other.code == numbers.BAD_REQUEST
                await state(bench.control.table, first, "sent")
                told = await peer.hear()  # the time for the first one's blocks is over
                peer.send(message.encode(ACK, numbers.EMPTY, told.id))
                payload, block = told.payload, Block(0, True, 2)
                while block.more:
                    asked = Block(block.number + 1, False, 2).encode()
                    answer = await peer.ask(options=[*COMMANDS, (numbers.BLOCK2, asked)], code=numbers.GET)
                    assert answer.option(numbers.ETAG) == told.option(numbers.ETAG)
                    payload, block = payload + answer.payload, Block.decode(answer.option(numbers.BLOCK2) or b"")
                assert json.loads(payload)["id"] == second.id
                await state(bench.control.table, second, "sent")
                beyond = [*COMMANDS, (numbers.BLOCK2, Block(99, False, 2).encode())]
                assert (await peer.ask(options=beyond, code=numbers.GET)).code == numbers.BAD_REQUEST

    async def test_a_device_that_comes_from_another_address_after_a_quiet_time(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its NAT has forgotten the first one: what is sent there is lost, so nothing but a ping is."""
        monkeypatch.setattr(datagrams, "FRESH_SECONDS", 0.0)
        monkeypatch.setattr(observing, "PING_SECONDS", 0.3)
        monkeypatch.setattr(transmissions, "ACK_TIMEOUT", 0.1)
        async with coap.listening(bench.site):
            with Peer(bench) as before:
                await observe(before)
            sent = await send(bench, "lamp", "blink")
            await returned(bench)
            await state(bench.control.table, sent, "queued")
            with Peer(bench) as after:
                await observe(after)
                pinged = await after.hear()
                assert (pinged.kind, pinged.code) == (CON, numbers.EMPTY)
                after.send(message.encode(RST, numbers.EMPTY, pinged.id))
                told = await after.hear()
                assert json.loads(told.payload)["id"] == sent.id
                after.send(message.encode(ACK, numbers.EMPTY, told.id))
                found = await state(bench.control.table, sent, "delivered")
                assert found.attempt == 2

    async def test_who_does_not_observe_any_longer_is_told_nothing(self, bench: Bench) -> None:
        async with coap.listening(bench.site):
            with Peer(bench) as peer:
                await observe(peer)
                sent = await send(bench, "lamp", "blink")
                told = await peer.hear()
                peer.send(message.encode(RST, numbers.EMPTY, told.id))  # it has forgotten that it observes
                await returned(bench)
                await state(bench.control.table, sent, "queued")
                await observe(peer, 1)
                await send(bench, "lamp", "second")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await peer.hear()


async def observe(peer: Peer, number: int = 0, *, block: int | None = None) -> None:
    """Observe the lamp's commands, or (1) no longer; perhaps in blocks of a size."""
    options = [*COMMANDS, (numbers.OBSERVE, bytes((number,)) if number else b"")]
    if block is not None:
        options.append((numbers.BLOCK2, Block(0, False, block).encode()))
    answer = await peer.ask(options=options, code=numbers.GET)
    assert (answer.code, answer.payload) == (numbers.CONTENT, b"")


async def returned(bench: Bench) -> None:
    """Return when a command came back."""
    await eventually(lambda: "returned" in [fact.kind for fact in bench.producer.facts])
