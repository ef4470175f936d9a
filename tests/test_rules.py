"""Rules: what is impossible is refused with its reason; what is kept is what was said."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import msgspec
import pytest
from redis import Redis

from isotherm.errors import SettingsError, Unavailable
from isotherm.limits import DAY, MINUTE, SECOND
from isotherm.registry import Device
from isotherm.rules import Rule, Rules
from isotherm.rules import store as rule_store
from isotherm.rules.rule import Limits
from isotherm.rules.targets import unknown
from isotherm.settings import Settings
from isotherm.store import client
from tests.support.valkey import Valkey

_Answer = TypeVar("_Answer")

HOT: dict[str, Any] = {"id": "hot", "kind": "threshold", "metric": "temperature", "above": 30.0}
RATE = {**HOT, "kind": "rate"}
SILENT: dict[str, Any] = {"id": "gone", "kind": "silence", "silence": MINUTE}
TRUE: dict[str, Any] = {"id": "true", "kind": "expression", "expression": "a > 1"}
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({**HOT, "id": "Hot!"}, "id is 'Hot!': expected 1–64 lower-case letters"),
        ({**HOT, "id": "a/b"}, "id is 'a/b'"),
        ({**HOT, "id": "heard:x"}, "id is 'heard:x'"),
        ({**HOT, "kind": "odd"}, "kind is 'odd': expected one of threshold, rate, silence, expression"),
        ({**HOT, "severity": "bad"}, "severity is 'bad': expected one of critical, major, minor, warning, info"),
        ({**HOT, "metric": ""}, "metric is '': expected a metric such as temperature"),
        ({**HOT, "metric": "temp[ab"}, "metric is 'temp[ab': a [ needs its ]"),
        ({**HOT, "metric": "temp[]"}, "a [ needs its ], with characters between them"),
        ({**HOT, "metric": "a b"}, "metric is 'a b': expected 1–128 of the characters of names"),
        ({**HOT, "devices": ""}, "devices is ''"),
        ({**HOT, "devices": "room/temperature"}, "a device has no slash"),
        ({**HOT, "label": "floor==3"}, "label is 'floor==3': expected a word or key=value"),
        ({**HOT, "type": "a b"}, "type is 'a b'"),
        ({**HOT, "above": None}, "above is None: expected a number for above, for below, or for both"),
        ({**HOT, "above": NAN}, "above is nan: expected a finite number"),
        ({**HOT, "below": -INF}, "below is -inf: expected a finite number"),
        ({**HOT, "below": 30.0}, "above is 30.0: every value would be above it or below 30.0"),
        ({**HOT, "clear_above": 31.0}, "clear_above is 31.0: it is on the wrong side; expected at most above, 30.0"),
        ({**HOT, "above": None, "below": 5.0, "clear_below": 4.0}, "clear_below is 4.0: it is on the wrong side"),
        ({**HOT, "clear_below": 4.0}, "clear_below is 4.0: there is no below that it belongs to"),
        ({**HOT, "hysteresis": -1.0}, "hysteresis is -1.0: expected how far inside"),
        ({**HOT, "hysteresis": 1.0, "clear_above": 29.0}, "hysteresis is 1.0: clear_above says the same already"),
        ({**HOT, "below": 20.0, "hysteresis": 6.0}, "would never be cleared: no value is both at most 24.0"),
        ({**HOT, "hold": -1}, "hold is -1: expected µs, at least 0"),
        ({**HOT, "clear_after": 366 * DAY}, "at most 365 days"),
        ({**HOT, "silence": MINUTE}, "silence is 60000000: a rule of kind threshold has none, only silence"),
        ({**HOT, "window": MINUTE}, "window is 60000000: a rule of kind threshold has none, only rate"),
        ({**HOT, "expression": "a"}, "expression is 'a': a rule of kind threshold has none"),
        ({**RATE, "window": SECOND // 2}, "window is 500000: expected µs, at least 1 s"),
        ({**RATE, "per": "week"}, "per is 'week': expected one of second, minute, hour"),
        ({**SILENT, "silence": SECOND - 1}, "silence is 999999: expected µs, at least 1 s"),
        ({**SILENT, "silence": 0}, "silence is 0: expected µs"),
        ({**SILENT, "hold": SECOND}, "hold is 1000000: a rule of kind silence has none"),
        ({**SILENT, "above": 3.0}, "above is 3.0: a rule of kind silence has none, only threshold and rate"),
        ({**TRUE, "expression": "a >"}, "expression is 'a >': 'a >' cannot be read at position 3"),
        ({**TRUE, "expression": ""}, "expression is '': an expression is empty"),
        ({**TRUE, "expression": "1 > 2"}, "there is no metric in it"),
        ({**TRUE, "metric": "a"}, "metric is 'a': a rule of kind expression has none"),
        ({**HOT, "message": "{device.x}"}, "{device.x} is none of {device}, {metric}, {value}, {threshold}, {unit}"),
        ({**HOT, "message": "{value:>999999999}"}, "is none of"),
        ({**HOT, "message": "{0}"}, "{0} is none of"),
        ({**HOT, "message": "{value"}, "a brace has no second one"),
        ({**HOT, "message": "a\nb"}, "printable"),
        ({**HOT, "name": "x" * 501}, "expected at most 500 printable characters"),
    ],
)
def test_an_impossible_rule_is_refused_with_the_field_and_the_reason(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        Rule(**fields)


@pytest.mark.parametrize(
    "fields", [HOT, {**HOT, "below": 10.0, "hysteresis": 10.0}, RATE, SILENT, {**SILENT, "metric": "t*"}, TRUE]
)
def test_a_rule_reads_as_it_was_written(fields: dict[str, Any]) -> None:
    rule = Rule(**fields)
    assert Rule.from_json(rule.to_json()) == rule
    assert msgspec.json.decode(rule.to_json()) == fields  # what is as by default is left out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"id":"a","kind":"threshold","metric":"t","abov":3}', "`abov`"),
        ('{"id":"a","kind":"threshold","metric":"t","above":"3"}', "Expected `float | null`, got `str` - at `$.above`"),
        ('{"id":"a","kind":"threshold","metric":"t","above":1e999}', "out of range"),
        ('{"id":"a","kind":"odd","metric":"t"}', "'odd'"),
        ('{"id":"a"}', "`kind`"),
        ("[]", "Expected `object`"),
    ],
)
def test_json_that_is_no_rule_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        Rule.from_json(text)


def test_limits_are_cleared_where_they_are_raised_unless_said_otherwise() -> None:
    assert Rule(**HOT).limits == Limits(30.0, -INF, 30.0, -INF)
    assert Rule(**HOT, below=10.0, hysteresis=2.0).limits == Limits(30.0, 10.0, 28.0, 12.0)
    assert Rule(**HOT, below=10.0, clear_below=15.0).limits == Limits(30.0, 10.0, 30.0, 15.0)


SERIES = ("kitchen/temperature", "kitchen/bme280/humidity", "cellar/temperature", "cellar/voltage")
REGISTERED = {"kitchen": Device("kitchen", 0, labels=frozenset({"floor=1"})), "cellar": Device("cellar", 0, type="pump")}


@pytest.mark.parametrize(
    "fields",
    [
        HOT,
        {**HOT, "devices": "kit*", "label": "floor"},
        {**HOT, "type": "pump", "metric": "volt*"},
        {**TRUE, "expression": "temperature + `bme280/humidity` > 3"},
        SILENT,
        {**SILENT, "devices": "cellar"},
    ],
)
def test_a_rule_about_what_is_stored_is_known(fields: dict[str, Any]) -> None:
    assert unknown(Rule(**fields), SERIES, REGISTERED) == ""


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({**HOT, "metric": "temprature"}, "no device has sent a metric temprature; did you mean temperature?"),
        ({**HOT, "metric": "humidity"}, "did you mean bme280/humidity?"),
        ({**HOT, "metric": "xyz"}, "; there are bme280/humidity, temperature, voltage"),
        ({**HOT, "devices": "kitchn"}, "matches devices kitchn; did you mean kitchen?"),
        ({**HOT, "devices": "kitchen", "metric": "voltage"}, "no device that matches kitchen has sent a metric voltage"),
        ({**HOT, "label": "floor=2"}, "matches devices *, label floor=2"),
        ({**TRUE, "expression": "temperature > 3 and humidty < 3"}, "metric humidty; did you mean bme280/humidity?"),
    ],
)
def test_of_an_unknown_metric_or_device_it_is_said_what_was_perhaps_meant(fields: dict[str, Any], said: str) -> None:
    assert said in unknown(Rule(**fields), SERIES, REGISTERED)


def test_in_an_empty_store_nothing_is_known() -> None:
    assert unknown(Rule(**HOT), (), {}).endswith("nothing is stored yet")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


Within = Callable[[Callable[[Rules], Awaitable[Any]]], Any]


@pytest.fixture
def within(server: Valkey) -> Within:
    """Runs something with the rules of an empty store."""
    with Redis(port=server.port) as redis:
        redis.flushall()

    def call(work: Callable[[Rules], Awaitable[_Answer]]) -> _Answer:
        async def whole() -> _Answer:
            async with client.connected(Settings(redis=server.url)) as redis:
                return await work(Rules(redis))

        return asyncio.run(whole())

    return call


def test_rules_are_kept_and_every_change_has_a_version_of_its_own(within: Within) -> None:
    async def work(rules: Rules) -> None:
        versions = [await rules.version()]
        hot, gone = Rule(**HOT), Rule(**SILENT)
        for change in (
            rules.add(hot),
            rules.add(gone),
            rules.replace(msgspec.structs.replace(hot, above=31.0)),
            rules.enable("hot", False),
            rules.remove("gone"),
        ):
            await change
            versions.append(await rules.version())
        assert versions == sorted(set(versions))
        [kept] = await rules.all()
        assert (kept.above, kept.enabled) == (31.0, False)
        await rules.enable("hot", False)
        assert await rules.version() == versions[-1]  # it is as it was
        await rules.enable("hot")
        assert (await rules.get("hot")).enabled

    within(work)


def test_a_rule_is_not_added_twice_nor_one_too_many_and_none_is_found_that_is_not_there(
    within: Within, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(rules: Rules) -> None:
        await rules.add(Rule(**HOT))
        with pytest.raises(SettingsError, match="there is a rule 'hot' already"):
            await rules.add(Rule(**{**HOT, "above": 1.0}))
        assert (await rules.get("hot")).above == 30.0
        for missing in (rules.get("x"), rules.remove("x"), rules.enable("x"), rules.replace(Rule(**SILENT))):
            with pytest.raises(SettingsError, match=r"there is no rule '(x|gone)'; see: isotherm rules list"):
                await missing
        monkeypatch.setattr(rule_store, "MAX_RULES", 1)
        with pytest.raises(SettingsError, match="there are 1 rules, expected at most 1"):
            await rules.add(Rule(**SILENT))

    within(work)


def test_a_kept_rule_that_is_none_is_named(within: Within, server: Valkey) -> None:
    with Redis(port=server.port) as redis:
        redis.hset("iso:{registry}:rules", "old", '{"id":"old","kind":"threshold","metric":"t"}')
    with pytest.raises(SettingsError, match="the store's rule 'old' cannot be used, remove or replace it: above is None"):
        within(lambda rules: rules.all())
    within(lambda rules: rules.add(Rule(**HOT)))
    rules, [error] = within(lambda rules: rules.usable())
    assert rules == [Rule(**HOT)]
    assert "the store's rule 'old' cannot be used" in error
    within(lambda rules: rules.remove("hot"))
    within(lambda rules: rules.remove("old"))
    assert within(lambda rules: rules.all()) == []


async def test_a_store_that_is_away_is_said_to_be() -> None:
    redis = client.connect(Settings(redis="redis://127.0.0.1:1/0"))
    for call in (Rules(redis).all(), Rules(redis).add(Rule(**HOT)), Rules(redis).version()):
        with pytest.raises(Unavailable, match="the store does not answer"):
            await call
    await redis.aclose()
