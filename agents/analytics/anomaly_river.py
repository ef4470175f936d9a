"""Anomalies, by half-space trees of the library river."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from agents import Event, Reading, per_reading
from agents.analytic import Build
from isotherm.errors import SettingsError

TREES = 10
HEIGHT = 5
NODES = TREES * (2 ** (HEIGHT + 1) - 1)
SEED = 1

MAX_VALUE = 1e307
"""Greater values count as this one, so that no difference overflows."""

State = dict[str, Any]


class _Forest(NamedTuple):
    """Half-space trees, and their nodes in a fixed order."""

    trees: Any
    nodes: list[Any]


@cache
def _forest(window: int) -> _Forest:
    """Return half-space trees for a value in [0, 1].

    All series share them: where the trees divide is drawn once, with a fixed seed. A series' own is only how many of its
    readings came through each node, in the window now (``l``) and in the one before (``r``). So its state is two columns of
    u16, instead of a pickled forest, and is the same after a restart.

    Raises:
        SettingsError: river is not installed.
    """
    try:
        from river.anomaly import HalfSpaceTrees
    except ImportError as error:
        raise SettingsError("anomaly_river needs the library river: pip install isotherm[river]") from error
    trees = HalfSpaceTrees(n_trees=TREES, height=HEIGHT, window_size=window, seed=SEED)
    for _ in range(window):  # builds them, and lets them think that their first window is over
        trees.learn_one({"x": 0.5})
    return _Forest(trees, [node for tree in trees.trees for node in tree.iter_dfs()])


@per_reading("*", output="{metric}_anomaly")
def anomaly_river(
    reading: Reading,
    state: State,
    *,
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.92,
    window: Annotated[int, Field(ge=20, le=10_000)] = 250,
) -> Iterator[float | Event]:
    """How unusual a reading is for its series, from 0 to 1, and an event above ``threshold``: whatever shape usual has.

    Half-space trees (Tan, Ting, Liu 2011, Fast anomaly detection for streaming data, IJCAI) of the library river: ten trees
    divide the range of the first ``window`` readings, and twice as much, at random; a reading scores high where few of the
    window before fell. So the first two windows get no score. Where the range has become another (half of a window is out of
    it, or it is all in a quarter) they begin anew. An excursion is one event; it ends when a reading is below the threshold.

    Optional: needs ``pip install isotherm[river]``.
    """
    if not state:
        state |= {"n": 0, "limits": None, "low": MAX_VALUE, "high": -MAX_VALUE, "out": 0, "ready": False, "is_out": False}
    value = min(max(reading.value, -MAX_VALUE), MAX_VALUE)
    state["low"], state["high"] = min(state["low"], value), max(state["high"], value)
    score = None if state["limits"] is None else _learn(state, _place(value, *state["limits"]), window)
    state["n"] += 1
    if state["n"] == window:
        _end_window(state)
    if score is None:
        return
    yield score
    if score >= threshold and not state["is_out"]:
        yield reading.event(
            f"{reading.metric} is {reading.value:.4g}, where it hardly ever is (score {score:.2f})", "warning"
        )
    state["is_out"] = score >= threshold


def _place(value: float, low: float, high: float) -> float:
    """Return where a value is: 0.25 and 0.75 are the limits, 0 and 1 half a range beyond, and farther."""
    if low == high:
        return 0.5 if value == low else float(value > low)
    return min(max(0.25 + (value - low) / (high - low) / 2, 0.0), 1.0)


def _learn(state: State, place: float, window: int) -> float | None:
    """Learn a value, and return its score, if there is a window before to compare with."""
    forest = _forest(window)
    for node, now, before in zip(forest.nodes, array("H", state["l"]), array("H", state["r"]), strict=True):
        node.l_mass, node.r_mass = now, before
    score = float(forest.trees.score_one({"x": place})) if state["ready"] else None
    forest.trees.counter = 0  # windows are counted here
    forest.trees.learn_one({"x": place})
    state["l"] = array("H", [node.l_mass for node in forest.nodes]).tobytes()
    state["out"] += not 0.25 <= place <= 0.75
    return score


def _end_window(state: State) -> None:
    """Compare with this window from now on; or begin anew, when its range is another."""
    low, high = state["low"], state["high"]
    limits = state["limits"]
    nothing = bytes(2 * NODES)
    if limits is None or 2 * state["out"] > state["n"] or 4 * (high - low) < limits[1] - limits[0]:
        state |= {"limits": (low, high), "l": nothing, "r": nothing, "ready": False, "is_out": False}
    else:
        state |= {"r": state["l"], "l": nothing, "ready": True}
    state |= {"n": 0, "low": MAX_VALUE, "high": -MAX_VALUE, "out": 0}


def _with_river(build: Build) -> Build:
    def checked(name: str, parameters: Any) -> Any:
        _forest(parameters.window)
        return build(name, parameters)

    return checked


anomaly_river = replace(anomaly_river, build=_with_river(anomaly_river.build))
