"""The three forms of an analytic, each a decorator of a plain function.

    @formula(temperature="*/temperature", humidity="*/humidity", output="dew_point", unit="Cel")
    def dew_point(temperature, humidity): ...              # newest values of a device → a value

    @per_reading("*/power", output="energy", unit="J")
    def energy(reading, state): ...                        # one reading and a dict → values and events

    @per_batch("*", output="{metric}_score", state={"mean": 0.0})
    def score(readings): ...                               # numpy columns → columns

Keyword-only arguments with a type and a default are parameters, which can be set where the analytic is enabled. A function
is called with readings in order of time, without those that come late or again, unless it declares that any order will do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from agents.analytic import Analytic, Seconds, check_name, own_parameters, parameters_of, text_of
from agents.engines.batch import BatchEngine
from agents.engines.formula import FormulaEngine, each_row
from agents.engines.reading import ReadingEngine
from agents.gather import NEVER, wanted

Function = Callable[..., Any]


def formula(
    *, output: str, unit: str = "", max_age: str | float = "10min", vectorized: bool = False, **inputs: str
) -> Callable[[Function], Analytic]:
    """Declare a value that follows from the newest values of some metrics of one device.

    Whenever one of them comes, the function gets the newest of each; its answer is a reading of the same device and time,
    None or NaN is no reading. Nothing is made while one is missing or older than ``max_age``.

    Args:
        output: Metric that is made.
        unit: Its unit, RFC 8428.
        max_age: How much older than the newest a value may be; a parameter.
        vectorized: The function takes arrays of shape (n,) instead of floats.
        inputs: Argument of the function → pattern of series; each is a parameter, too.
    """

    def declare(function: Function) -> Analytic:
        given = [name for name, one in inspect.signature(function).parameters.items() if one.kind is not one.KEYWORD_ONLY]
        if sorted(given) != sorted(inputs):
            raise TypeError(f"{function.__name__} takes {', '.join(given)}, and has inputs {', '.join(inputs)}")
        patterns = {name: (str, pattern) for name, pattern in inputs.items()}
        model = parameters_of(function, **patterns, output=(str, output), unit=(str, unit), max_age=(Seconds, max_age))

        def build(name: str, parameters: Any) -> FormulaEngine:
            call = _with(function, parameters)
            return FormulaEngine(
                call if vectorized else each_row(call),
                [wanted(getattr(parameters, argument), parameters.output) for argument in given],
                parameters.output,
                parameters.unit,
                round(parameters.max_age * 1e6),
            )

        return Analytic(
            check_name(function.__name__),
            text_of(function),
            model,
            build,
            inputs=lambda parameters: [getattr(parameters, argument) for argument in given],
            outputs=lambda parameters: {parameters.output: parameters.unit},
            needs_all_inputs=True,
        )

    return declare


def per_reading(
    inputs: str,
    *,
    output: str = "",
    unit: str = "",
    per: Literal["series", "device"] = "series",
    any_order: bool = False,
) -> Callable[[Function], Analytic]:
    """Declare what is done with each reading.

    The function gets a `Reading`, and a dict if it takes two arguments: its state for the series (or the device), empty at
    first, of whatever MessagePack can hold. It returns or yields numbers (readings of ``output``), `Event` s, or nothing.

    Args:
        inputs: Pattern of series, or several with commas; a parameter.
        output: Metric that is made; ``{metric}`` stands for that of the reading.
        unit: Its unit, RFC 8428; a parameter.
        per: What has a state: a series, or a device as a whole.
        any_order: The function has no state, so it gets readings that come late, or again, like all others.
    """

    def declare(function: Function) -> Analytic:
        count = sum(one.kind is not one.KEYWORD_ONLY for one in inspect.signature(function).parameters.values())
        if count not in (1, 2):
            raise TypeError(f"{function.__name__} takes {count} arguments, expected a reading, and perhaps a state")
        if any_order and count == 2:
            raise TypeError(f"{function.__name__} has a state, which depends on the order of readings: leave out any_order")

        def build(name: str, parameters: Any) -> ReadingEngine:
            call = _with(function, parameters)
            with_state = call if count == 2 else lambda reading, _: call(reading)
            return ReadingEngine(name, with_state, parameters.inputs, parameters.output, parameters.unit, per, any_order)

        model = parameters_of(function, inputs=(str, inputs), output=(str, output), unit=(str, unit))
        return replace(_of_series(function, model, build), is_order_insensitive=any_order)

    return declare


def per_batch(
    inputs: str, *, output: str = "", unit: str = "", state: Mapping[str, float] | None = None
) -> Callable[[Function], Analytic]:
    """Declare what is done with many readings at once, in columns.

    The function gets `Readings`. It returns an array of shape (n,): a reading of ``output`` for each, none where NaN; or it
    yields `Event` s; or it returns an array and events as a tuple.

    Args:
        inputs: Pattern of series, or several with commas; a parameter.
        output: Metric that is made; ``{metric}`` stands for that of the reading.
        unit: Its unit, RFC 8428; a parameter.
        state: Field → value at first, of the row that each series has; int or float.
    """
    begin = dict(state or {})
    dtype = np.dtype([("newest", "<i8"), *((name, "<i8" if type(one) is int else "<f8") for name, one in begin.items())])
    default = np.array((NEVER, *begin.values()), dtype=dtype)

    def declare(function: Function) -> Analytic:
        def build(name: str, parameters: Any) -> BatchEngine:
            call = _with(function, parameters)
            return BatchEngine(name, call, parameters.inputs, parameters.output, parameters.unit, default)

        model = parameters_of(function, inputs=(str, inputs), output=(str, output), unit=(str, unit))
        return _of_series(function, model, build)

    return declare


def _of_series(function: Function, model: Any, build: Any) -> Analytic:
    return Analytic(
        check_name(function.__name__),
        text_of(function),
        model,
        build,
        inputs=lambda parameters: [part.strip() for part in parameters.inputs.split(",")],
        outputs=lambda parameters: {parameters.output: parameters.unit} if parameters.output else {},
    )


def _with(function: Function, parameters: Any) -> Function:
    own = own_parameters(function, parameters)
    return lambda *arguments: function(*arguments, **own)
