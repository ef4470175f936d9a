"""The robust z-score: against a naive model, and on series that people know."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import loader
from agents.engine import Engine, Outputs
from tests.support.readings import Row, pack_of

Build = Callable[..., Engine]
ANOMALY = loader.load(loader.BUILT_IN / "anomaly.py")
WARM_UP, HALF_LIFE, THRESHOLD = 20, 50, 6.0


def run(values: Sequence[float], **parameters: float) -> Outputs:
    given = {"warm_up": WARM_UP, "half_life": HALF_LIFE, "threshold": THRESHOLD, **parameters}
    engine = ANOMALY.build("anomaly", ANOMALY.parameters(given))
    return engine.run([pack_of(*(("a/t", at, value) for at, value in enumerate(values)))])


def scores(values: Sequence[float], **parameters: float) -> list[float]:
    return [value for _, _, value in run(values, **parameters).readings()]


def noise(count: int, seed: int = 1, mean: float = 20.0, sigma: float = 0.5) -> list[float]:
    random = Random(seed)
    return [random.gauss(mean, sigma) for _ in range(count)]


def naive(values: Sequence[float]) -> list[float]:
    """The formulas of the docstring, one reading after the other."""
    weight = 1 - 0.5 ** (1 / HALF_LIFE)
    mean = scale = 0.0
    found = []
    for n, value in enumerate(values, 1):
        error = value - mean
        flat = scale <= 1e-9 * abs(mean) + 1e-30
        if n > WARM_UP:
            score = 1000.0 * np.sign(error) if flat else max(-1000.0, min(1000.0, error / scale))
            found.append(float(score))
        bounded = error if flat or n <= 5 else max(-3 * scale, min(3 * scale, error))
        mean += max(1 / n, weight) * bounded
        scale = 0.0 if n == 1 else scale + max(1 / (n - 1), weight) * (1.2545159 * abs(bounded) - scale)
    return found


@given(st.lists(st.one_of(st.floats(-100, 100), st.sampled_from([0.0, 20.0, 1e6])), max_size=80))
@settings(max_examples=50)
def test_it_is_that_of_the_naive_model(values: list[float]) -> None:
    np.testing.assert_allclose(scores(values), naive(values), rtol=1e-9, atol=1e-9)


def test_of_normal_noise_the_scores_are_standard_normal() -> None:
    found = np.array(scores(noise(20_000), half_life=500))
    assert found.mean() == pytest.approx(0.0, abs=0.05)
    assert found.std() == pytest.approx(1.0, abs=0.03)
    assert np.abs(found).max() < THRESHOLD


def test_a_spike_is_one_event_and_moves_what_is_usual_hardly_at_all() -> None:
    values = noise(400)
    values[300] = 200.0
    outputs = run(values)
    [event] = outputs.events
    assert (event.kind, event.device, event.metric, event.value, event.severity) == ("anomaly", "a", "t", 200.0, "warning")
    assert "far above what is usual: 20" in event.message
    after = [value for _, _, value in outputs.readings()][301 - WARM_UP :]
    assert max(map(abs, after)) < 4.5


def test_an_excursion_is_one_event_until_it_is_back_below_half_the_threshold() -> None:
    values = noise(300, sigma=1.0)
    values[200:206] = [32.0, 26.0, 32.0, 26.0, 20.0, 32.0]  # 26 is beyond half of the threshold, 20 is usual
    assert [event.value for event in run(values).events] == [32.0, 32.0]


def test_a_lasting_change_becomes_usual_within_some_half_lives() -> None:
    values = noise(300) + noise(10 * HALF_LIFE, seed=2, mean=120.0)
    outputs = run(values)
    assert len(outputs.events) == 1
    assert max(abs(value) for _, _, value in list(outputs.readings())[-HALF_LIFE:]) < 3


def test_a_series_that_does_not_vary_scores_0_and_its_first_change_is_as_far_out_as_can_be() -> None:
    assert scores([21.0] * 100) == [0.0] * (100 - WARM_UP)
    outputs = run([0.0] * 100 + [1.0] * 400)
    found = [value for _, _, value in outputs.readings()]
    assert found[100 - WARM_UP] == 1000.0
    assert len(outputs.events) == 1
    assert "what is usual: 0, always" in outputs.events[0].message
    assert abs(found[-1]) < 3


def test_one_that_fell_still_for_very_long_wakes_up_again() -> None:
    found = scores(noise(300) + [20.0] * 20_000 + noise(1500, seed=3))
    assert max(map(abs, found[-500:])) < THRESHOLD


def test_the_first_readings_get_no_score() -> None:
    assert scores(noise(WARM_UP)) == []
    assert len(scores(noise(WARM_UP + 1))) == 1


def test_each_series_has_its_own_measure(built: Build) -> None:
    rows: list[Row] = []
    for at, (small, great) in enumerate(zip(noise(100, sigma=0.01), noise(100, seed=2, sigma=100.0), strict=True)):
        rows += [("a/small", at, small), ("a/great", at, great)]
    engine = built(warm_up=20)
    engine.run([pack_of(*rows)])
    outputs = engine.run([pack_of(("a/small", 200, 25.0), ("a/great", 200, 25.0))])
    made = {name: value for name, _, value in outputs.readings()}
    assert made["a/small_score"] > 100
    assert abs(made["a/great_score"]) < 2
    assert [event.metric for event in outputs.events] == ["small"]


def test_its_own_scores_are_not_scored(built: Build) -> None:
    engine = built(warm_up=5)
    assert list(engine.run([pack_of(*(("a/t_score", at, math.sin(at)) for at in range(50)))]).readings()) == []
