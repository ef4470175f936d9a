"""The three forms of an analytic, against naive Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import Field

from agents import Analytic, Event, Reading, Readings, Seconds, formula, per_batch, per_reading
from agents.engine import Engine, rows_after
from isotherm.errors import SettingsError
from tests.support.readings import Row, made_of, pack_of, rows_of

SERIES = ["a/x", "a/y", "b/x", "b/y", "b/z"]
rows = st.lists(st.tuples(st.sampled_from(SERIES), st.integers(0, 20), st.integers(-50, 50)), max_size=15)
packs_of_rows = st.lists(rows, max_size=5)


def engine_of(analytic: Analytic, **parameters: Any) -> Engine:
    return analytic.build(analytic.name, analytic.parameters(parameters))


def fresh(packs: list[list[Row]]) -> Iterator[list[Row]]:
    """Yield of each pack, in order of time, the readings that are newer than all of their series in earlier packs."""
    newest: dict[str, float] = {}
    for pack in packs:
        kept = [row for row in sorted(pack, key=lambda row: row[1]) if row[1] > newest.get(row[0], -1)]
        newest |= {name: time for name, time, _ in kept}
        yield kept


@formula(x="*/x", y="*/y", output="sum", unit="V", max_age="5s")
def the_sum(x: float, y: float, *, factor: float = 1.0) -> float | None:
    """A sum."""
    return None if x == 13 else factor * (x + 100 * y)


def naive_sum(packs: list[list[Row]]) -> list[Row]:
    held: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    made: list[Row] = []
    for pack in fresh(packs):
        moments = sorted({(name[0], time) for name, time, _ in pack if name[2] in "xy"})
        for device, moment in moments:
            held[device] |= {name[2]: (time, value) for name, time, value in pack if (name[0], time) == (device, moment)}
            x, y = held[device].get("x"), held[device].get("y")
            if x and y and min(x[0], y[0]) >= moment - 5 and x[1] != 13:
                made.append((f"{device}/sum", moment, x[1] + 100 * y[1]))
    return sorted(made)


@given(packs_of_rows)
def test_a_formula_is_of_the_newest_values_of_a_device(packs: list[list[Row]]) -> None:
    """Of several of one time in one pack the last counts."""
    assert made_of(engine_of(the_sum), *(pack_of(*rows) for rows in packs)) == naive_sum(packs)


def test_a_formula_of_columns_is_the_same_as_one_of_numbers() -> None:
    @formula(x="*/x", y="*/y", output="sum", vectorized=True)
    def in_columns(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """A sum."""
        assert x.shape == y.shape == (3,)
        return np.where(x == 13, np.nan, x + 100 * y)

    rows = [("a/x", 1, 2.0), ("a/y", 1, 1.0), ("a/x", 2, 13.0), ("b/x", 3, 0.0), ("b/y", 3, 1.0)]
    assert made_of(engine_of(in_columns), pack_of(*rows)) == [("a/sum", 1, 102.0), ("b/sum", 3, 100.0)]


def test_what_a_formula_cannot_take_is_a_failure_with_its_reading() -> None:
    @formula(x="*/x", output="inverse")
    def inverse(x: float) -> float:
        """One over x."""
        return 1 / x

    outputs = engine_of(inverse).run([pack_of(("a/x", 1, 2.0), ("a/x", 2, 0.0), ("b/x", 1, 4.0))])
    assert rows_of(outputs.readings()) == [("a/inverse", 1, 0.5), ("b/inverse", 1, 0.25)]
    [(pack, error)] = outputs.failures
    assert (pack.names, pack.value.tolist(), type(error)) == (["a/x"], [0.0], ZeroDivisionError)


def test_its_inputs_output_and_age_are_parameters() -> None:
    engine = engine_of(the_sum, x="*/z", output="other", max_age=100, factor=2)
    assert made_of(engine, pack_of(("b/z", 0, 1.0), ("b/y", 90, 0.0))) == [("b/other", 90, 2.0)]


@per_reading("*/x, */y", output="{metric}_total", unit="m")
def the_total(reading: Reading, state: dict[str, float]) -> Iterator[float | Event | None]:
    """A total."""
    if reading.value == 13:
        raise ValueError("13")
    state["total"] = state.get("total", 0.0) + reading.value
    yield state["total"]
    if reading.value > 40:
        yield reading.event("much")
    yield None


def naive_total(packs: list[list[Row]]) -> tuple[list[Row], list[tuple[str, float]], int]:
    totals: dict[str, float] = defaultdict(float)
    made, events, failures = [], [], 0
    for pack in fresh(packs):
        for series in sorted({name for name, *_ in pack if name[2] in "xy"}):
            mine = [row for row in pack if row[0] == series]
            if any(value == 13 for *_, value in mine):
                failures += 1
                continue
            for _, time, value in mine:
                totals[series] += value
                made.append((f"{series}_total", time, totals[series]))
                events += [(series, time)] if value > 40 else []
    return sorted(made), sorted(events), failures


@given(packs_of_rows, st.booleans())
def test_what_is_done_with_each_reading_is_done_in_order_once_and_of_a_pack_wholly_or_not(
    packs: list[list[Row]], together: bool
) -> None:
    engine, whole = engine_of(the_total), [pack_of(*rows) for rows in packs]
    outputs = engine.run(whole if together else [])
    for pack in () if together else whole:
        outputs.add(engine.run([pack]))
        rows = rows_after({}, engine.changes())
        assert rows.keys() <= {f"{name}" for name in SERIES}
    made, events, failures = naive_total(packs)
    assert rows_of(outputs.readings()) == made
    assert rows_of((f"{one.device}/{one.metric}", one.time, 0.0) for one in outputs.events) == [
        (*one, 0.0) for one in events
    ]
    assert len(outputs.failures) == failures


@given(packs_of_rows)
def test_events_of_a_pack_come_in_order_of_time_whatever_came_before(packs: list[list[Row]]) -> None:
    whole = [pack_of(*rows) for rows in packs]
    together = engine_of(the_total).run(whole).events
    engine = engine_of(the_total)
    assert together == [event for pack in whole for event in engine.run([pack]).events]
    assert all(event.kind == "the_total" for event in together)


def test_a_state_can_be_that_of_a_device_and_what_came_at_one_time_is_taken_by_name() -> None:
    @per_reading("*", output="seen", per="device")
    def order(reading: Reading, state: dict[str, Any]) -> None:
        """What it saw."""
        state["seen"] = [*state.get("seen", []), reading.metric]

    def state_after(*packs: list[Row]) -> dict[str, bytes]:
        rows: dict[str, bytes] = {}
        for pack in packs:
            engine = engine_of(order)
            engine.load(rows)
            engine.run([pack_of(*pack)])
            rows = rows_after(rows, engine.changes())
        return rows

    first: list[Row] = [("a/y", 1, 1.0)]
    second: list[Row] = [("a/y", 2, 1.0), ("a/x", 2, 1.0)]
    engine = engine_of(order)
    engine.run([pack_of(*first), pack_of(*second)])
    assert list(state_after(first, second)) == ["a"]
    assert rows_after({}, engine.changes()) == state_after(first, second)


def test_what_a_state_cannot_hold_is_a_failure() -> None:
    @per_reading("*")
    def holds(reading: Reading, state: dict[str, Any]) -> None:
        """Holds what cannot be held."""
        state["object"] = object()

    engine = engine_of(holds)
    [failure] = engine.run([pack_of(("a/x", 1, 1.0))]).failures
    assert isinstance(failure.error, TypeError)
    assert engine.run([pack_of(("a/x", 1, 1.0))]).failures == []  # it is not offered again


@per_batch("*", output="{metric}_step", state={"last": 0.0, "count": 0})
def step(readings: Readings, *, least: float = 0.0) -> tuple[NDArray[np.float64], Iterator[Event]]:
    """The difference to the reading before."""
    steps = readings.value - readings.before(readings.value, readings.state["last"])
    readings.state["last"] = readings.value[readings.starts[1:] - 1]
    readings.state["count"] += np.diff(readings.starts)
    return np.where(np.abs(steps) >= least, steps, np.nan), (
        one.reading(0).event("many") for one in readings if one.state["count"] > 3
    )


def naive_step(packs: list[list[Row]]) -> list[Row]:
    last: dict[str, float] = defaultdict(float)
    made = []
    for pack in fresh(packs):
        for name, time, value in pack:
            made.append((f"{name}_step", time, value - last[name]))
            last[name] = value
    return sorted(made)


@given(packs_of_rows, st.integers(0, 5))
def test_a_batch_is_by_series_and_time_and_each_series_has_a_row(packs: list[list[Row]], split: int) -> None:
    engine, whole = engine_of(step), [pack_of(*rows) for rows in packs]
    outputs = engine.run(whole[:split])
    other = engine_of(step)
    other.load(rows_after({}, engine.changes()))
    outputs.add(other.run(whole[split:]))
    assert rows_of(outputs.readings()) == naive_step(packs)


def test_a_batch_may_give_events_and_of_its_readings_only_some() -> None:
    outputs = engine_of(step, least=5.0).run([pack_of(*(("a/x", at, float(at * at)) for at in range(5)))])
    assert rows_of(outputs.readings()) == [("a/x_step", 3, 5.0), ("a/x_step", 4, 7.0)]
    assert [(event.kind, event.message) for event in outputs.events] == [("step", "many")]


@given(rows.filter(bool), st.integers(-9, 9))
def test_sums_rounds_and_what_was_before_are_those_of_each_series(rows: list[Row], begin: int) -> None:
    found: list[Any] = []

    @per_batch("*")
    def look(readings: Readings) -> None:
        """Looks."""
        start = np.full(len(readings.names), float(begin))
        order = [list(zip(series.tolist(), at.tolist(), strict=True)) for series, at in readings.rounds()]
        found.append((readings.running_sum(start, readings.value), readings.before(readings.value, start), order, readings))

    engine_of(look).run([pack_of(*rows)])
    sums, before, order, readings = found[0]
    for one, first in zip(readings, readings.starts.tolist(), strict=False):
        mine = slice(first, first + len(one.value))
        assert sums[mine].tolist() == [begin + sum(one.value[: at + 1]) for at in range(len(one.value))]
        assert before[mine].tolist() == [begin, *one.value[:-1].tolist()]
        assert readings.reading(first) == one.reading(0)
    for nth, pairs in enumerate(order):
        assert {at - int(readings.starts[series]) for series, at in pairs} == {nth}
    assert sorted(at for pairs in order for _, at in pairs) == list(range(len(readings)))


def test_a_column_of_another_length_is_refused() -> None:
    @per_batch("*", output="y")
    def short(readings: Readings) -> NDArray[np.float64]:
        """Too short."""
        return readings.value[1:]

    with pytest.raises(ValueError, match=r"expected an array of shape \(2,\), got one of \(1,\)"):
        engine_of(short).run([pack_of(("a/x", 1, 1.0), ("a/x", 2, 1.0))])


def test_parameters_are_checked_and_understand_lengths_of_time() -> None:
    @per_reading("*")
    def windowed(reading: Reading, *, window: Seconds = "5min", count: Annotated[int, Field(ge=2)] = 3) -> None:  # type: ignore[assignment]
        """Has a window and a count."""

    assert windowed.parameters({}).window == 300  # type: ignore[attr-defined]
    assert windowed.parameters({"window": "1h"}).window == 3600  # type: ignore[attr-defined]
    assert windowed.parameters({"window": "90"}).window == 90  # type: ignore[attr-defined]
    for wrong, message in [
        ({"count": 1}, "parameter count of windowed is 1: Input should be greater than or equal to 2"),
        ({"window": -1}, "parameter window of windowed is -1"),
        ({"speed": 1}, "windowed has no parameter 'speed': inputs, output, unit, window, count"),
    ]:
        with pytest.raises(SettingsError, match=message):
            windowed.parameters(wrong)


def test_what_is_declared_wrongly_is_refused_at_once() -> None:
    with pytest.raises(SettingsError, match="parameter factor of no_type needs a type and a default"):

        @per_reading("*")
        def no_type(reading: Reading, *, factor=1):  # type: ignore[no-untyped-def]
            """No type."""

    with pytest.raises(TypeError, match="takes x, and has inputs y"):

        @formula(y="*/y", output="z")
        def other(x: float) -> float:
            """Other inputs."""
            return x

    with pytest.raises(SettingsError, match="of the same name as what it reads"):
        the_total.parameters({"output": "{metric}"})
    with pytest.raises(SettingsError, match="is no name of a metric"):
        the_total.parameters({"output": "no name"})
