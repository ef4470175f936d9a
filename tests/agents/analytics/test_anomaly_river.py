"""Half-space trees."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from random import Random

import pytest

from agents import loader
from agents.engine import Engine, Outputs
from isotherm.errors import SettingsError
from tests.support.readings import pack_of

Build = Callable[..., Engine]
WINDOW = 100


def run(engine: Engine, values: Sequence[float]) -> Outputs:
    outputs = engine.run([pack_of(*(("a/t", at, value) for at, value in enumerate(values)))])
    assert outputs.failures == []
    return outputs


def two_states(count: int) -> list[float]:
    """A machine that is off or on: what lies between is unusual, and no z-score says so."""
    random = Random(1)
    return [random.choice((0.0, 100.0)) + random.gauss(0, 1) for _ in range(count)]


def test_the_first_two_windows_get_no_score(built: Build) -> None:
    engine = built(window=WINDOW)
    assert len(list(run(engine, two_states(2 * WINDOW)).readings())) == 0
    outputs = run(built(window=WINDOW), two_states(3 * WINDOW))
    made = list(outputs.readings())
    assert {name for name, _, _ in made} == {"a/t_anomaly"}
    assert len(made) == WINDOW
    assert all(0 <= value <= 1 for _, _, value in made)


def test_what_lies_far_off_is_one_event_and_what_lies_between_scores_higher_than_usual(built: Build) -> None:
    values = two_states(6 * WINDOW)
    values[300], values[400:403] = 50.0, [300.0, 300.0, 300.0]
    outputs = run(built(window=WINDOW), values)
    made = [value for _, _, value in outputs.readings()]
    usual = sorted(made[at - 2 * WINDOW] for at in range(2 * WINDOW, 6 * WINDOW) if at not in (300, 400, 401, 402))
    assert made[300 - 2 * WINDOW] > usual[-1]
    assert made[400 - 2 * WINDOW] > made[300 - 2 * WINDOW]
    [event] = outputs.events
    assert (event.kind, event.device, event.metric, event.value) == ("anomaly_river", "a", "t", 300.0)


def test_when_the_range_has_become_another_it_begins_anew(built: Build) -> None:
    engine = built(window=WINDOW)
    made = run(engine, two_states(3 * WINDOW) + [1000 + value for value in two_states(4 * WINDOW)])
    times = {time for _, time, _ in made.readings()}
    assert len(times) == (1 + 1 + 2) * WINDOW  # a window before, one that notices, one to learn, two with scores
    assert list(made.readings())[-1][2] < 0.9


def test_a_series_that_does_not_vary_is_not_unusual_until_it_does(built: Build) -> None:
    outputs = run(built(window=WINDOW), [20.0] * (3 * WINDOW) + [20.5])
    made = [value for _, _, value in outputs.readings()]
    assert max(made[:-1]) < 0.1
    assert made[-1] > 0.9
    assert len(outputs.events) == 1


def test_without_river_it_is_known_and_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "river.anomaly", None)
    analytic = loader.load(loader.BUILT_IN / "anomaly_river.py")
    assert "half-space trees" in analytic.text.lower()
    with pytest.raises(SettingsError) as raised:
        analytic.build(analytic.name, analytic.parameters({}))
    assert str(raised.value) == "anomaly_river needs the library river: pip install isotherm[river]"
