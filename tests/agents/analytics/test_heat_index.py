"""Heat index against the chart of the US National Weather Service."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agents.engine import Engine
from tests.support.readings import made_of, pack_of

Build = Callable[..., Engine]

# Two cells at 80 °F (84 and 87) lie 2 °F below what the equation of the NWS gives with its own adjustment: None here.
# Relative humidity, % → °F at 80, 82, 84, … °F: rows of the chart at weather.gov/safety/heat-index.
CHART = {
    40: (80, 81, 83, 85, 88, 91, 94, 97, 101, 105, 109, 114, 119, 124, 130, 136),
    50: (81, 83, 85, 88, 91, 95, 99, 103, 108, 113, 118, 124, 131, 137),
    65: (82, 85, 89, 93, 98, 103, 108, 114, 121, 128, 136),
    90: (None, 91, 98, 105, 113, 122, 131),
    100: (None, 95, 103, 112, 121, 132),
}


def heat_index(engine: Engine, fahrenheit: float, humidity: float) -> float | None:
    celsius = (fahrenheit - 32) / 1.8
    made = made_of(engine, pack_of(("a/temperature", 1, celsius), ("a/humidity", 1, humidity)))
    return made[0][2] * 1.8 + 32 if made else None


@pytest.mark.parametrize(
    ("fahrenheit", "humidity", "expected"),
    [(80 + 2 * at, humidity, value) for humidity, row in CHART.items() for at, value in enumerate(row) if value],
)
def test_it_is_that_of_the_chart(built: Build, fahrenheit: float, humidity: float, expected: float) -> None:
    assert heat_index(built(), fahrenheit, humidity) == pytest.approx(expected, abs=1.3)  # the regression's own error


@pytest.mark.parametrize(
    ("fahrenheit", "humidity", "adjustment"),
    [
        (95.0, 5.0, -2.0),  # (13 - 5) / 4 · √(17 / 17)
        (100.0, 9.0, -0.840168),  # (13 - 9) / 4 · √(12 / 17)
        (82.0, 95.0, 1.0),  # (95 - 85) / 10 · (87 - 82) / 5
        (95.0, 40.0, 0.0),
    ],
)
def test_dry_and_very_humid_air_are_adjusted(built: Build, fahrenheit: float, humidity: float, adjustment: float) -> None:
    t, r = fahrenheit, humidity
    regression = (
        -42.379 + 2.04901523 * t + 10.14333127 * r - 0.22475541 * t * r - 0.00683783 * t * t - 0.05481717 * r * r
        + 0.00122874 * t * t * r + 0.00085282 * t * r * r - 0.00000199 * t * t * r * r
    )  # fmt: skip
    assert heat_index(built(), fahrenheit, humidity) == pytest.approx(regression + adjustment, abs=1e-5)


@pytest.mark.parametrize(("fahrenheit", "humidity", "expected"), [(70.0, 50.0, 69.05), (50.0, 80.0, 48.46)])
def test_when_it_is_not_hot_the_simple_formula_counts(
    built: Build, fahrenheit: float, humidity: float, expected: float
) -> None:
    assert heat_index(built(), fahrenheit, humidity) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("humidity", [-1.0, 101.0])
def test_an_impossible_humidity_gives_none(built: Build, humidity: float) -> None:
    assert heat_index(built(), 90.0, humidity) is None
