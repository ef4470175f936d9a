"""Programs that command and configure devices with the client, against the web process."""

from __future__ import annotations

import asyncio

import pytest

from dashboards.api import commands, configuration, firmware
from isotherm.client import (
    AsyncClient,
    Command,
    Configuration,
    Conflict,
    Image,
    Invalid,
    Key,
    NotFound,
    PreconditionFailed,
    Progress,
    Rollout,
    Targets,
    operations,
)
from isotherm.client.exchange import NoAnswer, Request, Wait, attempted
from isotherm.configuration import Configurations
from isotherm.firmware import signing
from isotherm.settings import Settings
from isotherm.store import client as stores
from tests.api.broker import kafka as kafka
from tests.client.conftest import Login

pytestmark = pytest.mark.servers

MODELS = [
    (Command, commands.Command),
    (Configuration, configuration.Configuration),
    (Rollout, configuration.Rollout),
    (Progress, configuration.Progress),
    (Targets, configuration.Targets),
    (Image, firmware.Image),
    (Key, firmware.Key),
]


@pytest.mark.parametrize(("ours", "theirs"), MODELS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_a_model_has_the_fields_of_the_platforms(ours: type, theirs: type) -> None:
    assert [one for one in ours.__struct_fields__ if one != "etag"] == list(theirs.model_fields)  # type: ignore[attr-defined]


def report(settings: Settings, device: str, result: bytes) -> None:
    """Have a device say what it has."""

    async def say() -> None:
        async with stores.connected(settings) as redis:
            configurations = Configurations(redis, settings.partitions)
            await configurations.report(device, (await configurations.get(device)).version, result)

    asyncio.run(say())


def test_a_device_is_asked_to_do_something(login: Login) -> None:
    otto = login("otto", "commands:read", "commands:write")
    made = otto.send_command("room-0", "blink", {"times": 3}, timeout=30, idempotent=True)
    assert (made.state, made.parameters, made.idempotent, made.by) == ("queued", {"times": 3}, True, "otto")
    assert (made.deadline - made.created).total_seconds() == 30
    assert otto.command("room-0", made.id) == made
    assert otto.send_command("room-0", "rest", wait=1).state == "queued", "nobody has answered within a second"
    assert [one.name for one in otto.commands("room-0")] == ["rest", "blink"]
    cancelled = otto.cancel_command("room-0", made.id)
    assert (cancelled.state, cancelled.has_ended, cancelled.error) == ("failed", True, "cancelled by otto")
    assert otto.command("room-0", made.id, wait=60) == cancelled, "what has ended is not waited for"
    with pytest.raises(Conflict, match="too late"):
        otto.cancel_command("room-0", made.id)
    with pytest.raises(NotFound):
        otto.command("room-0", "0" * 24)
    with pytest.raises(NotFound):
        otto.send_command("nobody", "blink")
    with pytest.raises(Invalid) as wrong:
        otto.send_command("room-0", "two words")
    assert wrong.value.field == "name"


def test_what_is_sent_again_has_the_same_key_and_the_next_one_another() -> None:
    def sent() -> list[Request]:
        moves = attempted(operations.commands.send_command("lamp", "blink"), 30.0)
        first = next(moves)
        assert isinstance(moves.send(NoAnswer("the connection was lost", was_sent=True)), Wait)
        second = moves.send(None)
        assert isinstance(first, Request)
        assert isinstance(second, Request)
        return [first, second]

    keys = [one.headers["idempotency-key"] for _ in range(2) for one in sent()]
    assert keys[0] == keys[1] != keys[2] == keys[3]


def test_commands_are_gone_through_page_by_page(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations.commands, "PAGE", 2)
    otto = login("otto", "commands:read", "commands:write")
    made = [otto.send_command("room-4", "blink").id for _ in range(5)]
    assert [one.id for one in otto.commands("room-4")] == made[::-1]


def test_a_device_is_configured_as_it_was_seen_and_pushed(settings: Settings, login: Login) -> None:
    otto = login("otto", "configuration:read", "configuration:write")
    seen = otto.configuration("room-0")
    assert (seen.version, seen.state, seen.desired, seen.changed) == (0, "none", {}, None)
    changed = otto.configure("room-0", {"interval": 5, "mode": {"fan": True}}, etag=seen.etag)
    assert (changed.state, changed.desired, changed.by) == ("pending", {"interval": 5, "mode": {"fan": True}}, "otto")
    with pytest.raises(PreconditionFailed, match="read it again"):
        otto.configure("room-0", {"interval": 6}, etag=seen.etag)
    assert otto.configure("room-0", {"mode": None}).desired == {"interval": 5}
    report(settings, "room-0", b'{"interval":9}')
    drifted = otto.configuration("room-0")
    assert (drifted.state, drifted.drift, drifted.reported) == ("drifted", ["interval"], {"interval": 9})
    assert otto.push_configuration("room-0").state == "pending"
    with pytest.raises(Invalid) as wrong:
        otto.configure("room-0", {"a b": 1})
    assert wrong.value.field == "values"
    with pytest.raises(NotFound):
        otto.configuration("nobody")


def test_a_rollout_from_its_begin_to_its_way_back(settings: Settings, login: Login) -> None:
    otto = login("otto", "configuration:read", "configuration:write")
    begun = otto.begin_rollout({"interval": 7}, devices=["room-[123]"], waves=[0.5], max_failure_rate=0.5, wave_timeout=90)
    assert (begun.waves, begun.devices, begun.targets) == ([2, 1], 3, Targets(devices=["room-[123]"]))
    assert (begun.state, begun.max_failure_rate, begun.wave_timeout, begun.progress.pending) == ("running", 0.5, 90.0, 2)
    assert [one.device for one in otto.rollout_devices(begun.id, "pending")] == ["room-1", "room-2"]
    assert (otto.halt_rollout(begun.id).state, otto.resume_rollout(begun.id).state) == ("halted", "running")
    report(settings, "room-1", b'{"interval":8}')
    assert otto.rollout(begun.id).progress.drifted == 1
    assert otto.retry_rollout(begun.id).progress.pending == 2
    back = otto.roll_back(begun.id)
    assert (back.back, back.devices) == (begun.id, 2)
    assert [one.id for one in otto.rollouts()] == [back.id, begun.id]
    assert list(otto.rollout_devices(begun.id)) == []
    with pytest.raises(Invalid, match="nobody"):
        otto.begin_rollout({"interval": 7}, devices=["nobody"])
    with pytest.raises(Invalid, match="either values or firmware"):
        otto.begin_rollout(label="floor")
    with pytest.raises(NotFound):
        otto.rollout("0" * 24)


def test_a_continuous_rollout(login: Login) -> None:
    otto = login("otto", "configuration:read", "configuration:write")
    begun = otto.begin_rollout({"interval": 7}, label="attic", continuous=True)
    assert (begun.state, begun.continuous, begun.devices) == ("watching", True, 0)
    assert otto.halt_rollout(begun.id).state == "halted"


def test_an_image_is_signed_uploaded_assigned_and_removed(login: Login) -> None:
    anna = login("anna", "read", "write")
    key, data = signing.new_key(), b"\x7fELF" * 1_000
    signed = signing.signed(key, "lamp", "1.0", data)
    with pytest.raises(Invalid, match="not signed with a key that is trusted"):
        anna.upload_image("lamp", "1.0", data, signed.signature)
    trusted = anna.trust_key(signing.public_of(key))
    assert list(anna.firmware_keys()) == [trusted] == [anna.trust_key(trusted.public)]
    kept = anna.upload_image("lamp", "1.0", data, signed.signature)
    assert (kept.sha256, kept.size, kept.key, kept.by) == (signed.sha256, 4_000, trusted.id, "anna")
    assert list(anna.firmware()) == [kept] == [anna.image("lamp", "1.0")]
    other = signing.signed(key, "lamp", "1.0", b"other")
    with pytest.raises(Conflict, match="new version"):
        anna.upload_image("lamp", "1.0", b"other", other.signature)
    assert anna.begin_rollout(firmware="lamp/1.0", devices=["room-3"]).values["firmware"]["sha256"] == kept.sha256
    anna.remove_image("lamp", "1.0")
    with pytest.raises(NotFound):
        anna.image("lamp", "1.0")
    anna.distrust_key(trusted.id)
    with pytest.raises(NotFound):
        anna.distrust_key(trusted.id)


async def test_the_one_that_awaits_does_the_same(anna: AsyncClient) -> None:
    made = await anna.send_command("room-2", "blink", {"times": 1}, wait=1)
    assert [one.id async for one in anna.commands("room-2")] == [made.id]
    assert (await anna.cancel_command("room-2", made.id)).has_ended
    assert (await anna.configure("room-4", {"interval": 1})).desired == {"interval": 1}
    begun = await anna.begin_rollout({"interval": 2}, devices=["room-4"])
    assert [one.device async for one in anna.rollout_devices(begun.id, "pending")] == ["room-4"]
    key = await anna.trust_key(signing.public_of(signing.new_key()))
    await anna.distrust_key(key.id)
    assert [one async for one in anna.firmware()] == []
