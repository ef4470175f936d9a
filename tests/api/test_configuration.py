"""Configuration, rollouts and firmware over the API."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from isotherm.configuration import Configurations, Newcomers
from isotherm.firmware import Image, signing
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store import client as stores
from tests.api.conftest import Login
from tests.api.program import Answer, Program

pytestmark = pytest.mark.servers

BOTH = ("configuration:read", "configuration:write")


async def report(settings: Settings, device: str, result: bytes) -> None:
    """Have a device say what it has."""
    async with stores.connected(settings) as redis:
        configurations = Configurations(redis, settings.partitions)
        version = (await configurations.get(device)).version
        await configurations.report(device, version, result)


async def upload(program: Program, address: str, data: bytes, signed: Image) -> Answer:
    """Send an image with a signature."""
    headers = {"Content-Type": "application/octet-stream"}
    return await program.send("PUT", f"{address}?signature={quote(signed.signature)}", data, **headers)


async def test_a_devices_configuration(settings: Settings, login: Login) -> None:
    program = await login("otto", *BOTH)
    address = "/devices/room-0/configuration"
    first = await program.get(address)
    assert (first.json["version"], first.json["state"], first.json["desired"]) == (0, "none", {})
    made = await program.patch(address, {"values": {"interval": 5}}, if_match=first.headers["etag"])
    assert (made.status, made.json["state"], made.json["desired"], made.json["by"]) == (
        200,
        "pending",
        {"interval": 5},
        "otto",
    )
    refused = await program.patch(address, {"values": {"interval": 6}}, if_match=first.headers["etag"])
    assert refused.status == 412
    await report(settings, "room-0", b'{"interval":9}')
    found = (await program.get(address)).json
    assert (found["state"], found["drift"], found["reported"]) == ("drifted", ["interval"], {"interval": 9})
    assert (await program.post(address + "/push", None)).json["state"] == "pending"
    assert (await program.patch(address, {"values": {"interval": None}})).json["desired"] == {}


@pytest.mark.parametrize(
    "values", [{}, {"a b": 1}, {"firmware": {"version": "1"}}, {"a": "x" * 13_000}, {f"a{n}": 1 for n in range(65)}]
)
async def test_values_that_cannot_be(login: Login, values: Any) -> None:
    program = await login("otto", *BOTH)
    refused = await program.patch("/devices/room-1/configuration", {"values": values})
    assert refused.status in (400, 422)
    assert "values" in str(refused.json)
    assert (await program.get("/devices/room-1/configuration")).json["version"] == 0


async def test_a_rollout_and_back(settings: Settings, login: Login) -> None:
    program = await login("otto", *BOTH)
    form = {"targets": {"devices": ["room-2", "room-3", "room-4"]}, "values": {"interval": 7}, "waves": [0.5]}
    begun = await program.post("/rollouts", form, idempotency_key="one")
    assert (begun.status, begun.json["waves"], begun.json["progress"]["pending"]) == (201, [2, 1], 2)
    assert (await program.post("/rollouts", form, idempotency_key="one")).json["id"] == begun.json["id"]
    address = "/rollouts/" + begun.json["id"]
    assert begun.headers["location"] == "/api/v1" + address
    devices = (await program.get(address + "/devices?state=pending&limit=1")).json
    assert [one["device"] for one in devices["items"]] == ["room-2"]
    devices = (await program.get(f"{address}/devices?state=pending&cursor={devices['next']}")).json
    assert [one["device"] for one in devices["items"]] == ["room-3"]
    halted = await program.post(address + "/actions", {"action": "halt"})
    assert (halted.json["state"], halted.json["why"]) == ("halted", "halted by otto")
    assert (await program.post(address + "/actions", {"action": "resume"})).json["state"] == "running"
    await report(settings, "room-2", b"true")
    assert (await program.get(address)).json["progress"]["applied"] == 1
    back = await program.post(address + "/rollback", None)
    assert (back.status, back.json["back"], back.json["devices"]) == (201, begun.json["id"], 2)
    assert (await program.get("/devices/room-2/configuration")).json["desired"] == {}
    listed = (await program.get("/rollouts?limit=1")).json
    assert listed["items"][0]["id"] == back.json["id"]
    assert (await program.get(f"/rollouts?cursor={listed['next']}")).json["items"][0]["id"] == begun.json["id"]


async def test_a_continuous_rollout_is_given_to_who_comes(settings: Settings, login: Login) -> None:
    program = await login("otto", *BOTH)
    form = {"targets": {"label": "attic"}, "values": {"interval": 7}}
    assert (await program.post("/rollouts", form)).status in (400, 422), "there is no such device"
    begun = await program.post("/rollouts", form | {"continuous": True})
    assert (begun.status, begun.json["state"], begun.json["devices"]) == (201, "watching", 0)
    async with stores.connected(settings) as redis:
        await Registry(redis).label("room-1", add=["attic"])
        await Newcomers(redis, settings.partitions).welcome()
    found = (await program.get("/rollouts/" + begun.json["id"])).json
    assert (found["state"], found["continuous"], found["devices"], found["progress"]["pending"]) == ("running", True, 1, 1)
    assert (await program.get("/devices/room-1/configuration")).json["desired"] == {"interval": 7}
    halted = await program.post(f"/rollouts/{begun.json['id']}/actions", {"action": "halt"})
    assert (halted.json["state"], halted.json["why"]) == ("halted", "halted by otto")


@pytest.mark.parametrize(
    ("field", "form"),
    [
        ("targets", {"targets": {}, "values": {"a": 1}}),
        ("targets", {"targets": {}, "values": {"a": 1}, "continuous": True}),
        ("devices", {"targets": {"devices": ["nobody"]}, "values": {"a": 1}}),
        ("waves", {"targets": {"devices": ["*"]}, "values": {"a": 1}, "waves": [0.5, 0.1]}),
        ("values", {"targets": {"devices": ["*"]}}),
        ("values", {"targets": {"devices": ["*"]}, "values": {"a": 1}, "firmware": "a/1"}),
        ("firmware", {"targets": {"devices": ["*"]}, "firmware": "a/1"}),
        ("max_failure_rate", {"targets": {"devices": ["*"]}, "values": {"a": 1}, "max_failure_rate": 2.0}),
    ],
)
async def test_what_cannot_be_rolled_out(login: Login, field: str, form: Any) -> None:
    program = await login("otto", *BOTH)
    before = (await program.get("/rollouts")).json
    refused = await program.post("/rollouts", form)
    assert refused.status in (400, 422)
    assert field in str(refused.json)
    assert (await program.get("/rollouts")).json == before


async def test_firmware_is_uploaded_and_assigned(login: Login) -> None:
    owner = await login("anna", "read", "write")
    program = await login("otto", "firmware:read", "firmware:write", *BOTH)
    key, data = signing.new_key(), b"\x7fELF" * 400_000
    made = signing.signed(key, "lamp", "1.0", data)
    address = "/firmware/lamp/1.0"
    assert (await upload(program, address, data, made)).status in (400, 422)
    public = signing.public_of(key)
    assert (await program.post("/firmware-keys", {"public": public})).status == 403
    assert (await owner.post("/firmware-keys", {"public": "AAAA"})).status in (400, 422)
    assert (await owner.post("/firmware-keys", {"public": public})).status == 201
    assert (await upload(program, address, b"other", made)).status in (400, 422)
    kept = await upload(program, address, data, made)
    assert (kept.status, kept.json["sha256"], kept.json["size"]) == (201, made.sha256, len(data))
    other = signing.signed(key, "lamp", "1.0", b"other")
    assert (await upload(program, address, b"other", other)).status == 409
    assert [one["version"] for one in (await program.get("/firmware")).json["items"]] == ["1.0"]
    begun = await program.post("/rollouts", {"targets": {"devices": ["room-1"]}, "firmware": "lamp/1.0"})
    assert begun.json["values"]["firmware"]["sha256"] == made.sha256
    desired = (await program.get("/devices/room-1/configuration")).json["desired"]
    assert desired["firmware"]["path"] == "firmware/lamp/1.0"
    assert (await program.delete(address)).status == 204
    assert (await program.get(address)).status == 404
    assert (await owner.delete("/firmware-keys/" + signing.key_id(public))).status == 204
    assert (await owner.delete("/firmware-keys/" + signing.key_id(public))).status == 404


async def test_who_may_only_look_changes_nothing(login: Login) -> None:
    program = await login("vera", "read", "write")
    for refused in (
        await program.patch("/devices/room-1/configuration", {"values": {"a": 1}}),
        await program.post("/rollouts", {"targets": {"devices": ["*"]}, "values": {"a": 1}}),
        await program.send("PUT", "/firmware/lamp/2.0", b"x"),
    ):
        assert refused.status == 403
