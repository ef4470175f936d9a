"""Packs from what a test writes down, and what an engine makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from agents.engine import Engine
from isotherm.limits import SECOND
from isotherm.pack import Attribute, Pack

BASE = 1_790_000_000 * SECOND

Row = tuple[str, float, float]
"""Series, time in s after BASE, value."""


def pack_of(*rows: Row, received: float = 0.0, connector: str = "tcp/1", attributes: Sequence[Attribute] = ()) -> Pack:
    """Return a pack that is received so many s after BASE."""
    numbers: dict[str, int] = {}
    return Pack(
        series=np.array([numbers.setdefault(name, len(numbers)) for name, _, _ in rows], dtype=np.int32),
        names=list(numbers),
        time=np.array([BASE + round(time * SECOND) for _, time, _ in rows], dtype=np.int64),
        value=np.array([value for *_, value in rows], dtype=np.float64),
        connector=connector,
        received_at=BASE + round(received * SECOND),
        attributes=attributes,
    )


def made_of(engine: Engine, *packs: Pack) -> list[Row]:
    """Return the readings that come of packs, in order of series and time."""
    return rows_of(engine.run(packs).readings())


def rows_of(readings: Iterable[tuple[str, int, float]]) -> list[Row]:
    """Return readings as a test writes them down."""
    return sorted((name, (time - BASE) / SECOND, value) for name, time, value in readings)
