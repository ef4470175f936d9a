"""What scripts make of a device's configuration."""

from __future__ import annotations

import random
import sys
from typing import Any

import msgspec
import pytest

from isotherm.configuration import Configurations, table
from isotherm.configuration.configuration import MAX_BYTES, MAX_KEYS, described, version_in
from isotherm.errors import BadField, InvalidReading
from isotherm.limits import SECOND
from isotherm.store.client import Client

pytestmark = pytest.mark.servers

PARTITIONS = 2


@pytest.fixture
async def kept(redis: Client) -> Configurations:
    return Configurations(redis, PARTITIONS)


async def given(kept: Configurations, device: str = "room-1", *, is_new: bool = False) -> Any:
    """Return the parameters that a device is told now, or None."""
    command = await kept.claim(device, "tcp/1", is_new=is_new)
    return None if command is None else msgspec.json.decode(command.parameters)


async def test_nothing_is_desired_of_who_is_not_known(kept: Configurations) -> None:
    found = await kept.get("room-1")
    assert (found.version, found.state, found.desired, found.drift) == (0, "none", {}, [])
    assert await given(kept) is None
    assert await kept.report("room-1", 0, b'{"interval":5}') == "none"
    assert described(await kept.get("room-1"))["reported"] == {"interval": 5}


async def test_changes_are_merged_and_only_what_is_new_is_given(kept: Configurations) -> None:
    assert (await kept.change("room-1", {"interval": 5, "limits": {"low": 1.5}}, "eve")).state == "pending"
    await kept.change("room-1", {"interval": None, "unit": "°C"}, "bob")
    expected = {"version": 2, "values": {"limits": {"low": 1.5}, "unit": "°C"}}
    assert await given(kept) == expected
    assert await given(kept) is None  # its report is awaited
    assert await kept.note("room-1", 2, "sent") == "sent"
    assert await given(kept) is None
    assert await given(kept, is_new=True) == expected
    assert await kept.note("room-1", 2, "returned") == "sent"
    assert await given(kept) == expected
    found = await kept.get("room-1")
    assert (found.by, found.attempt, found.via) == ("bob", 2, "tcp/1"), "what came back was not given"
    assert await kept.report("room-1", 2, b'{"unit":"\xc2\xb0C","limits":{"low":1.50},"other":1}') == "applied"
    assert await given(kept, is_new=True) is None
    assert (await kept.change("room-1", {"unit": "°C"}, "eve")).version == 2  # it is so already
    assert await given(kept) is None


async def test_a_report_that_is_awaited_for_too_long_is_asked_for_again(
    kept: Configurations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "RETRY", (0, 3600 * SECOND))
    await kept.change("room-1", {"interval": 5}, "eve")
    assert await kept.due() == {"room-1"}
    assert await given(kept) is not None
    assert await kept.due() == {"room-1"}
    assert await given(kept) is not None
    assert await kept.due() == set()


async def test_versions_that_are_not_the_newest(kept: Configurations) -> None:
    await kept.change("room-1", {"interval": 5}, "eve")
    await kept.change("room-1", {"interval": 6}, "eve")
    assert await kept.note("room-1", 1, "failed", "old") == "pending"
    assert await kept.report("room-1", 1, b'{"interval":5}') == "pending"
    assert await kept.report("room-1", 2, b"true") == "applied"
    assert described(await kept.get("room-1"))["reported"] == {"interval": 6}
    assert await kept.report("room-1", 0, b"{}") == "pending"  # it was put back to what it was made with
    assert await given(kept) == {"version": 2, "values": {"interval": 6}}


async def test_a_store_that_was_restored_catches_up(kept: Configurations) -> None:
    await kept.change("room-1", {"interval": 5}, "eve")
    assert await kept.report("room-1", 7, b'{"interval":9}') == "pending"
    assert await given(kept) == {"version": 8, "values": {"interval": 5}}


async def test_a_report_may_be_nested_as_deep_as_can_be_read(kept: Configurations) -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)  # Python 3.12 and later read as much without
    try:
        await kept.change("room-1", {"interval": 5}, "eve")
        assert await kept.report("room-1", 1, b'{"interval":' + b"[" * 1_500 + b"]" * 1_500 + b"}") == "drifted"
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize("version", [999_999_998, 999_999_999])
async def test_a_device_that_reports_a_version_beyond_all_is_told_what_is_desired_all_the_same(
    kept: Configurations, version: int
) -> None:
    await kept.change("room-1", {"interval": 5}, "eve")
    await kept.report("room-1", version, b'{"interval":9}')
    for interval in (6, 7):
        await kept.change("room-1", {"interval": interval}, "eve")
        command = await kept.claim("room-1", "tcp/1", is_new=True)
        assert command is not None
        answered = version_in(command.id)
        assert answered == (await kept.get("room-1")).version
        assert await kept.report("room-1", answered, b'{"interval":%d}' % interval) == "applied"


