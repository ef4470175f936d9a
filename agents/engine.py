"""What runs in one partition of an analytic: readings in, derived readings and events out, and a state in memory.

An engine never waits and does no I/O; the framework around it brings packs from the log, keeps the state in the store beside
the offset, and delivers what comes out. So an engine can be tried over stored history, restarted anywhere, and tested as a
plain object. Most are made from a function, see `forms`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from isotherm.events import Event
from isotherm.pack import Pack


class Derived(NamedTuple):
    """Derived readings in columns.

    Attributes:
        names: Series, each of a device whose readings it came from; ``device/metric``.
        series: Index into ``names``, shape (n,).
        time: µs since the epoch UTC, shape (n,).
        value: Samples, shape (n,).
        unit: RFC 8428 unit of all of them, or empty.
    """

    names: Sequence[str]
    series: NDArray[np.int64]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    unit: str = ""


class Failure(NamedTuple):
    """Readings that a function could not take, and why; they go to ``rejects``."""

    readings: Pack
    error: Exception


@dataclass(slots=True)
class Outputs:
    """What came of some packs, or of time passing."""

    derived: list[Derived] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.derived or self.events or self.failures)

    def add(self, other: Outputs) -> None:
        """Put what came later behind."""
        self.derived += other.derived
        self.events += other.events
        self.failures += other.failures

    def readings(self) -> Iterator[tuple[str, int, float]]:
        """Yield every derived reading as series, time and value."""
        for one in self.derived:
            for series, time, value in zip(one.series.tolist(), one.time.tolist(), one.value.tolist(), strict=True):
                yield one.names[series], time, value


class Changes(NamedTuple):
    """What changed in the state: keys with their new rows, and keys that are gone."""

    rows: Mapping[str, bytes]
    gone: Sequence[str] = ()


class Engine(Protocol):
    """One analytic in one partition.

    When `run` or `tick` raises, the engine is not used again before `load` has put it back to where it was.
    """

    def load(self, rows: Mapping[str, bytes]) -> None:
        """Begin with a state: everything that `changes` ever told and that was not taken back."""

    def run(self, packs: Sequence[Pack]) -> Outputs:
        """Take in some packs, in the order of their offsets. Which packs come together must not matter."""

    def tick(self, now: int) -> Outputs:
        """Let time pass: nothing came until ``now``, µs since the epoch UTC. Called about once a second."""

    def changes(self) -> Changes:
        """Return what has changed since this was last asked."""


def rows_after(rows: Mapping[str, bytes], changes: Changes) -> dict[str, bytes]:
    """Return a state with changes in it."""
    return {key: row for key, row in {**rows, **changes.rows}.items() if key not in changes.gone}
