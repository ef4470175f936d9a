"""What every protocol keeps that brings commands to devices. A protocol says how one of its devices comes and speaks."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import pytest

from connectors import dispatch
from isotherm.commands import Command, Table, new
from isotherm.configuration import Configuration, Configurations
from isotherm.limits import SECOND
from isotherm.process import end
from isotherm.store.client import Client
from tests.support.intake import Bench, eventually


class Device(Protocol):
    """A device that has come and asks for its commands."""

    async def command(self) -> dict[str, Any]:
        """Return the next command it is given."""

    async def reply(self, reply: dict[str, Any]) -> str:
        """Say something of a command; returns empty when it is taken, else the reason or code of the refusal."""


class Conversation:
    """A device that is told its commands and replies over one connection."""

    def __init__(self, say: Callable[[object], Awaitable[None]], hear: Callable[[], Awaitable[Any]]) -> None:
        self.say = say
        self.hear = hear
        self._commands: deque[dict[str, Any]] = deque()

    async def command(self) -> dict[str, Any]:
        return self._commands.popleft() if self._commands else (await self.hear())["command"]

    async def reply(self, reply: dict[str, Any]) -> str:
        await self.say({"reply": reply})
        while "command" in (heard := await self.hear()):
            self._commands.append(heard["command"])
        if "error" in heard:
            return str(heard["error"]["reason"])
        assert heard == {"replied": reply["id"]}
        return ""


@asynccontextmanager
async def dispatching(redis: Client, **settings: Any) -> AsyncIterator[Bench]:
    """What a connector stands on, with a store and commands that run."""
    bench = Bench(redis=redis, **settings)
    for partition in range(bench.settings.partitions):
        run = (await bench.control.table.sweep(partition)).run
        await bench.control.table.sweep(partition, read_under=run)
    running = asyncio.create_task(bench.dispatcher.run())
    try:
        async with bench.intake.running():
            yield bench
    finally:
        await bench.dispatcher.stop()
        await end([running])


class CommandContract(ABC):
    """The promises."""

    is_seen_to_come = True
    """Whether the connector sees that a device has come anew."""

    says_delivered = False
    """Whether the protocol itself tells that the device has a command."""

    @abstractmethod
    def listening(self, bench: Bench) -> AbstractAsyncContextManager[Callable[[str], AbstractAsyncContextManager[Device]]]:
        """Run the connector for the length of the block; gives a function that lets a device of a name come."""

    @pytest.fixture
    async def bench(self, redis: Client) -> AsyncIterator[Bench]:
        """Give what the connector stands on."""
        async with asyncio.timeout(60), dispatching(redis) as bench:
            yield bench

    async def test_a_command_to_a_device_that_is_there(self, bench: Bench) -> None:
        async with self.listening(bench) as come, come("room-1") as device:
            sent = await send(bench, "room-1", "blink", {"times": 3})
            given = await device.command()
            assert (given["id"], given["device"], given["name"]) == (sent.id, "room-1", "blink")
            assert given["parameters"] == {"times": 3}
            assert given["deadline"] == sent.deadline / 1e6
            assert 0 < given["timeout"] <= 60
            await state(bench.control.table, sent, "delivered" if self.says_delivered else "sent")
            assert await device.reply({"id": sent.id, "result": {"blinked": 3}}) == ""
            found = await state(bench.control.table, sent, "answered")
            assert found.result == '{"blinked":3}'
        kinds = [fact.kind for fact in bench.producer.facts]
        assert kinds == ["queued", "claimed", "delivered" if self.says_delivered else "sent", "answered"]

    async def test_commands_to_a_device_that_is_away_come_in_their_order_and_once(self, bench: Bench) -> None:
        commands = [await send(bench, "room-1", f"step-{number}") for number in range(5)]
        late = await send(bench, "room-1", "late", timeout=SECOND)
        async with self.listening(bench) as come:
            await state(bench.control.table, late, "expired", sweep=True)
            for command in commands:
                await state(bench.control.table, command, "queued")
            async with come("room-1") as device:
                names = [(await device.command())["name"] for _ in commands]
                assert names == [command.name for command in commands]
                for command in commands:
                    assert await device.reply({"id": command.id, "result": None}) == ""
                    await state(bench.control.table, command, "answered")
        claimed = [fact.id for fact in bench.producer.facts if fact.kind == "claimed" and fact.id != late.id]
        assert [*dict.fromkeys(claimed)] == [command.id for command in commands]

    async def test_a_device_that_cannot_says_so(self, bench: Bench) -> None:
        async with self.listening(bench) as come, come("room-1") as device:
            sent = await send(bench, "room-1", "fly")
            await device.command()
            assert await device.reply({"id": sent.id, "received": True}) == ""
            await state(bench.control.table, sent, "delivered")
            assert await device.reply({"id": sent.id, "error": "no wings"}) == ""
            assert (await state(bench.control.table, sent, "failed")).error == "no wings"

    async def test_a_gateway_gets_the_commands_of_its_children(self, bench: Bench) -> None:
        bench.registry.add("gw", "child-1")
        bench.registry.add("child-1", gateway="gw")
        early = await send(bench, "child-1", "early")
        async with self.listening(bench) as come, come("gw") as device:
            for sent in (early, await send(bench, "child-1", "blink")):
                given = await device.command()
                assert (given["device"], given["id"]) == ("child-1", sent.id)
                assert await device.reply({"id": sent.id, "device": "child-1", "result": 1}) == ""
                await state(bench.control.table, sent, "answered")

    async def test_a_device_is_told_its_configuration_and_reports_it(self, bench: Bench) -> None:
        desired = bench.configurations
        async with self.listening(bench) as come, come("room-1") as device:
            await desired.change("room-1", {"interval": 5, "unit": "°C"}, "eve")
            given = await device.command()
            assert (given["id"], given["device"], given["name"]) == ("configuration-1", "room-1", "configure")
            assert given["parameters"] == {"version": 1, "values": {"interval": 5, "unit": "°C"}}
            await configured(desired, "room-1", "sent")
            assert await device.reply({"id": given["id"], "progress": 40}) == ""
            assert (await configured(desired, "room-1", "sent")).progress == 40
            assert await device.reply({"id": given["id"], "result": {"interval": 5, "unit": "K"}}) == ""
            assert (await configured(desired, "room-1", "drifted")).drift == ["unit"]
            await desired.change("room-1", {"unit": None, "interval": 9}, "eve")
            given = await device.command()
            assert given["parameters"] == {"version": 2, "values": {"interval": 9}}
            assert await device.reply({"id": given["id"], "error": "too slow"}) == ""
            assert (await configured(desired, "room-1", "failed")).error == "too slow"
            assert await device.reply({"id": given["id"], "result": None}) == ""
            await configured(desired, "room-1", "applied")

    async def test_a_device_that_was_away_is_told_only_the_newest_and_who_lost_it_gets_it_again(self, bench: Bench) -> None:
        desired = bench.configurations
        for interval in (1, 2, 3):
            await desired.change("room-1", {"interval": interval}, "eve")
        async with self.listening(bench) as come, come("room-1") as device:
            given = await device.command()
            assert given["parameters"] == {"version": 3, "values": {"interval": 3}}
            assert await device.reply({"id": given["id"], "result": {"interval": 3}}) == ""
            await configured(desired, "room-1", "applied")
            assert await device.reply({"id": "configuration-0", "result": {}}) == ""
            assert (await device.command())["parameters"] == given["parameters"]

    async def test_a_device_that_comes_anew_before_it_has_reported_is_told_again(self, bench: Bench) -> None:
        desired = bench.configurations
        async with self.listening(bench) as come:
            async with come("room-1") as device:
                await desired.change("room-1", {"interval": 5}, "eve")
                await device.command()
                await configured(desired, "room-1", "sent")
            if not self.is_seen_to_come:
                return
            async with come("room-1") as device:
                assert (await device.command())["id"] == "configuration-1"

    async def test_a_gateway_gets_the_configuration_of_its_children(self, bench: Bench) -> None:
        bench.registry.add("gw", "child-1")
        bench.registry.add("child-1", gateway="gw")
        await bench.configurations.change("child-1", {"interval": 5}, "eve")
        async with self.listening(bench) as come, come("gw") as device:
            given = await device.command()
            assert (given["device"], given["id"]) == ("child-1", "configuration-1")
            assert await device.reply({"id": given["id"], "device": "child-1", "result": {"interval": 5}}) == ""
            await configured(bench.configurations, "child-1", "applied")

    @pytest.mark.parametrize(
        "reply",
        [
            {"id": "0123456789abcdef", "result": 1},
            {"id": "configuration-1", "progress": 101},
            {"id": "configuration-1", "result": {str(number): number for number in range(300)}},
            {"id": "../../etc", "result": 1},
            {"id": "x" * 5_000, "result": 1},
            {"result": 1},
            {"id": 7, "result": 1},
            {"id": "theirs", "device": "room-2", "result": 1},
        ],
    )
    async def test_a_reply_that_is_none_is_told_and_kept(self, bench: Bench, reply: dict[str, Any]) -> None:
        theirs = await send(bench, "room-2", "blink")
        if reply.get("id") == "theirs":
            reply = {**reply, "id": theirs.id}
        async with self.listening(bench) as come, come("room-1") as device:
            assert await device.reply(reply) != ""
            shown = str(reply.get("id", ""))
            await eventually(lambda: any(shown in (one.raw or "") for one in bench.producer.rejects))
        await state(bench.control.table, theirs, "queued")

    async def test_while_kafka_is_away_nothing_is_given_and_no_state_is_made_up(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("isotherm.commands.control.DELIVER_SECONDS", 0.3)
        monkeypatch.setattr(dispatch, "RETRY_SECONDS", 0.1)
        sent = await send(bench, "room-1", "blink")
        bench.producer.on.clear()
        async with self.listening(bench) as come, come("room-1") as device:
            waiting = asyncio.create_task(device.command())
            done, _ = await asyncio.wait({waiting}, timeout=1.0)
            assert not done
            await state(bench.control.table, sent, "queued")
            bench.producer.on.set()
            assert (await waiting)["id"] == sent.id
            await state(bench.control.table, sent, "delivered" if self.says_delivered else "sent")
            assert await device.reply({"id": sent.id, "result": 1}) == ""


async def configured(table: Configurations, device: str, expected: str) -> Configuration:
    """Return a device's configuration when it has a state."""
    async with asyncio.timeout(20):
        while (found := await table.get(device)).state != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found


async def send(bench: Bench, device: str, name: str, parameters: dict[str, Any] | None = None, **options: Any) -> Command:
    """Ask for a command."""
    command = new(device, name, parameters, **options)
    await bench.control.send(command)
    return command


async def state(table: Table, command: Command, expected: str, *, sweep: bool = False) -> Command:
    """Return a command when it has a state."""
    async with asyncio.timeout(20):
        while True:
            found = await table.get(command.device, command.id)
            assert found is not None
            if found.state == expected:
                return found
            if sweep:
                for partition in range(8):
                    await table.sweep(partition)
            await asyncio.sleep(0.02)
