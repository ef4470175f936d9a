"""Values of many series → the answer of a query: arithmetic, comparisons, aggregations. No I/O.

A vector is a matrix: a row for each series, a column for each step. Whether there is a value is kept apart from it, for
NaN is one: 0 / 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards.prometheus.language import (
    COMPARISONS,
    Aggregation,
    Binary,
    Call,
    Expression,
    Leaf,
    Number,
    Over,
    Selector,
)
from dashboards.prometheus.names import NAME
from dashboards.prometheus.problems import TooMuch

Labels = Mapping[str, str]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Vector:
    """Series at each step.

    Attributes:
        labels: Of each series, ascending by name, shape (n,).
        values: Shape (n, steps).
        there: Whether there is a value, shape (n, steps).
    """

    labels: Sequence[Labels]
    values: Floats
    there: NDArray[np.bool_]


Value = Vector | Floats
"""A vector, or a number at each step, shape (steps,)."""

_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
_CALLS: dict[str, Callable[[Any], Any]] = {
    "-": np.negative,
    "abs": np.abs,
    "ceil": np.ceil,
    "floor": np.floor,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "ln": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "sgn": np.sign,
}


def evaluate(tree: Expression, read: Mapping[Leaf, Vector], steps: int) -> Value:
    """Return what a query is at each step.

    Args:
        tree: The query.
        read: What was read of its leaves.
        steps: How many steps there are.

    Raises:
        TooMuch: two of its series would be called alike.
    """
    with np.errstate(all="ignore"):
        return _value(tree, read, steps)


def without_name(vector: Vector) -> Vector:
    """Return a vector of which the values are no longer those of the metric.

    Raises:
        TooMuch: two of its series are called alike then.
    """
    labels = [{name: value for name, value in one.items() if name != NAME} for one in vector.labels]
    _check_distinct(labels)
    return Vector(labels, vector.values, vector.there)


def _value(tree: Expression, read: Mapping[Leaf, Vector], steps: int) -> Value:
    match tree:
        case Number():
            return np.full(steps, tree.value)
        case Selector() | Over():
            return read[tree]
        case Call():
            return _called(_CALLS[tree.function], _value(tree.operand, read, steps))
        case Aggregation():
            vector = _value(tree.operand, read, steps)
            assert isinstance(vector, Vector)
            return _aggregated(tree, vector)
        case Binary():
            return _combined(tree, _value(tree.left, read, steps), _value(tree.right, read, steps))


def _called(function: Callable[[Any], Any], value: Value) -> Value:
    if isinstance(value, Vector):
        bare = without_name(value)
        return Vector(bare.labels, function(bare.values), bare.there)
    result: Floats = function(value)
    return result


def _combined(tree: Binary, left: Value, right: Value) -> Value:
    vector = left if isinstance(left, Vector) else right if isinstance(right, Vector) else None
    found = _SIGNS[tree.sign](_values(left), _values(right))
    if vector is None:
        numbers: Floats = np.asarray(found, dtype=np.float64)
        return numbers
    if tree.sign in COMPARISONS and not tree.is_bool:
        return _there(vector, vector.there & found)
    bare = without_name(vector)
    return Vector(bare.labels, np.asarray(found, dtype=np.float64), bare.there)


def _values(value: Value) -> Floats:
    return value.values if isinstance(value, Vector) else value


def _there(vector: Vector, there: NDArray[np.bool_]) -> Vector:
    """Leave out the series that are nowhere any more."""
    some = np.flatnonzero(there.any(axis=1))
    return Vector([vector.labels[one] for one in some.tolist()], vector.values[some], there[some])


def _aggregated(tree: Aggregation, vector: Vector) -> Vector:
    groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for number, labels in enumerate(vector.labels):
        key = tuple(pair for pair in labels.items() if _is_kept(tree, pair[0]))
        groups.setdefault(key, []).append(number)
    steps = vector.values.shape[1]
    values, there = np.empty((len(groups), steps)), np.empty((len(groups), steps), dtype=np.bool_)
    for place, members in enumerate(groups.values()):
        present = vector.there[members]
        values[place] = _AGGREGATIONS[tree.function](vector.values[members], present)
        there[place] = present.any(axis=0)
    return Vector([dict(key) for key in groups], values, there)


def _is_kept(tree: Aggregation, label: str) -> bool:
    return label != NAME and label not in tree.labels if tree.is_without else label in tree.labels


def _sum(values: Floats, there: NDArray[np.bool_]) -> Floats:
    found: Floats = np.where(there, values, 0.0).sum(axis=0)
    return found


_AGGREGATIONS: dict[str, Callable[[Floats, NDArray[np.bool_]], Floats]] = {
    "sum": _sum,
    "avg": lambda values, there: _sum(values, there) / there.sum(axis=0),
    "min": lambda values, there: np.fmin.reduce(np.where(there, values, np.nan), axis=0),
    "max": lambda values, there: np.fmax.reduce(np.where(there, values, np.nan), axis=0),
    "count": lambda _, there: there.sum(axis=0).astype(np.float64),
}


def _check_distinct(labels: Sequence[Labels]) -> None:
    if len({tuple(one.items()) for one in labels}) < len(labels):
        raise TooMuch("vector cannot contain metrics with the same labelset: name the metric, or aggregate by(__name__)")
