"""What a test of an analytic needs: readings in, what it makes of them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents import loader
from agents.engine import Outputs
from agents.trial import run_over
from isotherm.events import Event
from isotherm.limits import SECOND
from isotherm.pack import Pack

BEGIN = 1_790_000_000 * SECOND
"""When the first readings were measured; each further one comes a second later."""


def outputs(path: Path, series: Mapping[str, Sequence[float]], **parameters: Any) -> Outputs:
    """Return all that an analytic makes of readings, one a second of each series.

    Args:
        path: The analytic's file.
        series: Series → values.
        parameters: Those that are not as declared.
    """
    analytic = loader.load(path)
    engine = analytic.build(analytic.name, analytic.parameters(parameters))
    names = list(series)
    packs = [
        Pack(
            names=[name for name in names if at < len(series[name])],
            series=np.arange(sum(at < len(series[name]) for name in names), dtype=np.int32),
            time=np.array([BEGIN + at * SECOND for name in names if at < len(series[name])], dtype=np.int64),
            value=np.array([series[name][at] for name in names if at < len(series[name])], dtype=np.float64),
            connector="test",
            received_at=BEGIN + at * SECOND,
        )
        for at in range(max(map(len, series.values())))
    ]
    return run_over(engine, packs)


def derived(path: Path, series: Mapping[str, Sequence[float]], **parameters: Any) -> dict[str, list[float]]:
    """Return the derived series and their values; see :func:`outputs`."""
    found: dict[str, list[float]] = {}
    for name, _, value in outputs(path, series, **parameters).readings():
        found.setdefault(name, []).append(value)
    return found


def events(path: Path, series: Mapping[str, Sequence[float]], **parameters: Any) -> list[Event]:
    """Return the events; see :func:`outputs`."""
    return outputs(path, series, **parameters).events
