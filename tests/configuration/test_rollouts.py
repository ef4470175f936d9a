"""Rollouts: waves, halts, again, and back."""

from __future__ import annotations

from typing import Any

import pytest

from isotherm.configuration import Rollout, Rollouts
from isotherm.configuration.rollout import Targets, waves_of
from isotherm.errors import BadField, SettingsError
from isotherm.limits import SECOND
from isotherm.registry import Registry
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
    assert sum(counts.values()) == found.devices
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
