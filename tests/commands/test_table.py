"""The table of commands: what scripts make of facts, whatever order they come in."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from isotherm.clock import now_us
from isotherm.commands import Command, Table, new, table
from isotherm.commands.fact import Fact, Kind, fact_of
from isotherm.errors import BadField, Unavailable
from isotherm.limits import SECOND
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.client import Client
from tests.support.valkey import Valkey

pytestmark = pytest.mark.servers

PARTITIONS = 2


@pytest.fixture
async def commands(redis: Client) -> Table:
    """An empty table that is known to be whole."""
    return await whole(redis)


async def whole(redis: Client) -> Table:
    found = Table(redis, PARTITIONS)
    for partition in range(PARTITIONS):
        run = (await found.sweep(partition)).run
        assert (await found.sweep(partition, read_under=run)).is_whole
    return found


def queued(command: Command) -> Fact:
    return Fact(kind="queued", id=command.id, device=command.device, time=command.created, command=command)


def fact(command: Command, kind: Kind, attempt: int = 1, **fields: Any) -> Fact:
    return Fact(kind=kind, id=command.id, device=command.device, time=now_us(), attempt=attempt, **fields)


async def ask(commands: Table, device: str = "room-1", **options: int) -> Command:
    command = new(device, "blink", {"times": 3}, **options)  # type: ignore[arg-type]
    assert await commands.note(queued(command))
    return command


async def state(commands: Table, command: Command) -> str:
    found = await commands.get(command.device, command.id)
    assert found is not None
    return found.state


async def test_a_command_goes_from_step_to_step(commands: Table) -> None:
    command = await ask(commands)
    assert await commands.get("room-1", command.id) == command
    taken = await commands.claim("room-1", "tcp/1")
    assert taken is not None
    assert (taken.id, taken.attempt, taken.via, taken.state) == (command.id, 1, "tcp/1", "queued")
    assert msgspec.json.decode(taken.parameters) == {"times": 3}
    for kind, expected in (("sent", "sent"), ("delivered", "delivered"), ("answered", "answered")):
        assert await commands.note(fact(command, kind, result="true"))  # type: ignore[arg-type]
        assert await state(commands, command) == expected
    found = await commands.get("room-1", command.id)
    assert found is not None
    assert found.result == "true"
    assert command.created <= found.sent <= found.delivered <= found.ended
    assert await commands.claim("room-1", "tcp/1") is None


async def test_commands_are_taken_up_in_their_order_and_one_at_a_time(commands: Table) -> None:
    asked = [await ask(commands) for _ in range(5)]
    other = await ask(commands, "room-2")
    claims = await asyncio.gather(*(commands.claim("room-1", f"tcp/{n}") for n in range(8)))
    assert [one.id for one in claims if one] == [asked[0].id]
    assert (await commands.claim("room-2", "tcp/1") or other).id == other.id
    for command in asked[:4]:
        assert await commands.note(fact(command, "sent"))
        following = await commands.claim("room-1", "tcp/1")
        assert following is not None
        assert following.id == asked[asked.index(command) + 1].id


async def test_facts_may_come_in_any_order_and_twice(redis: Client, commands: Table) -> None:
    for number in range(60):
        command = new(f"room-{number}", "blink")
        told = [
            queued(command),
            fact(command, "claimed", via="tcp/1"),
            fact(command, "sent"),
            fact(command, "delivered"),
            fact(command, "answered", result="1"),
        ]
        told = told[: 1 + number % 5]
        order = random.Random(number).choices(told, k=4) + random.Random(number).sample(told, len(told))
        for one in order:
            await commands.note(one)
        expected = ("queued", "queued", "sent", "delivered", "answered")[number % 5]
        assert await state(commands, command) == expected
        waits = await commands.waiting(command.device)
        assert waits == (1 if number % 5 == 0 else 0)


@pytest.mark.parametrize("first, second", [("answered", "refused"), ("refused", "answered")])
async def test_what_the_device_said_first_stays(commands: Table, first: Kind, second: Kind) -> None:
    command = await ask(commands)
    assert await commands.note(fact(command, first))
    assert not await commands.note(fact(command, second))
    assert await state(commands, command) == {"answered": "answered", "refused": "failed"}[first]


async def test_what_did_not_leave_is_taken_up_again(commands: Table) -> None:
    command = await ask(commands)
    for attempt in (1, 2, 3):
        taken = await commands.claim("room-1", "mqtt/1")
        assert taken is not None
        assert taken.attempt == attempt
        assert await commands.note(fact_of(taken, "returned", now_us()))
    assert not await commands.note(fact(command, "sent", attempt=2)), "of an attempt that came back"
    assert await state(commands, command) == "queued"


async def test_after_the_deadline_it_is_not_taken_up_and_a_late_answer_counts(commands: Table) -> None:
    gone, sent = await ask(commands, timeout=SECOND), await ask(commands, "room-2", timeout=SECOND)
    assert await commands.claim("room-2", "tcp/1")
    assert await commands.note(fact(sent, "sent"))
    await until(lambda: now_us() > sent.deadline)
    assert await commands.claim("room-1", "tcp/1") is None
    assert await state(commands, gone) == "expired"
    for partition in range(PARTITIONS):
        await commands.sweep(partition)
    assert await state(commands, sent) == "expired"
    found = await commands.get("room-1", gone.id)
    assert found is not None
    assert (found.sent, found.ended) == (0, gone.deadline)
    assert await commands.note(fact(sent, "answered", result="2"))
    assert await state(commands, sent) == "answered"


@pytest.mark.parametrize("idempotent", [False, True])
async def test_who_ends_while_it_gives_a_command_to_a_device(
    commands: Table, monkeypatch: pytest.MonkeyPatch, idempotent: bool
) -> None:
    monkeypatch.setattr(table, "LEASE", -1)
    command = await ask(commands, idempotent=idempotent)
    assert await commands.claim("room-1", "tcp/1")
    assert await state(commands, command) == "queued"
    for partition in range(PARTITIONS):
        await commands.sweep(partition)
    found = await commands.get("room-1", command.id)
    assert found is not None
    if idempotent:
        assert found.state == "queued"
        assert (await commands.claim("room-1", "tcp/2") or found).attempt == 2
    else:
        assert found.state == "failed"
        assert "may have got it" in found.error
        assert await commands.claim("room-1", "tcp/2") is None
        assert await commands.note(fact(command, "answered")), "it had got it"
        assert await state(commands, command) == "answered"


async def test_an_idempotent_command_without_an_answer_is_given_again(
    commands: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "RETRY", -1)
    command = await ask(commands, idempotent=True)
    assert await commands.claim("room-1", "tcp/1")
    assert await commands.note(fact(command, "sent"))
    for partition in range(PARTITIONS):
        await commands.sweep(partition)
    assert await state(commands, command) == "queued"
    found = await commands.claim("room-1", "tcp/1")
    assert found is not None
    assert found.attempt == 2
    assert found.sent > 0, "it was sent once"


async def test_only_what_was_never_taken_up_can_be_cancelled(commands: Table) -> None:
    first, second = await ask(commands), await ask(commands)
    assert await commands.claim("room-1", "tcp/1")
    assert not await commands.cancel(first, "ada")
    assert await commands.cancel(second, "ada")
    found = await commands.get("room-1", second.id)
    assert found is not None
    assert (found.state, found.error) == ("failed", "cancelled by ada")
    assert await commands.note(fact(first, "sent"))
    assert await commands.claim("room-1", "tcp/1") is None
    assert [one.id for one in await commands.of("room-1", limit=10)] == [second.id, first.id]
    assert [one.id for one in await commands.of("room-1", limit=10, before=second.id)] == [first.id]


async def test_nothing_is_taken_up_from_a_store_that_may_have_lost_what_was_taken_up(tmp_path: Path) -> None:
    with Valkey(tmp_path / "valkey") as server:
        async with client.connected(Settings(redis=server.url)) as redis:
            commands = await whole(redis)
            await ask(commands)
        server.kill()
        server.start()
        async with client.connected(Settings(redis=server.url)) as redis:
            commands = Table(redis, PARTITIONS)
            command = await ask(commands)
            with pytest.raises(Unavailable, match="anew"):
                await commands.claim("room-1", "tcp/1")
            assert not (await commands.sweep(0)).is_whole
            assert (await (await whole(redis)).claim("room-1", "tcp/1") or command).device == "room-1"


@pytest.mark.parametrize(
    "name, parameters, timeout, field",
    [
        ("", {}, SECOND, "name"),
        ("a b", {}, SECOND, "name"),
        ("x" * 65, {}, SECOND, "name"),
        ("blink", {"n": float("nan")}, SECOND, "parameters"),
        ("blink", {"n": [{"m": float("inf")}]}, SECOND, "parameters"),
        ("blink", {"n": "x" * 20_000}, SECOND, "parameters"),
        ("blink", {}, 0, "timeout"),
        ("blink", {}, 10**15, "timeout"),
    ],
)
def test_what_is_no_command(name: str, parameters: dict[str, object], timeout: int, field: str) -> None:
    with pytest.raises(BadField) as refused:
        new("room-1", name, parameters, timeout=timeout)
    assert refused.value.field == field


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
