"""Rollouts: waves, halts, again, and back."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from isotherm.configuration import Newcomers, Rollout, Rollouts, newcomers
from isotherm.configuration import rollouts as module
from isotherm.configuration.choosing import chosen
from isotherm.configuration.configuration import FIRMWARE
from isotherm.configuration.rollout import Targets, waves_of
from isotherm.errors import BadField, SettingsError
from isotherm.firmware import Image
from isotherm.limits import SECOND
from isotherm.registry import Device, Registry
from isotherm.store.client import Client

pytestmark = pytest.mark.servers

ALL = Targets(devices=["*"])


@pytest.fixture
async def rollouts(redis: Client) -> Rollouts:
    """Twenty devices, of which the even ones have a label."""
    registry = Registry(redis)
    for number in range(20):
        await registry.add(f"d{number:02}", type="lamp" if number < 5 else "")
        if number % 2 == 0:
            await registry.label(f"d{number:02}", add=["floor=2"])
    return Rollouts(redis, 2)


async def told(rollouts: Rollouts) -> list[str]:
    """Return the devices that are given their configuration now; connectors do."""
    found = sorted(await rollouts.configurations.due())
    return [one for one in found if await rollouts.configurations.claim(one, "tcp/1", is_new=False) is not None]


async def report(rollouts: Rollouts, devices: list[str], result: str = "true") -> None:
    """Have devices say what they have."""
    for device in devices:
        version = (await rollouts.configurations.get(device)).version
        if result:
            await rollouts.configurations.report(device, version, result.encode())
        else:
            await rollouts.configurations.note(device, version, "failed", "broken")


async def look(rollouts: Rollouts, rollout: Rollout) -> tuple[Rollout, dict[str, int]]:
    """Have a rollout go on; returns it, and how many devices are how far, without those that none are."""
    await rollouts.advance_all()
    found = await rollouts.get(rollout.id)
    progress = await rollouts.progress(rollout.id)
    assert found is not None
    counts = {name: getattr(progress, name) for name in progress.__struct_fields__}
    assert sum(counts.values()) == progress.devices
    assert found.continuous or progress.devices == found.devices
    return found, {name: count for name, count in counts.items() if count}


async def test_all_at_once(rollouts: Rollouts) -> None:
    begun = await rollouts.begin(Targets(label="floor=2"), {"interval": 5}, "eve")
    assert (begun.state, begun.devices, begun.waves) == ("running", 10, [10])
    assert await told(rollouts) == [f"d{number:02}" for number in range(0, 20, 2)]
    await report(rollouts, ["d00", "d02"])
    assert (await look(rollouts, begun))[1] == {"applied": 2, "pending": 8}
    await report(rollouts, [f"d{number:02}" for number in range(4, 20, 2)])
    found, progress = await look(rollouts, begun)
    assert (found.state, progress) == ("done", {"applied": 10})
    assert [one.id for one in await rollouts.newest(limit=5)] == [begun.id]


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (Targets(devices=["d0*"]), 10),
        (Targets(devices=["d0*"], label="floor"), 5),
        (Targets(type="lamp"), 5),
        (Targets(devices=["d01", "d19"]), 2),
    ],
)
async def test_targets(rollouts: Rollouts, targets: Targets, count: int) -> None:
    assert (await rollouts.begin(targets, {"a": 1}, "eve")).devices == count


@pytest.mark.parametrize(
    ("field", "targets", "options"),
    [
        ("targets", Targets(), {}),
        ("targets", Targets(label="nowhere"), {}),
        ("devices", Targets(devices=["d00", "nobody"]), {}),
        ("waves", ALL, {"waves": [0.5, 0.1]}),
        ("waves", ALL, {"waves": [0.0]}),
        ("waves", ALL, {"waves": [2.0]}),
        ("max_failure_rate", ALL, {"max_failure_rate": 1.5}),
        ("wave_timeout", ALL, {"wave_timeout": 0}),
        ("values", ALL, {"values": {}}),
    ],
)
async def test_what_cannot_be_rolled_out(rollouts: Rollouts, field: str, targets: Targets, options: dict[str, Any]) -> None:
    with pytest.raises(BadField) as error:
        await rollouts.begin(targets, **({"values": {"a": 1}, "by": "eve"} | options))
    assert error.value.field == field
    assert await rollouts.newest(limit=1) == []
    assert await rollouts.configurations.due() == set()


async def test_a_wave_begins_when_the_one_before_has_ended(rollouts: Rollouts) -> None:
    begun = await rollouts.begin(ALL, {"interval": 5}, "eve", waves=[0.05, 0.5])
    assert begun.waves == [1, 9, 10]
    for wave, expected in enumerate((["d00"], [f"d{n:02}" for n in range(1, 10)], [f"d{n:02}" for n in range(10, 20)])):
        for _ in range(3):
            assert (await look(rollouts, begun))[0].wave == wave
        assert await told(rollouts) == expected
        await report(rollouts, expected)
        await rollouts.advance_all()
    await rollouts.advance_all()
    assert await look(rollouts, begun) == ((await rollouts.get(begun.id)), {"applied": 20})
    assert (await look(rollouts, begun))[0].state == "done"


async def test_devices_that_are_away_hold_up_a_wave_for_a_while_only(rollouts: Rollouts) -> None:
    begun = await rollouts.begin(ALL, {"interval": 5}, "eve", waves=[0.5], wave_timeout=SECOND)
    assert len(await told(rollouts)) == 10
    while not await told(rollouts):
        await rollouts.advance_all()
    found, progress = await look(rollouts, begun)
    assert (found.wave, progress) == (1, {"pending": 20})


async def test_it_halts_when_too_many_fail_and_goes_on_when_it_is_told(rollouts: Rollouts) -> None:
    begun = await rollouts.begin(ALL, {"interval": 5}, "eve", waves=[0.5], max_failure_rate=0.3)
    await told(rollouts)
    await report(rollouts, ["d00", "d01", "d02"])
    await report(rollouts, ["d03"], "")
    assert (await look(rollouts, begun))[0].state == "running"
    await report(rollouts, ["d04"], "")
    found, progress = await look(rollouts, begun)
    assert (found.state, found.why) == ("halted", "2 of 5 devices that answered could not")
    assert progress == {"applied": 3, "failed": 2, "pending": 5, "waiting": 10}
    assert await rollouts.configurations.due() == set()
    assert await rollouts.members(begun.id, "failed") == ["d03", "d04"]
    assert await rollouts.retry(begun.id) == 2
    assert await told(rollouts) == ["d03", "d04"]
    await report(rollouts, ["d03", "d04"])
    await rollouts.resume(begun.id)
    assert await told(rollouts) == [f"d{number:02}" for number in range(5, 10)]


async def test_a_worker_that_has_not_heard_of_a_halt_gives_it_to_nobody(rollouts: Rollouts) -> None:
    begun = await rollouts.begin(ALL, {"interval": 5}, "eve", waves=[0.5])
    await rollouts.halt(begun.id, "halted by eve")
    late = msgspec.structs.replace(begun, wave=1)
    await rollouts._release(late)
    assert (await look(rollouts, begun))[1] == {"pending": 10, "waiting": 10}
    await rollouts.resume(begun.id)
    await rollouts._release(late)
    assert (await look(rollouts, begun))[1] == {"pending": 20}


async def test_back_to_what_it_was_where_nobody_has_changed_it_since(rollouts: Rollouts) -> None:
    desired = rollouts.configurations
    await desired.change("d00", {"interval": 1, "unit": "K"}, "eve")
    begun = await rollouts.begin(Targets(devices=["d00", "d01", "d02"]), {"interval": 5}, "eve")
    await report(rollouts, ["d00", "d01"])
    await desired.change("d02", {"interval": 7}, "bob")
    assert (await look(rollouts, begun))[1] == {"applied": 2, "superseded": 1}
    back = await rollouts.roll_back(begun, "eve")
    assert (back.back, back.devices) == (begun.id, 3)
    for device, expected in (("d00", {"interval": b"1", "unit": b'"K"'}), ("d01", {}), ("d02", {"interval": b"7"})):
        found = (await desired.get(device)).desired
        assert {key: bytes(value) for key, value in found.items()} == expected
    assert (await look(rollouts, back))[1] == {"pending": 2, "superseded": 1}
    await report(rollouts, ["d00", "d01"])
    assert (await look(rollouts, back))[0].state == "done"


async def test_what_has_changed_nothing_cannot_be_taken_back(rollouts: Rollouts, monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(_: str) -> None:
        raise ConnectionError("the process ended")

    monkeypatch.setattr(rollouts, "advance", die)
    with pytest.raises(ConnectionError):
        await rollouts.begin(ALL, {"interval": 5}, "eve")
    monkeypatch.undo()
    (begun,) = await rollouts.newest(limit=1)
    with pytest.raises(SettingsError, match="changed nothing"):
        await rollouts.roll_back(begun, "eve")


async def test_a_process_that_dies_half_way_leaves_it_to_a_worker(
    rollouts: Rollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    assign, calls = rollouts.configurations.assign, 0

    async def dying(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ConnectionError("the process ended")
        return await assign(*args, **options)

    monkeypatch.setattr(rollouts.configurations, "assign", dying)
    with pytest.raises(ConnectionError):
        await rollouts.begin(ALL, {"interval": 5}, "eve")
    assert 0 < len(await rollouts.configurations.due()) < 20
    await rollouts.advance_all()
    assert len(await rollouts.configurations.due()) == 20


async def test_one_that_follows_takes_the_place_of_one_that_runs(rollouts: Rollouts) -> None:
    first = await rollouts.begin(ALL, {"interval": 5}, "eve")
    await report(rollouts, ["d00"])
    second = await rollouts.begin(ALL, {"interval": 6}, "eve")
    found, progress = await look(rollouts, first)
    assert (found.state, progress) == ("done", {"applied": 1, "superseded": 19})
    assert (await look(rollouts, second))[1] == {"pending": 20}
    third = await rollouts.begin(ALL, {"other": 6}, "eve")
    await report(rollouts, [f"d{number:02}" for number in range(20)])
    assert (await look(rollouts, third))[0].state == "done"


@pytest.mark.parametrize(
    ("count", "shares", "sizes"), [(1, [0.1, 0.5], [1]), (10, [0.01, 0.1], [1, 9]), (10_000, [0.1, 1.0], [1_000, 9_000])]
)
def test_waves(count: int, shares: list[float], sizes: list[int]) -> None:
    assert waves_of(count, shares) == sizes


async def come(redis: Client, rollouts: Rollouts) -> None:
    """Have continuous rollouts find who has come, as if nobody had looked a moment ago."""
    await redis.delete("iso:{rollouts}:looking")
    await Newcomers(redis, 2).welcome()
    await rollouts.advance_all()


async def desired(rollouts: Rollouts, device: str) -> dict[str, bytes]:
    return {key: bytes(value) for key, value in (await rollouts.configurations.get(device)).desired.items()}


async def test_a_continuous_one_goes_to_devices_that_match_later(redis: Client, rollouts: Rollouts) -> None:
    registry = Registry(redis)
    begun = await rollouts.begin(Targets(label="floor=2"), {"interval": 5}, "eve", continuous=True)
    assert (begun.state, begun.devices) == ("running", 10)
    await report(rollouts, await told(rollouts))
    assert await look(rollouts, begun) == ((await rollouts.get(begun.id)), {"applied": 10})
    assert (await look(rollouts, begun))[0].state == "watching"
    await come(redis, rollouts)
    assert await told(rollouts) == []
    await registry.label("d01", add=["floor=2"])
    await registry.add("e01")
    await registry.note(["e02"])
    await registry.label("e02", add=["floor=2"])
    await come(redis, rollouts)
    assert await told(rollouts) == ["d01", "e02"]
    found, progress = await look(rollouts, begun)
    assert (found.state, progress) == ("running", {"applied": 10, "pending": 2})
    assert await desired(rollouts, "e02") == {"interval": b"5"}
    await report(rollouts, ["d01", "e02"])
    found, progress = await look(rollouts, begun)
    assert (found.state, progress) == ("watching", {"applied": 12})


async def test_a_continuous_one_may_be_for_devices_of_which_there_is_none_yet(redis: Client, rollouts: Rollouts) -> None:
    begun = await rollouts.begin(Targets(devices=["new-*", "e1"]), {"interval": 5}, "eve", waves=[0.1], continuous=True)
    assert (begun.state, begun.devices, begun.waves) == ("watching", 0, [])
    await Registry(redis).note(["new-1", "e1", "e11"])
    await come(redis, rollouts)
    assert await told(rollouts) == ["e1", "new-1"]


async def test_who_comes_during_the_waves_waits_for_none(redis: Client, rollouts: Rollouts) -> None:
    begun = await rollouts.begin(ALL, {"interval": 5}, "eve", waves=[0.5], continuous=True)
    assert len(await told(rollouts)) == 10
    await Registry(redis).note(["e1"])
    await come(redis, rollouts)
    assert await told(rollouts) == ["e1"]
    assert (await look(rollouts, begun))[1] == {"pending": 11, "waiting": 10}
    await report(rollouts, ["e1", *(f"d{number:02}" for number in range(10))])
    assert (await look(rollouts, begun))[0].wave == 1
    assert (await look(rollouts, begun))[1] == {"applied": 11, "pending": 10}


async def test_who_comes_and_fails_halts_it_and_then_nobody_is_given_it(redis: Client, rollouts: Rollouts) -> None:
    registry = Registry(redis)
    begun = await rollouts.begin(Targets(type="lamp"), {"a": 1}, "eve", max_failure_rate=0.3, continuous=True)
    await report(rollouts, await told(rollouts))
    await look(rollouts, begun)
    for number in range(3):
        await registry.add(f"e{number}", type="lamp")
    await come(redis, rollouts)
    await report(rollouts, ["e0", "e1", "e2"], "")
    found, progress = await look(rollouts, begun)
    assert (found.state, found.why) == ("halted", "3 of 8 devices that answered could not")
    assert progress == {"applied": 5, "failed": 3}
    await registry.add("e3", type="lamp")
    await come(redis, rollouts)
    assert await desired(rollouts, "e3") == {}
    await rollouts.resume(begun.id)
    await come(redis, rollouts)
    assert await desired(rollouts, "e3") == {"a": b"1"}


async def test_what_people_set_later_is_left_alone(redis: Client, rollouts: Rollouts) -> None:
    begun = await rollouts.begin(Targets(type="lamp"), {"interval": 5}, "eve", continuous=True)
    await report(rollouts, await told(rollouts))
    await rollouts.configurations.change("d00", {"interval": 7}, "bob")
    await rollouts.begin(Targets(devices=["d01"]), {"interval": 8}, "bob")
    for change in ("floor=1", "floor=2"):
        await Registry(redis).label("d00", add=[change])
        await Registry(redis).label("d01", add=[change])
        await come(redis, rollouts)
    assert [await desired(rollouts, name) for name in ("d00", "d01")] == [{"interval": b"7"}, {"interval": b"8"}]
    assert (await look(rollouts, begun))[1] == {"applied": 5}


async def test_of_two_the_newest_gives_what_both_would(redis: Client, rollouts: Rollouts) -> None:
    registry = Registry(redis)
    older = await rollouts.begin(Targets(label="floor"), {"interval": 5, "unit": "K"}, "eve", continuous=True)
    newer = await rollouts.begin(Targets(label="hot"), {"interval": 1}, "eve", continuous=True)
    versions = []
    for name, labels in (("e1", ["floor=3", "hot"]), ("e2", ["floor=3"]), ("e3", ["hot"])):
        await registry.add(name)
        await registry.label(name, add=labels)
    for _ in range(3):
        await registry.label("e1", add=["seen"])
        await come(redis, rollouts)
        versions.append((await rollouts.configurations.get("e1")).version)
    assert versions == [2, 2, 2], "each gives its part, and gives it once"
    assert await desired(rollouts, "e1") == {"interval": b"1", "unit": b'"K"'}
    assert await desired(rollouts, "e2") == {"interval": b"5", "unit": b'"K"'}
    assert await desired(rollouts, "e3") == {"interval": b"1"}
    await registry.label("e3", add=["floor=1"])
    await registry.label("e2", add=["hot"])
    await come(redis, rollouts)
    assert await desired(rollouts, "e3") == {"interval": b"1", "unit": b'"K"'}
    assert await desired(rollouts, "e2") == {"interval": b"1", "unit": b'"K"'}
    assert [one.id for one in await rollouts.continuous()] == [older.id, newer.id]


@pytest.mark.parametrize(("unit", "progress"), [({"unit": "K"}, {"applied": 20}), ({}, {"applied": 11, "superseded": 9})])
async def test_a_later_wave_leaves_to_the_newest_what_that_gives(
    rollouts: Rollouts, unit: dict[str, str], progress: dict[str, int]
) -> None:
    older = await rollouts.begin(ALL, {"interval": 5, **unit}, "eve", waves=[0.01], continuous=True)
    await report(rollouts, ["d00"])
    await rollouts.begin(Targets(label="floor=2"), {"interval": 1}, "eve", continuous=True)
    for _ in range(3):
        await rollouts.advance_all()
        await report(rollouts, await told(rollouts))
    found, counts = await look(rollouts, older)
    assert (found.state, counts) == ("watching", progress)
    assert (await desired(rollouts, "d12"))["interval"] == b"1"
    assert (await desired(rollouts, "d13"))["interval"] == b"5"
    assert ("unit" in await desired(rollouts, "d12")) is bool(unit)


async def test_a_newer_one_of_the_same_devices_and_keys_takes_the_place_of_one(redis: Client, rollouts: Rollouts) -> None:
    first = await rollouts.begin(Targets(label="floor=2"), {"interval": 5}, "eve", continuous=True)
    await rollouts.begin(Targets(label="floor=2"), {"interval": 6, "unit": "K"}, "eve")
    await come(redis, rollouts)
    assert (await look(rollouts, first))[0].state == "watching", "one that is not continuous ends none"
    second = await rollouts.begin(Targets(label="floor=2"), {"interval": 6, "unit": "K"}, "eve", continuous=True)
    await come(redis, rollouts)
    found, _ = await look(rollouts, first)
    assert (found.state, found.why) == ("halted", f"superseded by rollout {second.id}")
    assert [one.id for one in await rollouts.continuous()] == [second.id]
    assert len(await told(rollouts)) == 10, "who is given it still is"
    await Registry(redis).label("d01", add=["floor=2"])
    await come(redis, rollouts)
    assert (await desired(rollouts, "d01"))["interval"] == b"6"
    await rollouts.resume(first.id)
    await come(redis, rollouts)
    assert (await look(rollouts, first))[0].why == f"superseded by rollout {second.id}"
    await rollouts.halt(second.id, "halted by eve")
    await rollouts.resume(first.id)
    await Registry(redis).label("d03", add=["floor=2"])
    await come(redis, rollouts)
    assert (await desired(rollouts, "d03"))["interval"] == b"5"


async def test_the_way_back_ends_it_and_includes_who_has_come(redis: Client, rollouts: Rollouts) -> None:
    begun = await rollouts.begin(Targets(label="hot"), {"interval": 5}, "eve", continuous=True)
    await rollouts.configurations.change("d01", {"interval": 1}, "eve")
    await Registry(redis).label("d01", add=["hot"])
    await come(redis, rollouts)
    assert await desired(rollouts, "d01") == {"interval": b"5"}
    back = await rollouts.roll_back(begun, "eve")
    assert (back.devices, back.continuous) == (1, False)
    assert await desired(rollouts, "d01") == {"interval": b"1"}
    await Registry(redis).label("d02", add=["hot"])
    await come(redis, rollouts)
    assert await desired(rollouts, "d02") == {}
    assert (await look(rollouts, begun))[0].why == "taken back by eve"
    await report(rollouts, ["d01"])
    assert (await look(rollouts, back))[0].state == "done"


async def test_another_device_of_the_same_name_is_given_it_as_well(redis: Client, rollouts: Rollouts) -> None:
    begun = await rollouts.begin(Targets(devices=["d00"]), {"interval": 5}, "eve", continuous=True)
    await report(rollouts, await told(rollouts))
    await Registry(redis).remove("d00")
    await rollouts.configurations.forget("d00")
    await Registry(redis).add("d00")
    await come(redis, rollouts)
    assert await told(rollouts) == ["d00"]
    assert (await look(rollouts, begun))[1] == {"pending": 1}


async def test_firmware_is_given_to_who_comes(redis: Client, rollouts: Rollouts) -> None:
    image = Image(name="lamp", version="2.0", size=9, sha256="ab" * 32, signature="", key="")
    await rollouts.begin(Targets(type="meter"), {}, "eve", image=image, continuous=True)
    await Registry(redis).add("e1", type="meter")
    await come(redis, rollouts)
    assert b'"2.0"' in (await desired(rollouts, "e1"))[FIRMWARE]


async def test_who_dies_before_they_are_given_it_leaves_them_to_the_next(
    redis: Client, rollouts: Rollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = await rollouts.begin(Targets(label="hot"), {"interval": 5}, "eve", continuous=True)
    await Registry(redis).label("d01", add=["hot"])
    dying = Newcomers(redis, 2)

    async def die(*_: Any, **__: Any) -> None:
        raise ConnectionError("the process ended")

    monkeypatch.setattr(dying._rollouts.configurations, "assign", die)
    with pytest.raises(ConnectionError):
        await dying.welcome()
    assert (await look(rollouts, begun))[1] == {"waiting": 1}
    assert await told(rollouts) == []
    await come(redis, rollouts)
    assert await told(rollouts) == ["d01"]
    assert (await look(rollouts, begun))[0].state == "running"


async def test_workers_who_look_at_the_same_time_give_it_once(redis: Client, rollouts: Rollouts) -> None:
    begun = await rollouts.begin(Targets(label="hot"), {"interval": 5}, "eve", continuous=True)
    for number in range(20):
        await Registry(redis).label(f"d{number:02}", add=["hot"])
    going_on = await rollouts.continuous()
    await asyncio.gather(*(Newcomers(redis, 2)._look(going_on) for _ in range(5)))
    assert {(await rollouts.configurations.get(f"d{number:02}")).version for number in range(20)} == {1}
    assert (await look(rollouts, begun))[1] == {"pending": 20}


async def test_the_registry_is_read_only_when_it_has_changed_and_by_one(
    redis: Client, rollouts: Rollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, every = 0, Registry.all

    async def counted(self: Registry) -> list[Device]:
        nonlocal reads
        reads += 1
        return await every(self)

    monkeypatch.setattr(Registry, "all", counted)
    await come(redis, rollouts)
    assert reads == 0, "there is no continuous rollout"
    await rollouts.begin(Targets(label="hot"), {"interval": 5}, "eve", continuous=True)
    reads = 0
    await come(redis, rollouts)
    for _ in range(3):
        await come(redis, rollouts)
    assert reads == 1
    await Registry(redis).note(["e1"])
    await redis.delete("iso:{rollouts}:looking")
    await asyncio.gather(*(Newcomers(redis, 2).welcome() for _ in range(5)))
    assert reads == 2
    await Registry(redis).note(["e2"])
    await Newcomers(redis, 2).welcome()
    assert reads == 2, "somebody has looked a moment ago"
    assert 0 < await ttl(redis, "iso:{rollouts}:looking") <= newcomers.LOOK_SECONDS


async def test_more_devices_than_a_rollout_may_have(
    redis: Client, rollouts: Rollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = await rollouts.begin(Targets(devices=["e*"]), {"interval": 5}, "eve", continuous=True)
    monkeypatch.setattr(newcomers, "MAX_DEVICES", 2)
    for name in ("e3", "e1", "e2"):
        await Registry(redis).add(name)
    await come(redis, rollouts)
    assert await told(rollouts) == ["e1", "e3"]
    assert (await look(rollouts, begun))[0].why == "more than 2 devices match, the most that are given it"
    await Registry(redis).remove("e1")
    await come(redis, rollouts)
    assert await told(rollouts) == ["e2"]
    assert (await look(rollouts, begun))[0].why == ""


async def keys_of(redis: Client, id: str, *, expire: bool) -> set[str]:
    """Return the keys of a rollout that expire, or those that do not."""
    keys = [key.decode() async for key in redis.scan_iter(f"*:{id}*", count=1_000)]
    return {key for key in keys if (await ttl(redis, key) != -1) is expire}


async def ttl(redis: Client, key: str) -> int:
    """Return for how many seconds a key is there; -1 for ever."""
    async with redis.pipeline(transaction=False) as look:
        look.ttl(key)
        (seconds,) = await look.execute()
    return int(seconds)


async def test_a_continuous_one_is_remembered_until_long_after_it_was_halted(
    redis: Client, rollouts: Rollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = await rollouts.begin(ALL, {"interval": 5}, "eve", waves=[0.5], continuous=True)
    await report(rollouts, await told(rollouts))
    await Registry(redis).note(["e1"])
    await come(redis, rollouts)
    await report(rollouts, ["e1"], "")
    assert await keys_of(redis, begun.id, expire=True) == set()
    monkeypatch.setattr(module, "KEPT", timedelta(0))
    other = await rollouts.begin(Targets(devices=["d00"]), {"other": 1}, "eve")
    assert [one.id for one in await rollouts.newest(limit=5)] == [begun.id], "the other one is forgotten at once"
    assert await rollouts.get(other.id) is None
    monkeypatch.undo()
    await rollouts.halt(begun.id, "halted by eve")
    await report(rollouts, ["d00"], "")
    assert await keys_of(redis, begun.id, expire=False) == set()
    await rollouts.resume(begun.id)
    await rollouts.advance_all()
    assert await keys_of(redis, begun.id, expire=True) == set()
    assert len(await keys_of(redis, begun.id, expire=False)) > 8


def test_ten_thousand_names_are_found_among_as_many_devices() -> None:
    devices = [Device(f"d{number:05}", 0) for number in range(10_000)]
    assert len(chosen(Targets(devices=[one.name for one in devices]), devices)) == 10_000
