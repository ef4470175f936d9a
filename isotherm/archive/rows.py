"""Rows of a file in columns, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from isotherm.errors import IsothermError
from isotherm.store.history import History

COLUMNS = ("device", "metric", "unit", "time", "step", "count", "sum", "min", "max", "last", "last_at")
READING_COLUMNS = ("device", "metric", "time", "value")

BLOCK_ROWS = 10_000
"""Rows that are read, checked and committed together: the store does nothing else meanwhile."""


class Name(NamedTuple):
    """What a row says of its series."""

    device: str
    metric: str
    unit: str

    @property
    def series(self) -> str:
        return f"{self.device}/{self.metric}"


class Fault(NamedTuple):
    """Why a row cannot be taken in: one word, and what was got and expected."""

    reason: str
    detail: str


@dataclass(slots=True)
class Rows:
    """Consecutive rows of a file.

    Attributes:
        first: Number of the first in the file, from 0.
        line: Where each stands: in CSV its line, in Parquet its number from 1, shape (n,).
        names: Distinct names, in order of appearance.
        name: Index into ``names``, shape (n,).
        time, step, last_at: µs, shape (n,); ``step`` 0 for a raw reading.
        count, sum, min, max, last: Shape (n,).
        faults: Index of a row → what is wrong with it; its columns then hold anything.
        text: Gives the fields of a row as they stand in the file.
    """

    first: int
    line: NDArray[np.int64]
    names: list[Name]
    name: NDArray[np.int64]
    time: NDArray[np.int64]
    step: NDArray[np.int64]
    count: NDArray[np.int64]
    sum: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    last: NDArray[np.float64]
    last_at: NDArray[np.int64]
    text: Callable[[int], Sequence[str]]
    faults: dict[int, Fault] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.time)


class Source(Protocol):
    """A file that is read."""

    header: list[str]
    size: int
    """Of the file, in bytes or rows."""
    position: int
    """How far it was read, in the same."""

    def blocks(self) -> Iterator[Rows]:
        """Yield all rows, in pieces of about BLOCK_ROWS."""


class Sink(Protocol):
    """A file that is written."""

    def write(self, name: Name, rows: History) -> None: ...

    def close(self) -> None: ...


def open_source(path: Path, form: str) -> Source:
    """Open a file to be read.

    Raises:
        IsothermError: it cannot be read, is of another format or lacks a column.
    """
    from isotherm.archive.csv_file import CsvSource
    from isotherm.archive.parquet_file import ParquetSource

    try:
        return CsvSource(path) if form == "csv" else ParquetSource(path)
    except OSError as error:
        raise IsothermError(f"{path} cannot be read: {error.strerror or error}") from error


def open_sink(file: Any, form: str) -> Sink:
    """Write to a file that is open for bytes."""
    from isotherm.archive.csv_file import CsvSink
    from isotherm.archive.parquet_file import ParquetSink

    return CsvSink(file) if form == "csv" else ParquetSink(file)


def is_of_readings(path: Path, header: Sequence[str]) -> bool:
    """Tell whether a file holds raw readings alone.

    Raises:
        IsothermError: columns are missing, or twice there.
    """
    expected = READING_COLUMNS if "value" in header else COLUMNS
    wrong = [f"no column {name!r}" for name in expected if name not in header]
    wrong += [f"{header.count(name)} columns {name!r}" for name in (*expected, "unit") if header.count(name) > 1]
    if wrong:
        found = ", ".join(map(repr, header))
        raise IsothermError(
            f"{path} has {wrong[0]}; expected {', '.join(READING_COLUMNS)} and perhaps unit, or {', '.join(COLUMNS)}; "
            f"found {found[:200] or 'none'}"
        )
    return "value" in header