@pytest.mark.parametrize(
    ("desired", "reported", "drift"),
    [
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}, []),
        ({"a": [1, 2]}, {"a": [1]}, ["a"]),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, ["a"]),
        ({"a": True}, {"a": 1}, ["a"]),
        ({"a": 1}, {}, ["a"]),
        ({"mode": {"version": "1.2", "size": 9}}, {"mode": "1.2"}, []),
        ({"mode": {"version": "1.2", "size": 9}}, {"mode": "1.1"}, ["mode"]),
    ],
)
async def test_drift(kept: Configurations, desired: Any, reported: Any, drift: list[str]) -> None:
    await kept.change("room-1", desired, "eve")
    state = await kept.report("room-1", 1, msgspec.json.encode(reported))
    found = await kept.get("room-1")
    assert (state, found.drift) == ("drifted" if drift else "applied", drift)
    pushed = await kept.push("room-1", "eve")
    assert (pushed.state, pushed.version) == (("pending", 1) if drift else ("applied", 1))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"": 1},
        {"firmware": {"version": "1.2"}},
        {"a b": 1},
        {"1": 1},
        {"a": float("nan")},
        {"a": "x" * MAX_BYTES},
        {f"a{number}": 1 for number in range(MAX_KEYS + 1)},
    ],
)
async def test_values_that_cannot_be_kept(kept: Configurations, values: Any) -> None:
    with pytest.raises(BadField) as error:
        await kept.change("room-1", values, "eve")
    assert error.value.field == "values"
    assert (await kept.get("room-1")).version == 0


async def test_it_does_not_grow_beyond_its_limit_by_many_changes(kept: Configurations) -> None:
    await kept.change("room-1", {f"a{number}": 1 for number in range(MAX_KEYS)}, "eve")
    with pytest.raises(BadField, match="too much"):
        await kept.change("room-1", {"b": 1}, "eve")
    await kept.change("room-1", {"b": 1, "a0": None}, "eve")
    assert len((await kept.get("room-1")).desired) == MAX_KEYS
    with pytest.raises(BadField) as error:
        await kept.change("room-1", {"b": 2}, "eve", version=1)
    assert error.value.field == "version"
    assert (await kept.change("room-1", {"b": 2}, "eve", version=2)).version == 3


async def test_a_report_that_cannot_be_kept(kept: Configurations) -> None:
    for result in (
        b'{"a":1e999}',
        msgspec.json.encode({str(number): 1 for number in range(1000)}),
        b"[" * 2_000 + b"]" * 2_000,
    ):
        with pytest.raises(InvalidReading):
            await kept.report("room-1", 0, result)


async def test_whatever_happens_what_was_applied_is_what_is_desired(kept: Configurations) -> None:
    """A device that forgets, replies late and twice; in the end it has what is desired."""
    draw = random.Random(4)
    has: dict[str, Any] = {}
    version, late = 0, []
    for _ in range(300):
        match draw.randrange(5):
            case 0:
                await kept.change("room-1", {draw.choice("abc"): draw.choice([None, 1, 2, 3])}, "eve")
            case 1 if (told := await given(kept, is_new=draw.random() < 0.5)) is not None:
                has, version = dict(told["values"]), told["version"]
                late.append((version, has))
            case 2:
                await kept.report("room-1", version, msgspec.json.encode(has))
            case 3 if late:
                await kept.report("room-1", draw.choice(late)[0], msgspec.json.encode(draw.choice(late)[1]))
            case 4:
                has, version = {}, 0
    for _ in range(3):
        await kept.report("room-1", version, msgspec.json.encode(has))
        if (told := await given(kept, is_new=True)) is not None:
            has, version = told["values"], told["version"]
    found = described(await kept.get("room-1"))
    assert found["state"] in ("applied", "none")
    assert has == found["desired"] == found["reported"]


async def test_what_came_back_is_announced_to_who_may_have_another_way(kept: Configurations, redis: Client) -> None:
    await kept.change("room-1", {"interval": 5}, "eve")
    assert await given(kept) is not None
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(*kept.channels())
        await kept.note("room-1", 1, "returned")
        said = b""
        while said != b"queued room-1 configuration":
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=10)
            said = message["data"] if message else b""
    assert await given(kept) is not None


async def test_who_comes_to_the_name_of_a_device_that_was_removed_gets_nothing_of_it(
    kept: Configurations, redis: Client
) -> None:
    await kept.change("room-1", {"interval": 5}, "eve")
    await kept.report("room-1", 1, b'{"interval":5}')
    await kept.change("room-1", {"interval": 6}, "eve")
    await kept.forget("room-1")
    assert await given(kept, is_new=True) is None
    assert await kept.due() == set()
    found = await kept.get("room-1")
    assert (found.state, found.desired, found.reported) == ("none", {}, {})
    await kept.change("room-1", {"mode": "eco"}, "bob")
    assert await given(kept) == {"version": 3, "values": {"mode": "eco"}}, "a version that no device has seen"
    await kept.forget("nobody")
    assert (await kept.get("nobody")).version == 0
