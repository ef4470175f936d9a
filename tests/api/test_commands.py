"""Commands over the API, with a Kafka and devices that are not there."""

from __future__ import annotations

import asyncio

import pytest

from tests.api.broker import kafka as kafka
from tests.api.conftest import Login

pytestmark = pytest.mark.servers


async def test_a_command_is_kept_listed_and_cancelled(login: Login) -> None:
    program = await login("otto", "commands:read", "commands:write")
    made = await program.post("/devices/room-1/commands", {"name": "blink", "parameters": {"times": 3}})
    assert made.status == 202
    command = made.json
    assert (command["state"], command["by"], command["parameters"]) == ("queued", "otto", {"times": 3})
    assert (await program.get(made.headers["location"].removeprefix("/api/v1"))).json == command
    for name in ("second", "third"):
        assert (await program.post("/devices/room-1/commands", {"name": name})).status == 202
    first = (await program.get("/devices/room-1/commands?limit=2")).json
    assert [one["name"] for one in first["items"]] == ["third", "second"]
    rest = (await program.get(f"/devices/room-1/commands?limit=2&cursor={first['next']}")).json
    assert ([one["name"] for one in rest["items"]], rest["next"]) == (["blink"], None)
    cancelled = await program.delete(f"/devices/room-1/commands/{command['id']}")
    assert (cancelled.json["state"], cancelled.json["error"]) == ("failed", "cancelled by otto")
    again = await program.delete(f"/devices/room-1/commands/{command['id']}")
    assert again.status == 409
    assert "too late" in again.detail


async def test_with_an_idempotency_key_it_is_asked_for_once(login: Login) -> None:
    program = await login("otto", "commands:read", "commands:write")
    asked = [await program.post("/devices/room-2/commands", {"name": "blink"}, idempotency_key="the same") for _ in range(3)]
    assert len({one.json["id"] for one in asked}) == 1
    assert len((await program.get("/devices/room-2/commands")).json["items"]) == 1


async def test_who_waits_is_answered_when_it_has_ended_or_the_time_is_over(login: Login) -> None:
    program = await login("otto", "commands:read", "commands:write")
    asked = await program.post("/devices/room-3/commands?wait=1", {"name": "blink"})
    assert (asked.status, asked.json["state"]) == (202, "queued")
    address = f"/devices/room-3/commands/{asked.json['id']}"
    waiting = asyncio.create_task(program.get(address + "?wait=30"))
    await asyncio.wait({waiting}, timeout=0.3)
    assert not waiting.done()
    assert (await program.delete(address)).status == 200
    async with asyncio.timeout(10):
        assert (await waiting).json["state"] == "failed"


async def test_a_device_has_only_so_many_commands_that_wait(login: Login) -> None:
    program = await login("otto", "commands:read", "commands:write")
    for _ in range(100):
        assert (await program.post("/devices/room-4/commands", {"name": "blink"})).status == 202
    refused = await program.post("/devices/room-4/commands", {"name": "blink"})
    assert refused.status == 409
    assert "100 commands wait for room-4" in refused.detail


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "blink", "timeout": 0}, "timeout"),
        ({"name": "blink", "timeout": 10**6}, "timeout"),
        ({"name": "blink", "parameters": [1]}, "parameters"),
        ({"name": "blink", "parameters": {"x": "y" * 20_000}}, "parameters"),
        ({"name": "blink", "now": True}, "now"),
    ],
)
async def test_what_is_no_command_is_told_field_by_field(login: Login, form: dict[str, object], field: str) -> None:
    program = await login("otto", "commands:write")
    refused = await program.post("/devices/room-0/commands", form)
    assert refused.status == 422
    assert field in [one["field"] for one in refused.json["errors"]]


async def test_who_may(login: Login) -> None:
    reader = await login("otto", "commands:read")
    assert (await reader.post("/devices/room-0/commands", {"name": "blink"})).status == 403
    viewer = await login("vera", "read")
    assert (await viewer.get("/devices/room-0/commands")).status == 200
    writer = await login("otto", "commands:write")
    assert (await writer.post("/devices/nobody/commands", {"name": "blink"})).status == 404
    assert (await writer.get("/devices/room-0/commands")).status == 403
