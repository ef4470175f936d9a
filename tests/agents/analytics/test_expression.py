"""Expressions as an analytic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agents import loader
from agents.engine import Engine
from isotherm.errors import SettingsError
from tests.support.readings import made_of, pack_of

Build = Callable[..., Engine]
EXPRESSION = loader.load(loader.BUILT_IN / "expression.py")


def test_it_is_computed_when_all_metrics_of_a_device_are_there(built: Build) -> None:
    engine = built(expression="power / (voltage * current)", output="pf")
    assert made_of(engine, pack_of(("a/power", 1, 90.0), ("a/voltage", 1, 10.0), ("b/current", 1, 10.0))) == []
    assert made_of(engine, pack_of(("a/current", 2, 10.0))) == [("a/pf", 2, 0.9)]
    assert made_of(engine, pack_of(("a/power", 3, 50.0))) == [("a/pf", 3, 0.5)]


def test_values_that_are_too_old_are_not_used(built: Build) -> None:
    engine = built(expression="x + y", output="sum", max_age="5s")
    assert made_of(engine, pack_of(("a/x", 0, 1.0), ("a/y", 5, 2.0))) == [("a/sum", 5, 3.0)]
    assert made_of(engine, pack_of(("a/y", 5.001, 2.0))) == []


def test_where_it_has_no_value_there_is_no_reading(built: Build) -> None:
    engine = built(expression="x / y", output="ratio")
    assert made_of(engine, pack_of(("a/x", 0, 1.0), ("a/y", 0, 0.0), ("a/y", 1, 2.0))) == [("a/ratio", 1, 0.5)]


def test_a_metric_is_that_of_the_whole_name(built: Build) -> None:
    engine = built(expression="t * `bme280/t`", output="square")
    assert made_of(engine, pack_of(("a/bme280/t", 1, 3.0), ("a/other/t", 1, 7.0))) == []
    assert made_of(engine, pack_of(("a/t", 1, 2.0))) == [("a/square", 1, 6.0)]


def test_the_unit_is_that_which_was_set(built: Build) -> None:
    [derived] = built(expression="x * 2", output="double", unit="V").run([pack_of(("a/x", 0, 1.0))]).derived
    assert derived.unit == "V"
    assert EXPRESSION.outputs(EXPRESSION.parameters({"expression": "x * 2", "output": "y", "unit": "V"})) == {"y": "V"}
    assert EXPRESSION.inputs(EXPRESSION.parameters({"expression": "x * `b/c`", "output": "y"})) == ["*/x", "*/b/c"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, r'parameter expression of expression is \'\': say what to compute: --set expression="power'),
        ({"expression": "x * 2"}, r"parameter output of expression is '': name the metric that is made: --set output="),
        ({"expression": "x *", "output": "y"}, r"parameter expression of expression is 'x \*': .* at position 3"),
        ({"expression": "__import__('os')", "output": "y"}, "is not allowed in an expression"),
        ({"expression": "1 + 1", "output": "y"}, "it names no metric"),
        ({"expression": "x * 2", "output": "x"}, "the expression reads a metric of that name"),
        ({"expression": "x * 2", "output": "no name"}, "parameter output of expression is 'no name'"),
        ({"expression": "x * 2", "output": "y", "max_age": "soon"}, "parameter max_age of expression is 'soon'"),
    ],
)
def test_what_cannot_work_is_refused_with_the_mend(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        EXPRESSION.parameters(parameters)
