"""Presence: each device judged by its own cadence, and the platform's own absence by nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from statistics import median_low

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import loader
from agents.engine import Engine, rows_after
from isotherm.errors import SettingsError
from isotherm.events import Event
from isotherm.limits import SECOND
from isotherm.pack import Attribute
from isotherm.presence import INTERVALS, ROW, STATUSES, cadence_of
from tests.support.readings import BASE, pack_of

Build = Callable[..., Engine]
PRESENCE = loader.load(loader.BUILT_IN / "presence.py")


class Watched:
    """An engine with a clock, s after BASE: it hears of devices and lets time pass, a tick every second."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.now = 0.0
        self._samples: Iterator[int] = count()

    def hear(self, *devices: str) -> list[Event]:
        rows = [(f"{device}/t", float(next(self._samples)), 1.0) for device in devices]
        return self.engine.run([pack_of(*rows, received=self.now)]).events

    def wait(self, seconds: float) -> list[Event]:
        end, events = self.now + seconds, []
        while self.now < end:
            self.now += min(1.0, end - self.now)
            events += self.engine.tick(BASE + round(self.now * SECOND)).events
        return events

    def hear_every(self, seconds: float, times: int, *devices: str) -> list[Event]:
        events = []
        for _ in range(times):
            events += self.hear(*devices) + self.wait(seconds)
        return events


def kinds(events: Sequence[Event]) -> list[tuple[str, str]]:
    return [(event.kind, event.device) for event in events]


def test_a_device_that_is_heard_of_first_is_online(built: Build) -> None:
    [event] = Watched(built()).hear("a")
    assert (event.kind, event.device, event.time, event.severity) == ("presence.online", "a", BASE, "info")
    assert event.message == "heard of for the first time"


def test_silence_makes_it_late_and_then_offline_and_a_reading_brings_it_back(built: Build) -> None:
    watched = Watched(built())
    assert kinds(watched.hear_every(10, 20, "a")) == [("presence.online", "a")]
    [late] = watched.wait(21)  # 31 s of silence in all
    assert (late.kind, late.severity, late.message) == (
        "presence.late",
        "warning",
        "nothing came for 31 s, it uses to send every 10 s",
    )
    assert watched.wait(68) == []
    [offline] = watched.wait(2)
    assert (offline.kind, offline.severity) == ("presence.offline", "minor")
    assert offline.message == "nothing came for 101 s, it uses to send every 10 s"
    watched.wait(500)
    [online] = watched.hear("a")
    assert (online.kind, online.message) == ("presence.online", "is there again, after 10 min")


def test_each_device_is_judged_by_its_own_cadence(built: Build) -> None:
    watched = Watched(built())
    for at in range(20):
        watched.hear(*(["slow", "quick"] if at % 2 == 0 else ["quick"]))
        watched.wait(20)
    assert kinds(watched.wait(41)) == [("presence.late", "quick")]


def test_a_quick_device_is_not_late_after_a_moment(built: Build) -> None:
    watched = Watched(built())
    watched.hear_every(0.1, 100, "a")
    assert watched.wait(4.8) == []
    assert kinds(watched.wait(1)) == [("presence.late", "a")]
    assert watched.wait(24) == []
    assert kinds(watched.wait(1)) == [("presence.offline", "a")]


def test_one_long_gap_does_not_change_the_cadence(built: Build) -> None:
    watched = Watched(built())
    watched.hear_every(10, 20, "a")
    watched.wait(3000)
    watched.hear("a")
    assert kinds(watched.wait(32)) == [("presence.late", "a")]


def test_messages_of_one_moment_are_one_arrival(built: Build) -> None:
    watched = Watched(built())
    for _ in range(10):
        watched.hear_every(0.01, 5, "a")
        watched.wait(60)
    assert watched.wait(110) == []
    assert kinds(watched.wait(20)) == [("presence.late", "a")]


def test_one_that_was_heard_of_once_is_taken_to_send_every_minute(built: Build) -> None:
    watched = Watched(built())
    watched.hear("a")
    assert watched.wait(180) == []
    [late] = watched.wait(2)
    assert late.message == "nothing came for 3 min, since it was first heard of"


