import numpy as np

from dashboards.known import SEVERITY_CODES, STATUS_CODES, Known
from isotherm import presence
from isotherm.alarms.row import AlarmRow
from isotherm.alarms.table import Alarm, Shelf
from isotherm.events import Severity
from isotherm.presence import INTERVALS, ROW, STATUSES, Presence, cadence_of


def alarm(severity: Severity, *, cleared: int = 0, is_shelved: bool = False) -> Alarm:
    row = AlarmRow(rule="r", kind="threshold", device="a", severity=severity, since=1, cleared=cleared)
    return Alarm(row, shelved=Shelf(until=9, by="x", time=1) if is_shelved else None)


def test_health_is_a_byte_a_device_in_the_order_asked_for() -> None:
    known = Known(presence={"b": Presence("late", 1, 1), "a": Presence("online", 1, 1)}, alarms={"c": [alarm("major")]})
    health = known.health(("a", "b", "c"))
    assert health.status.tolist() == [STATUS_CODES["online"], STATUS_CODES["late"], 0]
    assert health.severity.tolist() == [0, 0, SEVERITY_CODES["major"]]
    assert health.status.dtype == np.uint8


def test_the_worst_alarm_counts_and_none_that_is_cleared_or_shelved() -> None:
    alarms = [alarm("info"), alarm("minor"), alarm("critical", cleared=5), alarm("major", is_shelved=True)]
    assert Known(alarms={"a": alarms}).health(("a",)).severity.tolist() == [SEVERITY_CODES["minor"]]


def test_health_is_worked_out_anew_for_other_devices() -> None:
    known = Known(presence={"a": Presence("online", 1, 1)})
    assert len(known.health(("a",)).status) == 1
    assert len(known.health(("a", "b")).status) == 2


def test_presence_of_many_is_decoded_as_that_of_each() -> None:
    rng = np.random.default_rng(3)
    rows: dict[str, bytes] = {}
    expected: dict[str, Presence] = {}
    for number, arrivals in enumerate([0, 1, 2, 3, 8, INTERVALS, INTERVALS + 1, INTERVALS + 2, 400]):
        row = np.zeros(1, dtype=ROW)
        row["seen"], row["arrivals"], row["status"] = 1000 + number, arrivals, number % 3
        row["intervals"] = rng.integers(1, 10**9, INTERVALS)
        rows[f"d{number}"] = presence._LAYOUT + row.tobytes()
        cadence = cadence_of(arrivals, row["intervals"][0].tolist())
        expected[f"d{number}"] = Presence(STATUSES[number % 3], 1000 + number, cadence)
    assert presence._presences(rows) == expected
    assert presence._presences({}) == {}
