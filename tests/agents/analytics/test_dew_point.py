"""Dew points against published ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agents.engine import Engine
from tests.support.readings import made_of, pack_of

Build = Callable[..., Engine]


@pytest.mark.parametrize(
    ("temperature", "humidity", "expected"),
    [
        (20.0, 50.0, 9.3),  # Lawrence 2005, Bull. Amer. Meteor. Soc. 86, 225, and the tables of DIN 4108-3
        (22.0, 50.0, 11.1),
        (25.0, 60.0, 16.7),
        (30.0, 70.0, 23.9),
        (10.0, 50.0, 0.1),
        (20.0, 100.0, 20.0),
    ],
)
def test_dew_points_are_those_of_the_table(built: Build, temperature: float, humidity: float, expected: float) -> None:
    [(name, time, value)] = made_of(built(), pack_of(("a/temperature", 1, temperature), ("a/humidity", 1, humidity)))
    assert (name, time) == ("a/dew_point", 1)
    assert value == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("humidity", [0.0, -5.0])
def test_without_humidity_there_is_none(built: Build, humidity: float) -> None:
    assert made_of(built(), pack_of(("a/temperature", 1, 20.0), ("a/humidity", 1, humidity))) == []
