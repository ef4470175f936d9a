"""The table of alarms, labels of devices, and the commands around both, on a real store."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec
import pytest
from redis import Redis

from agents.alarms.directory import Directory
from agents.alarms.engine import AlarmEngine
from agents.downsample import downsample
from isotherm import kafka
from isotherm.alarms import Alarm, Alarms
from isotherm.alarms.row import ENGINE
from isotherm.alarms.table import ACKNOWLEDGED_SHOWN, MAX_SHELVED
from isotherm.cli import main
from isotherm.clock import now_us
from isotherm.errors import SettingsError
from isotherm.events import Event
from isotherm.limits import DAY, HOUR, MINUTE, SECOND
from isotherm.registry import Registry
from isotherm.rules import Rule
from isotherm.settings import Settings
from isotherm.store import client, layout
from isotherm.store.client import Client
from isotherm.store.events import EventLog
from isotherm.store.writer import Writer
from isotherm.topics import EVENTS, partition_of
from tests.contracts.store import pack
from tests.support.tansu import Tansu
from tests.support.valkey import Valkey

PARTITIONS: int = Settings.model_fields["partitions"].default
NOW = now_us() // SECOND * SECOND
HOT = Rule(id="hot", kind="threshold", metric="t", above=30.0, severity="major")
KEY = "hot/kitchen/t"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(autouse=True)
def _empty(server: Valkey, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISOTHERM_REDIS", server.url)
    monkeypatch.setenv("ISOTHERM_KAFKA", "127.0.0.1:1")
    with Redis(port=server.port) as redis:
        redis.flushall()


_Answer = TypeVar("_Answer")


def within(work: Callable[[Client], Awaitable[_Answer]]) -> _Answer:
    """Do something with the store."""

    async def whole() -> _Answer:
        async with client.connected(Settings.load()) as redis:
            return await work(redis)

    return asyncio.run(whole())


class Fleet:
    """Devices whose readings an engine looks at; what it keeps is written as the framework writes it."""

    def __init__(self, server: Valkey, *rules: Rule) -> None:
        self._port = server.port
        self._engine = AlarmEngine(Directory(rules or [HOT]))

    def say(self, series: str, value: float, time: int = NOW) -> None:
        readings = replace(pack([time], [value]), names=[series], received_at=time)
        self._engine.run([readings])
        self._keep(series.partition("/")[0])

    def _keep(self, device: str) -> None:
        changes = self._engine.changes()
        key = layout.state_key(partition_of(device, PARTITIONS), ENGINE)
        with Redis(port=self._port) as redis:
            for name, row in changes.rows.items():
                redis.hset(key, name, row)


def table(now: int | None = None) -> list[Alarm]:
    return within(lambda redis: Alarms(redis, PARTITIONS).list(now=now))


def statuses(now: int | None = None) -> dict[str, str]:
    return {one.row.key: one.status for one in table(now)}


def act(work: Callable[[Alarms], Awaitable[Event]]) -> Event:
    return within(lambda redis: work(Alarms(redis, PARTITIONS)))


def test_the_table_has_the_newest_first_of_all_partitions(server: Valkey) -> None:
    fleet = Fleet(server)
    for number in range(20):
        fleet.say(f"room-{number}/t", 31.0, NOW + number)
    fleet.say("room-3/t", 1.0, NOW + 100)
    shown = table()
    assert [one.row.device for one in shown] == [f"room-{number}" for number in range(19, -1, -1)]
    assert [one.row.device for one in shown if not one.row.is_active] == ["room-3"]


def test_what_is_only_being_held_and_what_is_only_heard_of_is_no_alarm(server: Valkey) -> None:
    fleet = Fleet(server, replace_rule(hold=MINUTE), Rule(id="gone", kind="silence", metric="t", silence=MINUTE))
    fleet.say("kitchen/t", 31.0)
    assert table() == []


def replace_rule(**changes: Any) -> Rule:
    return msgspec.structs.replace(HOT, **changes)


def test_an_acknowledgement_is_of_one_occurrence(server: Valkey) -> None:
    fleet = Fleet(server)
    fleet.say("kitchen/t", 31.0)
    event = act(lambda alarms: alarms.acknowledge(KEY, NOW, "ann", "on my way", now=NOW + 1))
    assert (event.kind, event.device, event.alarm, event.since, event.rule) == (
        "alarm.acknowledged",
        "kitchen",
        KEY,
        NOW,
        "hot",
    )
    assert (event.by, event.message, event.time, event.severity) == ("ann", "on my way", NOW + 1, "major")
    assert statuses() == {KEY: "active, acknowledged"}
    with pytest.raises(SettingsError, match="acknowledged already, by ann"):
        act(lambda alarms: alarms.acknowledge(KEY, NOW, "bob"))
    fleet.say("kitchen/t", 1.0, NOW + SECOND)
    assert statuses() == {KEY: "cleared, acknowledged"}
    fleet.say("kitchen/t", 31.0, NOW + 2 * SECOND)
    assert statuses() == {KEY: "active"}
    with pytest.raises(SettingsError, match="was raised anew"):
        act(lambda alarms: alarms.acknowledge(KEY, NOW, "ann"))
    assert statuses() == {KEY: "active"}
    act(lambda alarms: alarms.acknowledge(KEY, NOW + 2 * SECOND, "bob"))
    [alarm] = table()
    assert alarm.acknowledged is not None
    assert (alarm.acknowledged.by, alarm.needs_attention) == ("bob", True)


def test_a_cleared_alarm_leaves_the_table_a_day_after_but_only_if_somebody_has_seen_it(server: Valkey) -> None:
    fleet = Fleet(server)
    for device in ("kitchen", "cellar"):
        fleet.say(f"{device}/t", 31.0)
        fleet.say(f"{device}/t", 1.0, NOW + 1)
    act(lambda alarms: alarms.acknowledge(KEY, NOW, "ann"))
    later = NOW + 1 + ACKNOWLEDGED_SHOWN
    assert statuses(later) == {KEY: "cleared, acknowledged", "hot/cellar/t": "cleared"}
    assert statuses(later + 1) == {"hot/cellar/t": "cleared"}


def test_a_shelved_alarm_is_shelved_however_often_it_is_raised_until_its_time(server: Valkey) -> None:
    fleet = Fleet(server)
    fleet.say("kitchen/t", 31.0)
    event = act(lambda alarms: alarms.shelve(KEY, NOW + HOUR, "ann", since=NOW, now=NOW))
    assert (event.kind, event.until, event.since, event.by) == ("alarm.shelved", NOW + HOUR, NOW, "ann")
    fleet.say("kitchen/t", 1.0, NOW + 1)
    fleet.say("kitchen/t", 31.0, NOW + 2)
    assert statuses(NOW + HOUR - 1) == {KEY: "active, shelved"}
    assert statuses(NOW + HOUR) == {KEY: "active"}
    with pytest.raises(SettingsError, match="was raised anew"):
        act(lambda alarms: alarms.shelve(KEY, NOW + HOUR, "ann", since=NOW, now=NOW))
    event = act(lambda alarms: alarms.unshelve(KEY, "bob", now=NOW))
    assert (event.kind, event.device, event.metric, event.alarm) == ("alarm.unshelved", "kitchen", "t", KEY)
    assert statuses(NOW) == {KEY: "active"}
    with pytest.raises(SettingsError, match="is not shelved"):
        act(lambda alarms: alarms.unshelve(KEY, "bob", now=NOW))


def test_a_rule_is_shelved_in_every_partition(server: Valkey) -> None:
    fleet = Fleet(server)
    for number in range(20):
        fleet.say(f"room-{number}/t", 31.0)
    event = act(lambda alarms: alarms.shelve("hot", NOW + HOUR, "ann", now=NOW))
    assert (event.rule, event.device, event.alarm) == ("hot", "", "")
    assert set(statuses(NOW).values()) == {"active, shelved"}
    act(lambda alarms: alarms.unshelve("hot", "ann", now=NOW))
    assert set(statuses(NOW).values()) == {"active"}


@pytest.mark.parametrize(("span", "key"), [(0, KEY), (MAX_SHELVED + 1, KEY), (HOUR, "hot/nowhere/t")])
def test_nothing_is_shelved_for_ever_or_until_the_past_or_without_being_there(server: Valkey, span: int, key: str) -> None:
    Fleet(server).say("kitchen/t", 31.0)
    with pytest.raises(SettingsError, match=r"at most 30 days|there is no alarm 'hot/nowhere/t'"):
        act(lambda alarms: alarms.shelve(key, NOW + span, "ann", now=NOW))


def test_marks_that_mean_nothing_any_more_are_removed_with_the_next(server: Valkey) -> None:
    fleet = Fleet(server)
    fleet.say("kitchen/t", 31.0)
    act(lambda alarms: alarms.acknowledge(KEY, NOW, "ann", now=NOW))
    act(lambda alarms: alarms.shelve(KEY, NOW + SECOND, "ann", now=NOW))
    marks = layout.marks_key(partition_of("kitchen", PARTITIONS))
    with Redis(port=server.port) as redis:
        assert redis.hlen(marks) == 2
        redis.delete(layout.state_key(partition_of("kitchen", PARTITIONS), ENGINE))
        act(lambda alarms: alarms.shelve("hot", NOW + 3 * DAY, "ann", now=NOW + 2 * DAY))
        assert redis.hkeys(marks) == [b"shelf hot"]


def test_what_people_do_are_events_of_a_source_of_their_own(server: Valkey) -> None:
    Fleet(server).say("kitchen/t", 31.0)
    first = act(lambda alarms: alarms.shelve("hot", NOW + HOUR, "ann", now=NOW))
    second = act(lambda alarms: alarms.shelve("hot", NOW + HOUR, "ann", now=NOW))
    assert first.source.startswith("people/")
    assert first.id != second.id


# Labels


def test_labels_are_added_and_removed_and_a_key_has_one_value() -> None:
    async def work(redis: Client) -> None:
        registry = Registry(redis)
        await registry.add("kitchen", type="room")
        before = await registry.version()
        assert await registry.label("kitchen", add=["floor=3", "old", "floor"]) == {"floor=3", "old", "floor"}
        assert await registry.label("kitchen", add=["floor=4"], remove=["old"]) == {"floor=4", "floor"}
        assert await registry.version() == before + 2
        device = await registry.get("kitchen")
        assert device is not None
        assert (set(device.labels), device.type) == ({"floor=4", "floor"}, "room")
        assert [device.has_label(one) for one in ("floor=4", "floor", "floor=3", "flo")] == [True, True, False, False]
        await registry.add("kitchen", is_gateway=True)
        assert (await registry.all())[0].labels == {"floor=4", "floor"}
        assert await registry.label("kitchen", remove=["floor"]) == frozenset()

    within(work)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"add": ["a b"]}, "'a b' is no label: a word or key=value"),
        ({"add": ["=3"]}, "'=3' is no label"),
        ({"add": ["a="]}, "'a=' is no label"),
        ({"add": ["a" * 65]}, "is no label"),
        ({"remove": ["new"]}, "kitchen has no label 'new'; it has none"),
        ({"add": [f"l{number}" for number in range(33)]}, "would have 33 labels, expected at most 32"),
    ],
)
def test_a_label_that_is_none_is_refused(changes: dict[str, Sequence[str]], said: str) -> None:
    async def work(redis: Client) -> None:
        await Registry(redis).add("kitchen")
        with pytest.raises(SettingsError, match=said):
            await Registry(redis).label("kitchen", **changes)
        with pytest.raises(SettingsError, match="there is no device 'cellar'"):
            await Registry(redis).label("cellar", add=["a"])

    within(work)


# Commands


@dataclass
class Said:
    """What a command printed, and how it ended."""

    out: str
    err: str
    code: int


Isotherm = Callable[..., Said]


@pytest.fixture
def isotherm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Isotherm:
    """Runs a command in this process."""

    def call(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["isotherm", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code
        return Said(said.out, said.err, code if isinstance(code, int) else 0)

    return call


def store(series: str, *readings: tuple[int, float]) -> None:
    """Store readings: seconds after NOW, and value."""

    async def write(redis: Client) -> None:
        readings_of = replace(
            pack([NOW + at * SECOND for at, _ in readings], [value for _, value in readings]), names=[series]
        )
        partition = partition_of(series.partition("/")[0], PARTITIONS)
        writer = Writer(redis, "test", series)
        assert await writer.commit(partition, downsample([readings_of]), expected=None, next_offset=1) is None
        await Registry(redis).note([series.partition("/")[0]])

    within(write)


def test_devices_are_labelled_on_the_command_line(isotherm: Isotherm) -> None:
    isotherm("devices", "add", "kitchen", "cellar")
    assert isotherm("devices", "label", "kitchen", "+floor=3", "+hot", "+old").out == "kitchen: floor=3 hot old\n"
    assert isotherm("devices", "label", "kitchen", "-hot", "-old", "+floor=4").out == "kitchen: floor=4\n"
    assert json.loads(isotherm("devices", "label", "kitchen", "--json").out) == {"device": "kitchen", "labels": ["floor=4"]}
    assert isotherm("devices", "list", "--label", "floor").out == "kitchen\n"
    assert isotherm("devices", "show", "kitchen").out.startswith("kitchen: 0 tokens, labelled floor=4")
    assert json.loads(isotherm("devices", "show", "kitchen", "--json").out)["labels"] == ["floor=4"]
    store("kitchen/t", (0, 1.0))
    assert [row["labels"] for row in json.loads(isotherm("devices", "--json").out)] == [["floor=4"]]
    assert isotherm("devices", "label", "kitchen", "floor").code == 2
    assert "kitchen has no label 'x'; it has floor=4" in isotherm("devices", "label", "kitchen", "-x").err


def test_a_rule_is_added_listed_shown_changed_and_removed(isotherm: Isotherm) -> None:
    store("kitchen/temperature", (0, 21.0))
    added = isotherm("rules", "add", "hot", "--metric", "temperature", "--above", "30", "--hysteresis", "2", "--hold", "5m")
    assert added.out.startswith("added hot: temperature above 30 for 5m\n")
    isotherm("rules", "add", "gone", "--silence", "10m", "--devices", "kit*", "--severity", "major")
    isotherm("rules", "add", "fast", "--metric", "temperature", "--below=-2", "--per", "minute")
    isotherm("rules", "add", "both", "--expression", "temperature > 3 and temperature < 5")
    listed = isotherm("rules", "list").out
    for said in ("device silent for 10m", "kit*", "temperature below -2 per minute, over 1m", "temperature > 3 and"):
        assert said in listed
    assert isotherm("rules", "disable", "hot").out.startswith("disabled hot")
    isotherm("rules", "remove", "gone", "fast", "both")
    [kept] = json.loads(isotherm("rules", "list", "--json").out)
    assert kept == {
        "id": "hot",
        "kind": "threshold",
        "metric": "temperature",
        "above": 30.0,
        "hysteresis": 2.0,
        "hold": 5 * MINUTE,
        "enabled": False,
    }
    assert "hold         5m" in isotherm("rules", "show", "hot").out
    replaced = isotherm("rules", "add", "hot", "--metric", "temperature", "--above", "31", "--replace")
    assert replaced.out.startswith("replaced hot")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "hot", "--metric", "temprature", "--above", "3"), "did you mean temperature?"),
        (("add", "hot", "--metric", "temperature"), "above is None: expected a number"),
        (("add", "hot", "--metric", "temperature", "--above", "3", "--severity", "bad"), "severity is 'bad'"),
        (("add", "hot", "--metric", "temperature", "--above", "3", "--silence", "5m"), "a rule of kind silence has none"),
        (("add", "hot", "--expression", "temperature > "), "cannot be read at position"),
        (("show", "hot"), "there is no rule 'hot'; see: isotherm rules list"),
        (("remove", "hot"), "there is no rule 'hot'"),
        (("try", "hot"), "there is no rule 'hot'"),
        (("try", "--metric", "humidity", "--above", "3"), "no device has sent a metric humidity"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said_in_a_line(isotherm: Isotherm, arguments: tuple[str, ...], said: str) -> None:
    store("kitchen/temperature", (0, 21.0))
    failed = isotherm("rules", *arguments)
    assert (failed.code, failed.out) == (1, "")
    assert said in failed.err
    assert "Traceback" not in failed.err


def test_a_rule_about_what_is_yet_to_come_is_added_anyway(isotherm: Isotherm) -> None:
    assert "nothing is stored yet" in isotherm("rules", "add", "hot", "--metric", "humidity", "--above", "3").err
    assert isotherm("rules", "add", "hot", "--metric", "humidity", "--above", "3", "--anyway").code == 0


def test_a_rule_is_tried_on_what_is_stored_and_nothing_is_written(isotherm: Isotherm, server: Valkey) -> None:
    store("kitchen/t", (-600, 20.0), (-500, 31.0), (-400, 29.5), (-300, 28.0), (-100, 35.0))
    store("cellar/t", (-3000, 5.0), (-2990, 5.0))
    with Redis(port=server.port) as redis:
        before = {key: redis.dump(key) for key in redis.scan_iter()}
    described = ("--metric", "t", "--above", "30", "--hysteresis", "1")
    shown = json.loads(isotherm("rules", "try", *described, "--last", "1h", "--json").out)
    assert [(one["alarm"], one["value"], one["cleared"] is None) for one in shown["alarms"]] == [
        ("trial/kitchen/t", 31.0, False),
        ("trial/kitchen/t", 35.0, True),
    ]
    newest = json.loads(isotherm("rules", "try", *described, "--last", "1h", "--limit", "1", "--json").out)
    assert (newest["count"], newest["readings"], newest["series"]) == (2, 7, 2)
    assert [one["value"] for one in newest["alarms"]] == [35.0]
    silent = isotherm("rules", "try", "--metric", "t", "--silence", "30m", "--last", "1h").out
    assert "nothing came of cellar t for 30 min" in silent
    assert "1 alarms in the last 1h, of 7 readings of 2 series" in silent
    with Redis(port=server.port) as redis:
        assert {key: redis.dump(key) for key in redis.scan_iter()} == before


def test_a_rule_is_tried_on_rolled_up_history_too(isotherm: Isotherm) -> None:
    begin = -10 * 3600 - NOW // SECOND % 10
    store("kitchen/t", *((begin + at, 35.0 if at == 103 else 20.0) for at in range(600)))
    said = isotherm("rules", "try", "--metric", "t", "--above", "30", "--last", "12h").out
    assert "kitchen t is 35, above 30" in said
    assert "1 alarms in the last 12h" in said
    assert "kept in rows of up to 10s" in said
    said = isotherm("rules", "try", "--metric", "t", "--silence", "5s", "--last", "12h").out
    assert "60 rows are too wide to tell a silence of this length" in said


def test_alarms_are_listed_by_how_bad_they_are_and_whose(isotherm: Isotherm, server: Valkey) -> None:
    assert isotherm("alarms").out == "there are no alarms\n"
    fleet = Fleet(server, HOT, Rule(id="warm", kind="threshold", metric="t", above=20.0, severity="minor"))
    fleet.say("kitchen/t", 31.0)
    fleet.say("cellar/t", 25.0, NOW + 1)

    def keys(*arguments: str) -> list[str]:
        return [one["alarm"] for one in json.loads(isotherm("alarms", *arguments, "--json").out)]

    assert keys() == ["warm/cellar/t", KEY, "warm/kitchen/t"]
    assert keys("--severity", "major") == [KEY]
    assert keys("--device", "cel*") == ["warm/cellar/t"]
    assert "kitchen t is 31, above 30" in isotherm("alarms").out
    assert isotherm("alarms", "--severity", "bad").code == 2


def test_an_alarm_is_acknowledged_shelved_and_unshelved_and_everybody_hears_of_it(
    isotherm: Isotherm, server: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fleet(server).say("kitchen/t", 31.0)
    with Tansu() as broker:
        monkeypatch.setenv("ISOTHERM_KAFKA", broker.bootstrap)
        asyncio.run(kafka.ensure_topics(Settings.load()))
        assert isotherm("alarms", "ack", KEY, "--by", "ann", "--note", "seen").out == f"acknowledged {KEY}\n"
        assert isotherm("alarms", "shelve", KEY, "--for", "2h", "--by", "ann").code == 0
        assert isotherm("alarms").out == "there are no alarms\n1 more are shelved, or cleared and acknowledged: --all\n"
        [row] = json.loads(isotherm("alarms", "--all", "--json").out)
        assert row["status"] == "active, acknowledged, shelved"
        assert (row["acknowledged"]["note"], row["shelved"]["by"]) == ("seen", "ann")
        assert isotherm("alarms", "unshelve", KEY, "--by", "bob").code == 0
        logged = within(lambda redis: EventLog(redis, PARTITIONS).newest(device="kitchen"))
        assert [event.kind for event in logged] == ["alarm.unshelved", "alarm.shelved", "alarm.acknowledged"]
        assert asyncio.run(_topic()) == logged[::-1]


async def _topic() -> list[Event]:
    async with kafka.Reader(Settings.load()) as reader:
        return [Event.from_json(record.value) async for record in reader.follow(EVENTS, stop=True)]


def test_an_acknowledgement_counts_also_while_kafka_is_away_and_that_is_said(isotherm: Isotherm, server: Valkey) -> None:
    Fleet(server).say("kitchen/t", 31.0)
    failed = isotherm("alarms", "ack", KEY)
    assert failed.code == 1
    assert "it is done, and among the events in the store, but the topic events has not got it" in failed.err
    assert statuses() == {KEY: "active, acknowledged"}


def test_what_is_wrong_with_an_alarm_is_said_in_a_line(isotherm: Isotherm) -> None:
    for command in (("ack", KEY), ("shelve", KEY, "--for", "2h")):
        failed = isotherm("alarms", *command)
        assert (failed.code, failed.err) == (1, f"isotherm: there is no alarm {KEY!r}; see: isotherm alarms\n")
    assert "is not shelved" in isotherm("alarms", "unshelve", KEY).err
    assert "expected a duration" in isotherm("alarms", "shelve", KEY, "--for", "ever").err
