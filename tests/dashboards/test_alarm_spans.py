from dashboards.alarm_spans import AHEAD, spans, worst
from isotherm.alarms.row import AlarmRow
from isotherm.alarms.table import Alarm
from isotherm.events import Event, Severity

KEY = "hot/room-1/temperature"


def event(kind: str, time: int, since: int, severity: Severity = "major") -> Event:
    message = f"raised at {since}"
    return Event(kind=kind, device="room-1", time=time, since=since, alarm=KEY, message=message, severity=severity)


def row(since: int, cleared: int = 0) -> Alarm:
    return Alarm(AlarmRow(rule="hot", kind="threshold", device="room-1", metric="temperature", since=since, cleared=cleared))


def test_raised_and_cleared_make_a_span() -> None:
    (found,) = spans([event("alarm.cleared", 50, 10), event("alarm.raised", 10, 10)], [], now=100)
    assert (found.start, found.end, found.is_active, found.message) == (10, 50, False, "raised at 10")


def test_an_alarm_that_is_not_cleared_reaches_beyond_now() -> None:
    (found,) = spans([], [row(10)], now=100)
    assert (found.start, found.end, found.is_active) == (10, 100 + AHEAD, True)


def test_the_table_knows_of_a_clearing_whose_event_has_yet_to_be_read() -> None:
    (found,) = spans([event("alarm.raised", 10, 10)], [row(10, cleared=60)], now=100)
    assert (found.end, found.is_active) == (60, False)


def test_occurrences_of_one_alarm_are_spans_of_their_own_the_newest_first() -> None:
    told = [event("alarm.raised", 10, 10), event("alarm.cleared", 20, 10), event("alarm.raised", 40, 40)]
    assert [(one.start, one.is_active) for one in spans(told, [row(40)], now=100)] == [(40, True), (10, False)]


def test_a_span_whose_clearing_was_lost_ends_where_the_next_begins() -> None:
    told = [event("alarm.raised", 10, 10), event("alarm.raised", 40, 40)]
    assert [(one.start, one.end) for one in spans(told, [], now=100)][1] == (10, 40)


def test_what_people_do_and_other_events_are_no_spans() -> None:
    others = [event("alarm.acknowledged", 12, 10), Event(kind="presence.late", device="room-1", time=5)]
    assert spans(others, [], now=9) == []


def test_the_worst_is_the_first_of_the_list_of_severities() -> None:
    assert worst(["info", "major", "minor"]) == "major"
    assert worst([]) is None
