"""Anomalies, by a robust z-score."""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from agents import Event, Readings, per_batch

BOUND = 3.0
"""Deviations beyond which a reading counts for the estimates as if it were that far out."""

TO_SIGMA = 1.2545159
"""1 / E min(|Z|, BOUND) of a standard normal Z: makes the scale a standard deviation."""

FIRST = 5
"""Readings that are taken as they are: there is no scale yet."""

MAX_SCORE = 1000.0
MAX_VALUE = 1e307
"""Greater values count as this one, so that no difference overflows."""

FLAT, TINY = 1e-9, 1e-30
"""A scale of that part of the mean, or that small, is none: the series does not vary."""


@per_batch("*", output="{metric}_score", state={"count": 0, "mean": 0.0, "scale": 0.0, "is_out": 0})
def anomaly(
    readings: Readings,
    *,
    threshold: Annotated[float, Field(gt=0, le=MAX_SCORE)] = 6.0,
    half_life: Annotated[int, Field(ge=2, le=10_000_000)] = 200,
    warm_up: Annotated[int, Field(ge=FIRST, le=10_000_000)] = 50,
) -> tuple[NDArray[np.float64], Iterator[Event]]:
    """How many standard deviations a reading is from what is usual for its series, and an event beyond ``threshold``.

    Mean m and scale s are exponentially weighted, with a weight w that halves in ``half_life`` readings, and of an error
    e = x − m only what is within 3 s counts:

        score = e / s       m += w·ψ(e)       s += w·(1.2545·|ψ(e)| − s)       ψ(e) = min(max(e, −3 s), 3 s)

    So outliers hardly move them, while a lasting change of D deviations becomes usual within about ln D half-lives. This is
    robust exponential smoothing with Huber's ψ (Gelper, Fried, Croux 2010, J. Forecasting 29, 285), the scale by absolute
    deviations (Huber, Robust Statistics, 1981, ch. 5) so that nothing is squared. The first ``warm_up`` readings get no
    score. An excursion is one event; it ends below half the threshold. A series that never varied and then does scores
    ±1000, as everything does that is farther out.
    """
    value = np.clip(readings.value, -MAX_VALUE, MAX_VALUE)
    score = np.full(len(readings), np.nan)
    weight = 1 - 0.5 ** (1 / half_life)
    count, mean, scale, is_out = (readings.state[name].copy() for name in ("count", "mean", "scale", "is_out"))
    found: list[tuple[int, float, float]] = []
    with np.errstate(all="ignore"):
        for series, at in readings.rounds():
            n, m, s = count[series] + 1, mean[series], scale[series]
            error = value[at] - m
            is_flat = s <= FLAT * np.abs(m) + TINY
            scores = np.where(is_flat, MAX_SCORE * np.sign(error), np.clip(error / s, -MAX_SCORE, MAX_SCORE))
            scores[n <= warm_up] = np.nan
            size = np.minimum(np.abs(error), np.where(is_flat | (n <= FIRST), np.inf, BOUND * s))
            mean[series] = m + np.maximum(1 / n, weight) * np.copysign(size, error)
            change = np.maximum(1 / np.maximum(n - 1, 1), weight) * (TO_SIGMA * size - s)
            scale[series] = np.where(n == 1, 0.0, s + change)
            was_out, far = is_out[series] != 0, np.abs(scores)
            begins = ~was_out & (far >= threshold)
            is_out[series] = (was_out & ~(far < threshold / 2)) | begins
            count[series], score[at] = n, scores
            for i in np.flatnonzero(begins).tolist():
                found.append((int(at[i]), float(m[i]), float(s[i])))
    for name, column in (("count", count), ("mean", mean), ("scale", scale), ("is_out", is_out)):
        readings.state[name] = column
    return score, _events(readings, score, sorted(found))


def _events(readings: Readings, score: NDArray[np.float64], found: list[tuple[int, float, float]]) -> Iterator[Event]:
    for at, mean, scale in found:
        reading = readings.reading(at)
        side = "above" if score[at] > 0 else "below"
        usual = f"{mean:.4g} ± {scale:.2g}" if scale else f"{mean:.4g}, always"
        yield reading.event(
            f"{reading.metric} is {reading.value:.4g}, far {side} what is usual: {usual} (score {score[at]:.1f})", "warning"
        )