def test_what_analytics_make_of_its_readings_is_no_sign_of_life(built: Build) -> None:
    assert built().run([pack_of(("a/dew_point", 0, 1.0), connector="agent/dew_point/6f1c")]).events == []


def test_a_string_value_is_a_sign_of_life(built: Build) -> None:
    events = built().run([pack_of(received=5, attributes=[Attribute("a/firmware", BASE, "1.2")])]).events
    assert kinds(events) == [("presence.online", "a")]


def test_a_name_without_a_reading_in_its_pack_is_none(built: Build) -> None:
    engine = built()
    pack = pack_of(("a/t", 0, 1.0), ("b/t", 0, 1.0))
    assert kinds(engine.run([pack.rows(np.array([True, False]))]).events) == [("presence.online", "a")]
    assert engine.tick(BASE).events == engine.tick(BASE + 20 * SECOND).events == []


def test_after_a_restart_silence_counts_anew(built: Build) -> None:
    watched = Watched(built())
    watched.hear_every(10, 20, "a", "b")
    rows = rows_after({}, watched.engine.changes())
    watched.engine = built()
    watched.engine.load(rows)
    watched.now += 5000
    assert watched.wait(25) == []
    assert watched.hear("b") == []
    [late] = watched.wait(8)
    assert (late.device, late.message) == ("a", "nothing came for 84 min, it uses to send every 10 s")


def test_when_time_did_not_pass_for_the_engine_it_was_the_platform_that_was_away(built: Build) -> None:
    watched = Watched(built())
    watched.hear_every(10, 20, "a")
    watched.now += 300
    assert watched.wait(30) == []
    assert kinds(watched.wait(3)) == [("presence.late", "a")]


def test_one_that_was_offline_before_a_restart_is_not_told_again(built: Build) -> None:
    watched = Watched(built())
    watched.hear_every(10, 20, "a")
    watched.wait(200)
    rows = rows_after({}, watched.engine.changes())
    watched.engine = built()
    watched.engine.load(rows)
    assert watched.wait(500) == []
    assert kinds(watched.hear("a")) == [("presence.online", "a")]


def test_a_pack_that_comes_late_from_another_connector_is_no_return(built: Build) -> None:
    watched = Watched(built())
    watched.hear_every(10, 20, "a")
    watched.wait(200)
    assert watched.engine.run([pack_of(("a/t", 999, 1.0), received=100)]).events == []


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"late_after": 5, "offline_after": 4}, "parameter offline_after of presence is 4: expected at least late_after"),
        ({"least_late": "1min"}, "parameter least_offline of presence is 30.0: expected at least least_late, which is 60"),
        ({"late_after": 1}, "parameter late_after of presence is 1"),
    ],
)
def test_impossible_limits_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        PRESENCE.parameters(parameters)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50_000)), max_size=80), st.integers(1, 9))
@settings(max_examples=60)
def test_the_cadence_is_the_median_of_the_last_intervals(heard: list[tuple[str, int]], together: int) -> None:
    engine = PRESENCE.build("presence", PRESENCE.parameters({}))
    arrivals: dict[str, list[int]] = {}
    seen: dict[str, int] = {}
    packs, at = [], 0
    for device, later in heard:
        at += later
        seen[device] = at
        known = arrivals.setdefault(device, [])
        if not known or at - known[-1] >= 1000:
            known.append(at)
        packs.append(pack_of((f"{device}/t", 0, 1.0), received=at / 1000))
    for first in range(0, len(packs), together):
        engine.run(packs[first : first + together])
    rows = {device: np.frombuffer(row, dtype=ROW, offset=4)[0] for device, row in engine.changes().rows.items()}
    assert rows.keys() == arrivals.keys()
    for device, times in arrivals.items():
        row, intervals = rows[device], np.diff(times)[-INTERVALS:].tolist()
        expected = median_low(intervals) * 1000 if intervals else 0
        assert cadence_of(int(row["arrivals"]), row["intervals"].tolist()) == expected
        assert (row["seen"] - BASE, STATUSES[row["status"]]) == (seen[device] * 1000, "online")
