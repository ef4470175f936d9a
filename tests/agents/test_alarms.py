"""The engine of alarms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.alarms import engine as engine_module
from agents.alarms import index, load
from agents.alarms.directory import Directory
from agents.alarms.engine import KEPT, AlarmEngine
from agents.alarms.rates import POINTS, RateWatch
from agents.engine import Engine
from isotherm.alarms import AlarmRow, is_alarm_key
from isotherm.events import Event
from isotherm.limits import MINUTE, SECOND
from isotherm.pack import Pack
from isotherm.registry import Device
from isotherm.rules import Rule
from isotherm.rules.targets import is_for, matches
from isotherm.topics import partition_of
from tests.support.alarm_model import Model, Told

NOW = 1_800_000_000 * SECOND
DEVICES = {
    "a": Device("a", 0),
    "b": Device("b", 0, type="pump", labels=frozenset({"floor=2", "wet"})),
    "quiet": Device("quiet", 0),
}


def pack(*readings: tuple[str, int, float], at: int = 0, units: Mapping[str, str] | None = None) -> Pack:
    """A pack of readings (series, seconds after NOW, value), received so many seconds after NOW."""
    names = sorted({name for name, _, _ in readings})
    return Pack(
        names=names,
        series=np.array([names.index(name) for name, _, _ in readings], dtype=np.int32),
        time=np.array([NOW + time * SECOND for _, time, _ in readings], dtype=np.int64),
        value=np.array([value for _, _, value in readings], dtype=np.float64),
        connector="test/1",
        received_at=NOW + at * SECOND,
        units=units or {},
    )


@dataclass
class Rig:
    """An engine with what was kept of it, which can be started anew."""

    rules: Sequence[Rule]
    devices: Mapping[str, Device] = field(default_factory=lambda: DEVICES)
    rows: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = AlarmEngine(Directory(self.rules, self.devices))
        self.engine.load({})

    def run(self, *packs: Pack) -> list[Event]:
        return self._kept(self.engine.run(packs).events)

    def tick(self, seconds: int) -> list[Event]:
        return self._kept(self.engine.tick(NOW + seconds * SECOND).events)

    def restart(self) -> None:
        self.engine = AlarmEngine()
        self.engine.load(dict(self.rows))
        self.engine.refresh(Directory(self.rules, self.devices))

    def refresh(self, *rules: Rule, devices: Mapping[str, Device] | None = None) -> None:
        self.rules = rules
        self.devices = DEVICES if devices is None else devices
        self.engine.refresh(Directory(rules, self.devices))

    def alarms(self) -> dict[str, AlarmRow]:
        decode = msgspec.msgpack.Decoder(AlarmRow).decode
        return {key: decode(row) for key, row in self.rows.items() if is_alarm_key(key)}

    def _kept(self, events: list[Event]) -> list[Event]:
        changes = self.engine.changes()
        assert not changes.rows.keys() & set(changes.gone)
        assert set(changes.gone) <= self.rows.keys()
        self.rows |= changes.rows
        for key in changes.gone:
            del self.rows[key]
        return events


def kinds(events: Iterable[Event]) -> list[str]:
    return [event.kind.removeprefix("alarm.") for event in events]


def hot(**more: Any) -> Rule:
    return Rule(**{"id": "hot", "kind": "threshold", "metric": "t", "above": 30.0, "hysteresis": 5.0, **more})


RULES = (
    hot(),
    Rule(id="band", kind="threshold", metric="*", above=25.0, below=5.0, clear_above=20.0, clear_below=10.0, devices="[ab]"),
    hot(id="held", hold=4 * SECOND, clear_after=3 * SECOND, hysteresis=None),
    hot(id="wet", label="wet", below=1.0),
    hot(id="wet2", label="floor", type="pump", above=11.0, hold=SECOND),
    Rule(id="fast", kind="rate", metric="t", above=4.0, below=-4.0, window=3 * SECOND, hysteresis=1.0),
    Rule(
        id="slow",
        kind="rate",
        metric="h",
        above=60.0,
        per="minute",
        window=2 * SECOND,
        hold=2 * SECOND,
        clear_after=2 * SECOND,
    ),
    Rule(id="both", kind="expression", expression="t > 20 and h > 10"),
    Rule(id="both-held", kind="expression", expression="t - h > 5", hold=3 * SECOND, clear_after=SECOND, devices="a"),
    Rule(id="gone", kind="silence", metric="t", silence=5 * SECOND),
    Rule(id="lost", kind="silence", silence=8 * SECOND),
    Rule(id="off", kind="threshold", metric="t", above=0.0, enabled=False),
)
VALUES = st.sampled_from([0.0, 4.0, 8.0, 10.0, 12.0, 20.0, 22.0, 25.0, 26.0, 30.0, 31.0, 35.0])
READINGS = st.tuples(
    st.sampled_from(["a/t", "a/t", "a/h", "b/t", "b/h", "c/t"]), st.sampled_from([-3, -2, -1, 0, 1, 1, 2, 3]), VALUES
)
PACKS = st.tuples(st.sampled_from([0, 0, 0, 35]), st.lists(READINGS, min_size=1, max_size=6))
STEPS = st.lists(st.one_of(PACKS, PACKS, st.sampled_from([1, 4, 9, 40]), st.just("restart")), max_size=14)
"""A pack with how late it was received, s, and its readings with how much newer they are than all before; a tick after so
many seconds; a restart."""


def timed(steps: Sequence[Any]) -> list[Any]:
    """Give readings their times, and packs the time of the clock, which ticks move."""
    clock, newest = 0, 0
    made: list[Any] = []
    for step in steps:
        if isinstance(step, int):
            clock += step
            made.append(clock)
        elif isinstance(step, str):
            made.append(step)
        else:
            late, wanted = step
            readings = []
            for name, after, value in wanted:
                readings.append((name, newest + after, value))
                newest = max(newest, newest + after)
            made.append(pack(*readings, at=clock - late))
    return made


def told(events: Iterable[Event]) -> list[Told]:
    return [Told(event.kind, event.alarm, event.since, event.time, event.value) for event in events]


@settings(max_examples=300)
@given(STEPS, st.sets(st.sampled_from(RULES), min_size=1), st.data())
def test_the_engine_says_what_a_naive_one_says_however_packs_come_together(
    steps: list[Any], rules: set[Rule], data: st.DataObject
) -> None:
    model, rig = Model(list(rules), DEVICES), Rig(list(rules))
    expected: list[Told] = []
    found: list[Told] = []
    waiting: list[Pack] = []
    for step in [*timed(steps), None]:
        if isinstance(step, Pack):
            expected += model.run(step)
            waiting.append(step)
            if data.draw(st.booleans()):
                continue
        found += told(rig.run(*waiting))
        waiting = []
        assert found == expected
        if isinstance(step, int):
            expected += model.tick(NOW + step * SECOND)
            found += told(rig.tick(step))
        elif step == "restart":
            model.restart()
            rig.restart()
    assert found == expected
    active = {key for key, row in rig.alarms().items() if row.is_active}
    assert active == {key for key, state in model.alarms.items() if state.phase in ("active", "clearing")}


ARRIVING = st.lists(st.lists(READINGS, min_size=1, max_size=6), max_size=10)


@settings(max_examples=300)
@given(ARRIVING, st.sets(st.sampled_from(RULES), min_size=1), st.data())
def test_a_restart_is_not_noticed_whatever_comes_late_or_again(
    steps: list[Any], rules: set[Rule], data: st.DataObject
) -> None:
    undisturbed, restarted = Rig(list(rules)), Rig(list(rules))
    for one in timed([(0, step) for step in steps]):
        assert restarted.run(one) == undisturbed.run(one)
        if data.draw(st.booleans()):
            restarted.restart()
    assert restarted.rows == undisturbed.rows


def test_the_past_of_a_series_counts_from_when_a_rule_follows_it_and_is_dropped_when_none_does() -> None:
    rig = Rig([hot()])
    rig.run(pack(("a/t", 10, 20.0), ("a/h", 10, 20.0)))
    assert rig.rows.keys() == {"newest:a/t"}
    rig.refresh(hot(metric="h"))
    assert kinds(rig.run(pack(("a/h", 5, 99.0), ("a/t", 12, 99.0)))) == ["raised"]
    assert rig.rows.keys() == {"hot/a/h", "newest:a/h"}
    rig.restart()
    assert not rig.run(pack(("a/h", 4, 0.0)))


def test_an_engine_is_what_the_framework_expects() -> None:
    engine: Engine = AlarmEngine()
    assert not engine.run([pack(("a/t", 0, 99.0))])
    assert not engine.tick(NOW)
    assert engine.changes() == ({}, [])


def test_every_crossing_in_a_batch_is_told_in_order() -> None:
    rig = Rig([hot()])
    rows = [31.0, 29.0, 25.0, 40.0, 30.0, 24.0, 24.0]
    events = rig.run(pack(*(("a/t", at, value) for at, value in enumerate(rows))))
    assert kinds(events) == ["raised", "cleared", "raised", "cleared"]
    assert [(event.time - NOW) // SECOND for event in events] == [0, 2, 3, 5]
    assert [event.value for event in events] == [31.0, 25.0, 40.0, 24.0]
    assert [event.since for event in events] == [NOW, NOW, NOW + 3 * SECOND, NOW + 3 * SECOND]
    [row] = rig.alarms().values()
    assert (row.times, row.is_active, row.cleared) == (2, False, NOW + 5 * SECOND)


def test_an_alarm_is_raised_once_over_restarts() -> None:
    rig = Rig([hot()])
    assert kinds(rig.run(pack(("a/t", 0, 31.0)))) == ["raised"]
    for at in range(1, 5):
        rig.restart()
        assert not rig.run(pack(("a/t", at, 35.0)))


def test_late_and_repeated_readings_neither_raise_nor_clear() -> None:
    rig = Rig([hot()])
    rig.run(pack(("a/t", 10, 20.0)))
    assert not rig.run(pack(("a/t", 9, 99.0), ("a/t", 10, 99.0)))
    assert kinds(rig.run(pack(("a/t", 11, 31.0)))) == ["raised"]
    rig.restart()
    assert not rig.run(pack(("a/t", 11, 0.0), ("a/t", 5, 0.0)))
    assert kinds(rig.run(pack(("a/t", 12, 0.0), ("a/t", 11, 99.0)))) == ["cleared"]
    rig.restart()  # what cleared it is known still
    assert not rig.run(pack(("a/t", 11, 99.0), ("a/t", 12, 99.0)))


def test_what_has_to_be_held_is_held_over_a_restart_and_begins_anew_after_an_interruption() -> None:
    rig = Rig([hot(hold=10 * SECOND)])
    assert not rig.run(pack(("a/t", 0, 31.0), ("a/t", 5, 29.0), ("a/t", 6, 31.0)))
    rig.restart()
    assert not rig.run(pack(("a/t", 15, 31.0)))
    assert kinds(rig.run(pack(("a/t", 16, 31.0)))) == ["raised"]
    assert not Rig([hot(hold=10 * SECOND)]).run(pack(("a/t", 0, 31.0), ("a/t", 5, 29.0))), "never raised"


def test_what_is_in_order_again_before_it_was_held_leaves_no_row() -> None:
    rig = Rig([hot(hold=10 * SECOND)])
    rig.run(pack(("a/t", 0, 31.0)))
    assert rig.alarms().keys() == {"hot/a/t"}
    rig.run(pack(("a/t", 1, 29.0)))
    assert not rig.alarms()


def test_a_hold_goes_on_while_nothing_comes() -> None:
    rig = Rig([hot(hold=20 * SECOND, clear_after=20 * SECOND)])
    rig.tick(0)
    rig.run(pack(("a/t", 0, 31.0), at=0))
    assert not rig.tick(19)
    [event] = rig.tick(20)
    assert (event.kind, event.time, event.value) == ("alarm.raised", NOW + 20 * SECOND, 31.0)
    rig.run(pack(("a/t", 25, 0.0), at=25))
    assert not rig.tick(44)
    assert kinds(rig.tick(45)) == ["cleared"]


def test_silence_is_raised_once_and_cleared_by_whatever_comes() -> None:
    rig = Rig([Rule(id="gone", kind="silence", metric="t", silence=10 * SECOND)])
    rig.tick(0)
    rig.run(pack(("a/t", 0, 1.0), ("b/h", 0, 1.0), ("c/t", 0, 1.0), at=0))
    assert not rig.tick(9)
    [event] = rig.tick(10)  # b has no t, c is not registered
    assert (event.alarm, event.message) == ("gone/a/t", "nothing came of a t for 10 s")
    assert not rig.tick(11)
    rig.restart()
    assert not rig.tick(12)
    [event] = rig.run(pack(("a/t", -100, 1.0), at=13))
    assert (event.kind, event.time, event.message) == ("alarm.cleared", NOW + 13 * SECOND, "a t is heard of again")


def test_a_whole_device_is_silent_when_none_of_its_metrics_comes_even_if_none_ever_did() -> None:
    rig = Rig([Rule(id="lost", kind="silence", silence=10 * SECOND)])
    rig.tick(0)
    rig.run(pack(("a/t", 0, 1.0), ("b/t", 0, 1.0), at=0))
    rig.tick(5)
    rig.run(pack(("a/h", 5, 1.0), at=5))
    assert [event.alarm for event in rig.tick(10)] == ["lost/b", "lost/quiet"]
    assert [event.alarm for event in rig.tick(15)] == ["lost/a"]
    assert [event.alarm for event in rig.run(pack(("b/h", 16, 1.0), ("b/t", 16, 1.0), at=16))] == ["lost/b"]


@pytest.mark.parametrize("how", ["restart", "pause", "backlog"])
def test_after_an_outage_of_the_platform_silence_counts_from_then_on(how: str) -> None:
    rig = Rig([Rule(id="gone", kind="silence", metric="t", silence=10 * SECOND)])
    rig.tick(0)
    rig.run(pack(("a/t", 0, 1.0), at=0))
    if how == "restart":
        rig.restart()
    if how == "backlog":
        for now in range(8, 68, 10):
            assert not rig.tick(now)
            rig.run(pack(("b/h", now - 60, 1.0), at=now - 40))
    assert not rig.tick(70)
    assert not rig.tick(79)
    assert [event.alarm for event in rig.tick(80)] == ["gone/a/t"]


def test_rates_are_measured_over_their_window() -> None:
    rig = Rig([Rule(id="fast", kind="rate", metric="t", above=2.0, per="minute", window=MINUTE)])
    assert not rig.run(pack(("a/t", 0, 10.0), ("a/t", 30, 20.0), ("a/t", 59, 40.0)))
    [event] = rig.run(pack(("a/t", 60, 13.0), units={"a/t": "Cel"}))
    assert (event.value, event.unit, event.message) == (3.0, "Cel/min", "a t changes by 3 °C/min, above 2")
    [event] = rig.run(pack(("a/t", 90, 22.0)))
    assert (event.kind, event.value) == ("alarm.cleared", 2.0)


def test_a_rate_is_measured_on_when_another_rule_changes() -> None:
    fast = Rule(id="fast", kind="rate", metric="t", above=2.0, per="minute", window=MINUTE)
    rig = Rig([fast])
    rig.run(pack(("a/t", 0, 10.0)))
    rig.refresh(hot(), fast)
    assert kinds(rig.run(pack(("a/t", 60, 13.0)))) == ["raised"]


def test_of_a_window_of_any_number_of_readings_some_are_kept() -> None:
    watch = RateWatch(Rule(id="fast", kind="rate", metric="t", above=2.0, window=MINUTE), 0, "fast/a/t")
    rates = [watch.rate(at * SECOND // 100, at / 100) for at in range(20_000)]
    assert len(watch.window.points) <= POINTS + 2
    assert [rate for rate in rates if rate is not None] == pytest.approx([1.0] * 14_000)


def test_no_two_occurrences_begin_at_the_same_time() -> None:
    rig = Rig([hot(hold=20 * SECOND)])
    rig.tick(0)
    rig.run(pack(("a/t", 0, 31.0)))
    [first] = rig.tick(20)  # held while nothing came
    rig.refresh(hot())
    events = rig.run(pack(("a/t", 1, 0.0), ("a/t", 20, 31.0)))  # the device's clock is behind
    assert kinds(events) == ["cleared", "raised"]
    assert [first.since, *(event.since for event in events)] == [NOW + 20 * SECOND, NOW + 20 * SECOND, NOW + 20 * SECOND + 1]
    assert [event.time for event in events] == [NOW + 20 * SECOND, NOW + 20 * SECOND + 1]


def test_an_expression_waits_for_all_of_its_metrics_and_says_what_they_were() -> None:
    rig = Rig([Rule(id="dry", kind="expression", expression="t > 30 and `x/h` < 20")])
    assert not rig.run(pack(("a/t", 0, 31.0)))
    [event] = rig.run(pack(("a/x/h", 1, 19.0), units={"a/x/h": "%RH"}))
    assert (event.alarm, event.metric, event.value) == ("dry/a", "", None)
    assert event.message == "a: t > 30 and `x/h` < 20 (t 31, x/h 19 % RH)"
    rig.restart()
    assert not rig.run(pack(("a/t", 2, 32.0)))
    assert kinds(rig.run(pack(("a/x/h", 3, 21.0)))) == ["cleared"]  # the temperature is known still


def test_what_has_no_value_is_not_true() -> None:
    rig = Rig([Rule(id="dry", kind="expression", expression="1 / t > 0")])
    assert kinds(rig.run(pack(("a/t", 0, 1.0), ("a/t", 1, 0.0)))) == ["raised", "cleared"]


def test_a_message_is_what_the_rule_says() -> None:
    template = "{device} {metric} {value} {unit} > {threshold} {{!}}"
    [event] = Rig([hot(message=template, severity="critical")]).run(pack(("a/t", 0, 31.25), units={"a/t": "Cel"}))
    assert (event.message, event.severity, event.unit) == ("a t 31.25 °C > 30 {!}", "critical", "Cel")
    [event] = Rig([hot()]).run(pack(("a/t", 0, 31.25)))
    assert event.message == "a t is 31.25, above 30"
    assert (event.source, event.number) == ("", 0)  # the framework stamps them


def test_units_are_those_that_were_known_when_it_happened_however_packs_come_together() -> None:
    packs = [pack(("a/t", 0, 31.0)), pack(("a/t", 1, 0.0), ("b/t", 1, 31.0), units={"a/t": "Cel", "b/t": "K"})]
    apart, together = Rig([hot()]), Rig([hot()])
    events = together.run(*packs)
    assert events == apart.run(packs[0]) + apart.run(packs[1])
    assert [event.unit for event in events] == ["", "Cel", "K"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "the rule hot was removed"),
        ({"enabled": False}, "the rule hot was disabled"),
        ({"devices": "b"}, "the rule hot was changed, and this is no longer its business"),
        ({"label": "wet"}, "no longer its business"),
        ({"metric": "h"}, "no longer its business"),
        ({"kind": "silence", "silence": MINUTE, "above": None, "hysteresis": None}, "no longer its business"),
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
def test_an_alarm_of_a_rule_that_is_changed_is_cleared_with_the_reason(
    change: dict[str, Any], said: str, restarted: bool
) -> None:
    rig = Rig([hot()])
    rig.run(pack(("a/t", 0, 31.0)))
    rig.refresh(*([hot(**change)] if change else []))
    if restarted:
        rig.restart()
    [event] = rig.tick(5)
    assert (event.kind, event.since, event.time) == ("alarm.cleared", NOW, NOW + 5 * SECOND)
    assert said in event.message
    assert rig.alarms()["hot/a/t"].message == event.message
    assert not rig.tick(6)


def test_a_rule_that_is_changed_and_still_about_it_keeps_its_alarm() -> None:
    rig = Rig([hot()])
    rig.run(pack(("a/t", 0, 31.0)))
    rig.refresh(hot(above=50.0, hysteresis=15.0))
    assert not rig.tick(5)
    assert not rig.run(pack(("a/t", 1, 36.0)))
    assert kinds(rig.run(pack(("a/t", 2, 34.0)))) == ["cleared"]


def test_a_rule_that_is_put_back_before_anybody_noticed_keeps_its_alarm() -> None:
    rig = Rig([hot()])
    rig.run(pack(("a/t", 0, 31.0)))
    rig.refresh()
    rig.refresh(hot())
    assert not rig.tick(5)
    assert rig.alarms()["hot/a/t"].is_active


def test_a_device_that_is_removed_takes_its_alarms_with_it() -> None:
    rig = Rig([hot(), Rule(id="lost", kind="silence", silence=10 * SECOND)])
    rig.tick(0)
    rig.run(pack(("a/t", 0, 31.0), ("b/t", 0, 1.0), at=0))
    rig.tick(15)
    rig.refresh(*rig.rules, devices={"b": DEVICES["b"]})
    events = rig.run(pack(("b/t", 20, 1.0), at=20))
    assert [(event.alarm, event.message) for event in events] == [
        ("hot/a/t", "a was removed from the registry"),
        ("lost/a", "a was removed from the registry"),
        ("lost/quiet", "quiet was removed from the registry"),
        ("lost/b", "b is heard of again"),
    ]


def test_labels_decide_as_soon_as_they_change() -> None:
    rig = Rig([hot(label="floor=3")])
    assert not rig.run(pack(("a/t", 0, 31.0)))
    rig.refresh(*rig.rules, devices={"a": Device("a", 0, labels=frozenset({"floor=3"}))})
    assert kinds(rig.run(pack(("a/t", 1, 31.0)))) == ["raised"]


def test_rows_of_cleared_alarms_are_dropped_after_a_week_or_when_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig([hot()])
    rig.run(pack(("a/t", 0, 31.0), ("b/t", 0, 31.0), ("c/t", 0, 31.0)))
    rig.run(pack(("a/t", 1, 0.0), ("b/t", 2, 0.0)))
    rig.tick(1 + KEPT // SECOND)
    assert rig.alarms().keys() == {"hot/a/t", "hot/b/t", "hot/c/t"}
    rig.tick(2 + KEPT // SECOND)
    assert rig.alarms().keys() == {"hot/b/t", "hot/c/t"}
    monkeypatch.setattr(engine_module, "MAX_CLEARED", 0)
    rig.tick(2 + KEPT // SECOND)
    assert rig.alarms().keys() == {"hot/c/t"}  # an active one stays


def test_the_engine_of_a_partition_minds_its_own_devices() -> None:
    told = [Directory.of_partition(number, 8, RULES, DEVICES.values()) for number in range(8)]
    assert [name for one in told for name in sorted(one.devices)] == sorted(
        DEVICES, key=lambda name: (partition_of(name, 8), name)
    )
    assert all(one.rules == RULES for one in told)


NAMES = st.sampled_from(["a", "b", "room-1", "room-12", "room-2"])
PATTERNS = st.sampled_from(["*", "a", "room-1", "room-*", "room-1*", "room-?", "[ab]", "[!a]*", "*2"])
LABELS = st.sampled_from(["", "floor", "floor=1", "wet"])
TYPES = st.sampled_from(["", "pump", "door"])
TARGETS = st.lists(st.tuples(PATTERNS, st.sampled_from(["t", "*", "h?", "x/h", "x*"]), LABELS, TYPES), max_size=12)


@settings(max_examples=200)
@given(TARGETS, NAMES, st.sampled_from(["t", "h", "h1", "x/h"]), st.sets(LABELS.filter(bool)), TYPES)
def test_the_index_finds_the_rules_that_match(
    targets: list[tuple[str, str, str, str]], name: str, metric: str, labels: set[str], type: str
) -> None:
    device = Device(name, 0, type=type, labels=frozenset(labels))
    rules = [
        hot(id=f"rule-{number:02}", devices=devices, metric=wanted, label=label, type=of)
        for number, (devices, wanted, label, of) in enumerate(targets)
    ]
    expected = [rule for rule in rules if is_for(rule, device) and matches(rule.metric, metric)]
    assert index.RuleIndex(rules).of_series(device, metric) == expected


def test_ten_thousand_rules_are_not_tried_each_on_each_series(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0

    def counted(rule: Rule, device: Device) -> bool:
        nonlocal tried
        tried += 1
        return is_for(rule, device)

    monkeypatch.setattr(index, "is_for", counted)
    figures = load.measure(mixed=True, noisy=0.01, seconds=2)
    assert figures["rules"] == 10_000
    assert figures["events"] > 50
    assert tried < 5 * 10_000  # once when a series is new, and once when a rule has changed; an expression for each metric
