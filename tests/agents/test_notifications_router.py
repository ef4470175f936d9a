"""What is told to whom, and when: the router, its quiet hours, its pace and its words, with a clock that the tests set."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.notifications.channels.sender import Refused, Unreached
from agents.notifications.message import Delivery, Message
from agents.notifications.quiet import quiet_until
from agents.notifications.router import FOLDED_ABOVE, MAX_FAILED, Router, passes
from agents.notifications.text import body, summary
from isotherm.channels import Channel, Quiet
from isotherm.events import Event, Severity
from isotherm.limits import DAY, HOUR, MINUTE, SECOND
from tests.support.notifications import BEGIN, NOWHERE, Crash, FarEnd, World, count, event

BERLIN = ZoneInfo("Europe/Berlin")


def channel(**fields: Any) -> Channel:
    given: dict[str, Any] = {"id": "ops", "to": NOWHERE} | fields
    return Channel(**given)


def berlin(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()) * SECOND


def world(**fields: Any) -> tuple[World, FarEnd]:
    far_end = FarEnd()
    return World([channel(**fields)], lambda _: far_end), far_end


def titles(far_end: FarEnd) -> list[str]:
    return [summary(one.messages, "UTC").title for one in far_end.taken]


# Who hears of what


@pytest.mark.parametrize(
    ("fields", "hears"),
    [
        ({}, True),
        ({"severity": "major"}, True),
        ({"severity": "critical"}, False),
        ({"devices": "room-*"}, True),
        ({"devices": "hall-*"}, False),
        ({"rules": ("h?t",)}, True),
        ({"rules": ("cold",)}, False),
        ({"kinds": ("alarm.*",)}, True),
        ({"kinds": ("alarm.cleared", "presence.offline")}, False),
    ],
)
def test_a_channel_hears_of_what_passes_all_of_its_filters(fields: dict[str, Any], hears: bool) -> None:
    assert passes(channel(**fields), event(1)) is hears


def test_an_acknowledgement_is_told_to_whom_wants_it() -> None:
    assert not passes(channel(), event(1, "acknowledged"))
    assert passes(channel(kinds=("alarm.acknowledged",)), event(1, "acknowledged"))


async def test_a_shelved_alarm_makes_no_message() -> None:
    one, far_end = world()
    one.shelved.add(event(1).alarm)
    await one.tell(event(1), event(2, device="room-2"))
    assert titles(far_end) == ["[major] room-2/temperature above 30 °C"]


def test_events_before_it_is_known_which_channels_there_are_are_an_error_not_a_loss() -> None:
    with pytest.raises(RuntimeError, match=r"call refresh\(\) first"):
        Router().take([event(1)], BEGIN)


async def test_an_event_that_comes_again_makes_no_second_message() -> None:
    one, far_end = world(window=0)
    await one.tell(event(1), event(2, "cleared"))
    await one.tell(event(1), event(2, "cleared"), after=100)
    one.start()
    await one.tell(event(1), event(2, "cleared"), event(3), after=100)
    assert [message.event.number for one in far_end.taken for message in one.messages] == [1, 2, 3]


async def test_a_number_is_known_within_its_source_only() -> None:
    one, far_end = world(window=0)
    await one.tell(event(7), event(7, "cleared", source="alarms/0/2"), event(6, source="alarms/0/2"))
    assert far_end.told() == count(far_end.taken)
    assert sum(far_end.told().values()) == 2


def test_a_source_that_was_silent_for_longer_than_the_topic_keeps_events_is_forgotten() -> None:
    router = Router()
    router.refresh([])
    router.take([event(1, source="old")], BEGIN)
    router.take([event(1, source="new")], BEGIN + 33 * DAY)
    assert router.changes().gone == ["source:old"]


def test_what_was_for_a_channel_that_is_gone_leaves_no_rows() -> None:
    router = Router()
    router.refresh([channel(), channel(id="other")])
    router.take([event(1), event(2, device="room-2")], BEGIN)
    first, second = (one for one in router.due(BEGIN) if one.channel == "ops")
    router.bind("d", [first], 1, BEGIN)
    router.changes()
    router.refresh([channel(id="other")])
    gone = router.changes().gone
    assert set(gone) == {"delivery:d", "left:ops", f"message:{first.id}", f"message:{second.id}"}
    assert {one.channel for one in router.due(BEGIN)} == {"other"}


# One message a state change, and digests


async def test_a_first_message_leaves_at_once_and_the_next_at_the_end_of_the_window() -> None:
    one, far_end = world()
    await one.tell(event(1))
    await one.tell(event(2, "cleared"), after=10)
    assert titles(far_end) == ["[major] room-1/temperature above 30 °C"]
    await one.tell(after=19)
    assert len(far_end.taken) == 1
    await one.tell(after=1)
    assert titles(far_end)[1:] == ["[major, cleared] room-1/temperature above 30 °C"]


@pytest.mark.parametrize(("gathered", "deliveries"), [(5, 5), (6, 1), (261, 1)])
async def test_more_than_five_in_a_window_leave_as_one_that_lists_them(gathered: int, deliveries: int) -> None:
    one, far_end = world()
    await one.tell(event(0, device="first"))
    await one.tell(*(event(n, device=f"room-{n}") for n in range(1, gathered + 1)), after=1)
    await one.tell(after=30)
    assert len(far_end.taken) == 1 + deliveries
    assert sum(far_end.told().values()) == 1 + gathered
    if deliveries == 1:
        [digest] = titles(far_end)[1:]
        assert digest == f"[major] {gathered} alarms of {gathered} devices: {gathered} raised"


async def test_many_at_the_same_instant_are_one_message_and_one_digest() -> None:
    one, far_end = world()
    await one.tell(*(event(n, device=f"room-{n}") for n in range(300)))
    await one.tell(after=30)
    assert [len(each.messages) for each in far_end.taken] == [1, 299]


async def test_a_burst_over_all_partitions_is_one_digest() -> None:
    far_end = FarEnd()
    one = World([channel()], lambda _: far_end, partitions=8)
    for n in range(80):
        one.logs[n % 8].append(event(n, device=f"room-{n}", source=f"alarms/{n % 8}/1"))
    await one.step()
    await one.tell(after=30)
    assert [len(each.messages) for each in far_end.taken] == [1, 79]
    assert one.is_empty


def test_a_digest_lists_the_worst_first_and_counts_what_it_does_not_list() -> None:
    severities: tuple[Severity, ...] = ("info", "critical", "warning", "major")
    messages = [
        Message.of("ops", event(n, device=f"room-{n}", severity=severities[n % 4]), at=BEGIN, order=n) for n in range(262)
    ]
    told = summary(messages, "UTC")
    assert told.title == "[critical] 262 alarms of 262 devices: 262 raised"
    assert len(told.lines) == 51
    assert all(line.startswith("[critical]") for line in told.lines[:50])
    assert told.lines[-1] == "and 212 more"
    sent = body(channel(), Delivery("d", "ops", messages, BEGIN))
    assert (sent["count"], len(sent["messages"]), sent["omitted"]) == (262, 50, 212)


async def test_an_alarm_that_flaps_is_summarised() -> None:
    one, far_end = world(digest_above=1)
    await one.tell(event(0, device="first"))
    flaps = [event(n, "cleared" if n % 2 == 0 else "raised", time=BEGIN + n * SECOND) for n in range(1, 29)]
    for each in flaps:
        await one.tell(each, after=0.1)
    assert len(one.routers[0].due(one.now)) <= FOLDED_ABOVE
    await one.tell(after=30)
    [digest] = far_end.taken[1:]
    assert summary(digest.messages, "UTC").lines == [
        "[major] room-1/temperature above 30 °C: raised and cleared 14 times from 2026-09-21 14:13:21 UTC "
        "to 2026-09-21 14:13:48 UTC, now clear"
    ]


async def test_no_more_than_its_limit_leaves_within_an_hour_and_nothing_is_dropped() -> None:
    one, far_end = world(window=0, per_hour=20)
    left: list[int] = []
    for n in range(1500):
        await one.tell(event(n, device=f"room-{n}"), after=5)
        left += [one.now] * (len(far_end.taken) - len(left))
    await one.tell(after=HOUR / SECOND)
    assert max(sum(time - HOUR < other <= time for other in left) for time in left) <= 20
    assert max(b - a for a, b in pairwise(left)) <= 6 * MINUTE + 10 * SECOND  # also the worst waits no longer
    assert sum(far_end.told().values()) == 1500


async def test_the_limit_holds_over_a_restart() -> None:
    one, far_end = world(window=0, per_hour=2)
    await one.tell(event(1))
    one.start()
    await one.tell(event(2, "cleared"), after=60)
    assert len(far_end.taken) == 1
    await one.tell(after=3600)
    assert len(far_end.taken) == 2


# Quiet hours

QUIET = {"quiet": Quiet(start="22:00", end="07:00"), "zone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-01-10 21:59:59", None),
        ("2026-01-10 22:00", "2026-01-11 07:00"),
        ("2026-01-11 06:59:59", "2026-01-11 07:00"),
        ("2026-01-11 07:00", None),
        ("2026-03-28 22:00", "2026-03-29 07:00"),  # 8 hours
        ("2026-10-24 22:00", "2026-10-25 07:00"),  # 10 hours
    ],
)
def test_quiet_hours_are_by_the_clock_on_the_wall(now: str, until: str | None) -> None:
    assert quiet_until(channel(**QUIET), berlin(now)) == (until and berlin(until))


def test_a_night_in_which_the_clock_is_set_is_shorter_or_longer() -> None:
    def length(day: str, start: str = "22:00", end: str = "07:00") -> float:
        begin = berlin(f"{day} {start}")
        ends = quiet_until(channel(quiet=Quiet(start=start, end=end), zone="Europe/Berlin"), begin)
        assert ends is not None
        return (ends - begin) / HOUR

    assert [length("2026-03-27"), length("2026-03-28"), length("2026-10-24")] == [9, 8, 10]
    # 02:30 is not in the one night, where 02:00 is followed by 03:00, and twice in the other.
    assert [length("2026-03-28", end="02:30"), length("2026-10-24", end="02:30")] == [4, 4.5]


@pytest.mark.parametrize("day", ["2026-03-28", "2026-10-24"])
def test_they_are_one_stretch_of_time_whatever_the_clock_does(day: str) -> None:
    for end in ("02:00", "02:30", "03:00", "07:00"):
        one = channel(quiet=Quiet(start="22:00", end=end), zone="Europe/Berlin")
        begin = berlin(f"{day} 12:00")
        is_quiet = [quiet_until(one, begin + n * MINUTE) for n in range(24 * 60)]
        changes = sum((a is None) != (b is None) for a, b in pairwise(is_quiet))
        assert changes == 2
        assert len({until for until in is_quiet if until is not None}) == 1


async def test_what_quiet_hours_hold_is_one_digest_at_their_end_also_in_the_night_of_summer_time() -> None:
    one, far_end = world(**QUIET)
    one.now = berlin("2026-03-28 23:00")
    await one.tell(event(1, time=one.now), event(2, device="room-2", time=one.now))
    one.now = berlin("2026-03-29 04:00")
    one.start()
    await one.tell(event(3, "cleared", time=one.now), event(4, severity="critical", device="room-3"))
    assert titles(far_end) == ["[critical] room-3/temperature above 30 °C"]
    one.now = berlin("2026-03-29 06:59:59")
    await one.tell()
    assert len(far_end.taken) == 1
    one.now = berlin("2026-03-29 07:00")
    await one.tell()
    assert summary(far_end.taken[1].messages, "Europe/Berlin").lines == [
        "[major] room-1/temperature above 30 °C: raised 2026-03-28 23:00:00 CET, cleared 2026-03-29 04:00:00 CEST",
        "[major] room-2/temperature above 30 °C: raised 2026-03-28 23:00:00 CET",
    ]
    assert one.is_empty


# Nothing lost, nothing twice

ALARMS = st.tuples(st.integers(0, 1), st.integers(0, 5), st.sampled_from(["raised", "cleared", "acknowledged"]))
EVENTS = st.tuples(st.just("events"), st.lists(ALARMS, max_size=12))
PASSING = st.tuples(st.just("time"), st.sampled_from([0.5, 10, 29, 31, 600, 4000, 30_000]))
ANSWERS = st.tuples(st.just("answers"), st.lists(st.sampled_from(["taken", "away", "never"]), max_size=4))
DEATHS = st.tuples(st.just("death"), st.tuples(st.integers(0, 3), st.sampled_from(["before", "after"])))
RESTARTS = st.tuples(st.just("restart"), st.none())


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(EVENTS, PASSING, ANSWERS, DEATHS, RESTARTS), max_size=25))
def test_every_state_change_is_told_once_or_listed_as_given_up_whatever_dies_and_fails(steps: list[tuple[str, Any]]) -> None:
    asyncio.run(_whatever(steps))


async def _whatever(steps: list[tuple[str, Any]]) -> None:
    story = _Story()
    for what, how in steps:
        await getattr(story, what)(how)
    await story.ends()
    expected = [Message.of("ops", one, at=0, order=0) for log in story.world.logs for one in log]
    assert story.told() == count([Delivery("", "ops", expected, 0)])


class _Story:
    """Two partitions and a channel whose far end answers as a test says; each method is a kind of step."""

    def __init__(self) -> None:
        self._answers: list[str] = []
        self._refused: dict[str, Delivery] = {}
        self._far_end = FarEnd(self._answer)
        ops = channel(quiet=Quiet(start="22:00", end="07:00"), per_hour=6, kinds=("alarm.*",))
        self.world = World([ops], lambda _: self._far_end, partitions=2)

    async def events(self, alarms: list[tuple[int, int, str]]) -> None:
        for partition, alarm, kind in alarms:
            log = self.world.logs[partition]
            log.append(event(len(log) + 1, kind, device=f"d{partition}{alarm}", source=f"alarms/{partition}/1"))
        await self._step()

    async def time(self, seconds: float) -> None:
        self.world.now += int(seconds * SECOND)
        await self._step()

    async def answers(self, answers: list[str]) -> None:
        self._answers = list(answers)
        await self._step()

    async def death(self, when: tuple[int, str]) -> None:
        self.world.dies = _after(*when)
        await self._step()

    async def restart(self, _: None) -> None:
        self.world.start()
        await self._step()

    async def ends(self) -> None:
        """Nothing dies any more, and time goes by: it is all told."""
        self.world.dies = lambda _: False
        for _ in range(60):
            await self.time(2 * HOUR / SECOND)
            for partition in range(2):
                await self.world.save(partition)
        assert self.world.is_empty

    def told(self) -> Counter[tuple[str, str]]:
        """Return what the far end took, by the ids of deliveries, or is listed as given up."""
        listed = {key.removeprefix("failed:") for rows in self.world.rows for key in rows if key.startswith("failed:")}
        given_up = {id: one for id, one in self._refused.items() if id in listed}
        return count((given_up | {one.id: one for one in self._far_end.taken}).values())

    def _answer(self, delivery: Delivery) -> None:
        answer = self._answers.pop() if self._answers else "taken"
        if answer == "away":
            raise Unreached("away")
        if answer == "never":
            self._refused[delivery.id] = delivery
            raise Refused("never")

    async def _step(self) -> None:
        try:
            await self.world.step()
        except Crash:
            self.world.start()


def _after(calls: int, where: str) -> Any:
    """Return what says that the process dies at a later call, once."""
    left = [calls]

    def dies(at: str) -> bool:
        if at == where:
            left[0] -= 1
        return at == where and left[0] == -1

    return dies


def test_a_row_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="another version"):
        Router().load({"letter:1": b""})


def test_what_was_given_up_is_kept_up_to_a_limit_the_newest() -> None:
    router = Router()
    router.refresh([channel()])
    rows: dict[str, bytes] = {}
    for n in range(MAX_FAILED + 3):
        router.take([event(n + 1, device=f"d{n}")], BEGIN)
        router.bind(f"d{n}", router.due(BEGIN), 1, BEGIN)
        router.failed(f"d{n}", "no", BEGIN + n, retry_at=None)
        changes = router.changes()
        rows.update(changes.rows)
        for key in changes.gone:
            rows.pop(key, None)
    failed = {key for key in rows if key.startswith("failed:")}
    assert len(failed) == MAX_FAILED
    assert "failed:d0" not in failed
    assert not [key for key in rows if key.startswith(("message:", "delivery:"))]


# Words


@pytest.mark.parametrize(
    ("events", "title", "line"),
    [
        ([event(1)], "[major] room-1/temperature above 30 °C", ": raised 2026-09-21 14:13:20 UTC"),
        (
            [event(1, "acknowledged")],
            "[major, acknowledged] room-1/temperature above 30 °C",
            ": acknowledged 2026-09-21 14:13:20 UTC",
        ),
        ([event(1, message="too hot\r\nBcc: x")], "[major] room-1: too hot Bcc: x", ": raised 2026-09-21 14:13:20 UTC"),
        (
            [event(1), event(2, "cleared"), event(3)],
            "[major, raised and cleared, raised once more] room-1/temperature above 30 °C",
            ": raised and cleared, raised once more from 2026-09-21 14:13:20 UTC to 2026-09-21 14:13:20 UTC, now raised",
        ),
        (
            [Event(kind="presence.offline", device="d", time=BEGIN, severity="warning")],
            "[warning] d: presence.offline",
            ": 2026-09-21 14:13:20 UTC",
        ),
    ],
)
def test_what_people_read(events: list[Event], title: str, line: str) -> None:
    told = summary([Message.of("ops", one, at=BEGIN, order=n) for n, one in enumerate(events)], "UTC")
    assert told.title == title
    assert len(told.lines) == 1
    assert told.lines[0].endswith(line)
