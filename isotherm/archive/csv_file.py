"""The CSV form of an archive.

Columns of a block are converted in one go; only where that fails is each field looked at, so that it can be said which
one is wrong and why.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from numpy.typing import NDArray

from isotherm.archive.rows import BLOCK_ROWS, COLUMNS, Fault, Name, Rows, is_of_readings
from isotherm.clock import parse_iso
from isotherm.limits import SECOND
from isotherm.store.history import History

_ISO_CHARS = range(len("2026-11-23T08:58:51"), len("2026-11-23T08:58:51.123456") + 1)
_FILLER = {"time": "1970-01-01T00:00:00", "last_at": "1970-01-01T00:00:00", "device": "", "metric": "", "unit": ""}

_Scalar = TypeVar("_Scalar", np.int64, np.float64)


class CsvSink:
    """Writes rows as CSV."""

    def __init__(self, file: IO[bytes]) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
        self._csv = csv.writer(self._text, lineterminator="\n")
        self._csv.writerow(COLUMNS)

    def write(self, name: Name, rows: History) -> None:
        """Append the rows of one series."""
        steps = {width: _seconds(width) for width in set(rows.width.tolist())}
        numbers = (rows.count, rows.sum, rows.min, rows.max, rows.last)
        self._csv.writerows(
            (*name, time, steps[width], *aggregates, last_at)
            for time, width, last_at, *aggregates in zip(
                _iso(rows.time), rows.width.tolist(), _iso(rows.last_at), *(one.tolist() for one in numbers), strict=True
            )
        )

    def close(self) -> None:
        """Hand over what is left; the file itself stays open."""
        self._text.flush()
        self._text.detach()


class CsvSource:
    """Reads rows of CSV."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            OSError: it cannot be read.
            IsothermError: it has not the columns that are needed.
        """
        self._path = path
        self.size = path.stat().st_size
        self.position = 0
        with path.open("rb") as file:
            self.header, _ = next(self._records(file), ([], 0))
        self._readings = is_of_readings(path, self.header)

    def blocks(self) -> Iterator[Rows]:
        """Yield all rows, in pieces of BLOCK_ROWS."""
        with self._path.open("rb") as file:
            records = self._records(file)
            next(records, None)
            first = 0
            while block := list(islice(records, BLOCK_ROWS)):
                self.position = file.tell()
                yield self._rows(first, block)
                first += len(block)
        self.position = self.size

    def _records(self, file: IO[bytes]) -> Iterator[tuple[list[str], int]]:
        """Yield the fields of each record and the line where it begins; none of one that is no CSV."""
        # Bytes that are no UTF-8 come back out as they went in, in the file of rejects.
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        try:
            reader = csv.reader(text, strict=True)
            while True:
                line = reader.line_num + 1
                try:
                    record = next(reader)
                except StopIteration:
                    return
                except csv.Error:
                    yield [], line
                else:
                    if record:
                        yield record, line
        finally:
            with suppress(ValueError):  # the file was closed before us
                text.detach()

    def _rows(self, first: int, block: Sequence[tuple[list[str], int]]) -> Rows:
        faults: dict[int, Fault] = {}
        records = [record for record, _ in block]
        if any(len(record) != len(self.header) for record in records):
            filler = [_FILLER.get(column, "0") for column in self.header]
            for index, record in enumerate(records):
                if len(record) != len(self.header):
                    got = f"{len(record)} fields, expected {len(self.header)}" if record else "no CSV: a quote is not closed"
                    faults[index] = Fault("malformed", got)
                    records[index] = filler
        columns = dict(zip(self.header, zip(*records, strict=True), strict=True))
        numbers: dict[tuple[str, str, str], int] = {}
        named = zip(columns["device"], columns["metric"], columns.get("unit", ("",) * len(block)), strict=True)
        name = [numbers.setdefault(one, len(numbers)) for one in named]
        time = _times(columns["time"], "time", faults)
        if self._readings:
            value = _floats(columns["value"], "value", faults)
            aggregates = {"sum": value, "min": value, "max": value, "last": value}
            count, step, last_at = np.ones(len(time), dtype=np.int64), np.zeros(len(time), dtype=np.int64), time
        else:
            aggregates = {one: _floats(columns[one], one, faults) for one in ("sum", "min", "max", "last")}
            count = _column(columns["count"], "count", faults, np.int64, int, "an integer")
            seconds = _floats(columns["step"], "step", faults)
            step = np.rint(np.clip(np.nan_to_num(seconds, nan=-1), -1, 1e9) * SECOND).astype(np.int64)
            last_at = _times(columns["last_at"], "last_at", faults)
        return Rows(
            first=first,
            line=np.fromiter((line for _, line in block), np.int64, len(block)),
            names=[Name(*one) for one in numbers],
            name=np.array(name, dtype=np.int64),
            time=time,
            step=step,
            count=count,
            last_at=last_at,
            text=lambda index: block[index][0],
            faults=faults,
            **aggregates,
        )


def _column(
    texts: Sequence[str],
    column: str,
    faults: dict[int, Fault],
    dtype: type[_Scalar],
    convert: Callable[[str], float],
    expected: str,
) -> NDArray[_Scalar]:
    """Convert the fields of a column; 0 where one cannot be, with its fault."""
    try:
        return np.fromiter(map(convert, texts), dtype, len(texts))
    except (ValueError, OverflowError):
        found = np.zeros(len(texts), dtype=dtype)
        for index, text in enumerate(texts):
            try:
                found[index] = convert(text)
            except (ValueError, OverflowError):
                faults.setdefault(index, Fault("malformed", f"{column} is {text[:80]!r}, expected {expected}"))
        return found


def _floats(texts: Sequence[str], column: str, faults: dict[int, Fault]) -> NDArray[np.float64]:
    return _column(texts, column, faults, np.float64, _float, "a number")


def _float(text: str) -> float:
    if "_" in text:  # Python reads 1_000 as 1000
        raise ValueError(text)
    return float(text)


def _times(texts: Sequence[str], column: str, faults: dict[int, Fault]) -> NDArray[np.int64]:
    plain = [text.removesuffix("Z") for text in texts]
    if all(len(text) in _ISO_CHARS for text in plain):  # numpy also takes "now" and "2026" for times
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # an offset from UTC, which numpy would pass over
                return np.array(plain, dtype="datetime64[us]").astype(np.int64)
        except (ValueError, UserWarning, DeprecationWarning):
            pass
    return _column(texts, column, faults, np.int64, iso_us, "date and time such as 2026-11-23T08:58:51.5Z")


def iso_us(text: str) -> int:
    """Parse ISO 8601 with date and time, in UTC unless it says otherwise, into µs since the epoch.

    Raises:
        ValueError: it is none.

    >>> iso_us("1970-01-01T01:00:00+01:00"), iso_us("1970-01-01T00:00:01.5Z")
    (0, 1500000)
    """
    if len(text) < len("20261123T08"):
        raise ValueError(f"{text!r} is no date with a time")
    return parse_iso(text)


def _iso(time: NDArray[np.int64]) -> list[str]:
    texts: list[str] = np.datetime_as_string(time.view("datetime64[us]"), timezone="UTC").tolist()
    return texts


def _seconds(width: int) -> str:
    return str(width // SECOND) if width % SECOND == 0 else repr(width / SECOND)
