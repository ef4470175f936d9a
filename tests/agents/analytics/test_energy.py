"""Energy against exact integrals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import loader
from agents.engine import Engine, rows_after
from isotherm.errors import SettingsError
from tests.support.readings import Row, made_of, pack_of

Build = Callable[..., Engine]
ENERGY = loader.load(loader.BUILT_IN / "energy.py")


def power(*samples: tuple[float, float]) -> list[Row]:
    return [("a/power", time, value) for time, value in samples]


def values(made: Sequence[Row]) -> list[float]:
    return [value for *_, value in made]


def test_it_is_exact_for_what_goes_straight(built: Build) -> None:
    made = made_of(built(unit="J"), pack_of(*power((0, 0), (1, 2), (3, 6), (4, 8))))
    assert made == [("a/energy", 0, 0.0), ("a/energy", 1, 1.0), ("a/energy", 3, 9.0), ("a/energy", 4, 16.0)]  # t²


@pytest.mark.parametrize(("unit", "expected"), [("J", 3.6e6), ("Wh", 1000.0), ("kWh", 1.0)])
def test_a_kilowatt_for_an_hour_is_a_kilowatt_hour(built: Build, unit: str, expected: float) -> None:
    made = made_of(built(unit=unit), pack_of(*power(*((60 * at, 1000) for at in range(61)))))
    assert made[-1][2] == pytest.approx(expected, rel=1e-12)
    assert dict(ENERGY.outputs(ENERGY.parameters({"unit": unit}))) == {"energy": unit}


def test_gaps_are_not_integrated(built: Build) -> None:
    made = made_of(built(unit="J", max_gap="10s"), pack_of(*power((0, 5), (10, 5), (21, 5), (22, 5))))
    assert values(made) == [0, 50, 50, 55]


def test_it_goes_on_over_restarts(built: Build) -> None:
    first, second = built(unit="J"), built(unit="J")
    first.run([pack_of(*power((0, 1), (1, 1)))])
    second.load(rows_after({}, first.changes()))
    assert values(made_of(second, pack_of(*power((2, 3))))) == [3.0]


def test_late_readings_are_left_out(built: Build) -> None:
    engine = built(unit="J")
    assert values(made_of(engine, pack_of(*power((0, 1), (10, 1))), pack_of(*power((5, 1000))))) == [0, 10]
    assert values(made_of(engine, pack_of(*power((11, 1))))) == [11]


def test_what_no_meter_can_measure_is_not_integrated(built: Build) -> None:
    made = made_of(built(unit="J"), pack_of(*power((0, 1), (1, 1), (2, 1e300), (3, 1), (4, 1))))
    assert values(made) == [0, 1, 1, 1, 2]


def test_another_unit_is_refused() -> None:
    with pytest.raises(SettingsError, match="unit of energy is 'kcal'"):
        ENERGY.parameters({"unit": "kcal"})


samples = st.lists(st.tuples(st.integers(1, 20_000), st.integers(-1000, 5000)), min_size=1, max_size=50)


@given(st.lists(samples, min_size=1, max_size=4))
def test_it_is_the_sum_of_the_trapezia_of_each_device(devices: list[list[tuple[int, int]]]) -> None:
    rows: list[Row] = []
    expected: list[float] = []
    for device, steps in enumerate(devices):
        time, before, total = 0, 0, Fraction(0)
        for at, (step, watts) in enumerate(steps):
            if at and step <= 10_000:
                total += Fraction(before + watts, 2) * Fraction(step, 1000)
            time, before = time + step, watts
            rows.append((f"{device}/power", time / 1000, watts))
            expected.append(float(total))
    engine = ENERGY.build("energy", ENERGY.parameters({"unit": "J", "max_gap": 10}))
    np.testing.assert_allclose(values(made_of(engine, pack_of(*rows))), expected, rtol=1e-12, atol=1e-9)
