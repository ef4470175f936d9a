"""The Parquet form of an archive.

Arrays are built from buffers and read as buffers: ``pyarrow.array``, ``pyarrow.scalar`` and ``to_numpy`` would import
pandas, which takes a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from isotherm.archive.rows import BLOCK_ROWS, COLUMNS, Fault, Name, Rows, is_of_readings
from isotherm.errors import IsothermError
from isotherm.limits import SECOND
from isotherm.store.history import History

ROW_GROUP_ROWS = 100_000
"""Rows that are held until they are written."""

_TIME = pa.timestamp("us", tz="UTC")
_TEXT = pa.dictionary(pa.int32(), pa.utf8())
_TYPES = {"device": _TEXT, "metric": _TEXT, "unit": _TEXT, "time": _TIME, "last_at": _TIME, "count": pa.int64()}
SCHEMA = pa.schema([pa.field(name, _TYPES.get(name, pa.float64()), nullable=False) for name in COLUMNS])


class ParquetSink:
    """Writes rows as Parquet, a row group at a time."""

    def __init__(self, file: IO[bytes]) -> None:
        self._writer = pq.ParquetWriter(file, SCHEMA, compression="zstd")
        self._held: list[tuple[Name, History]] = []
        self._count = 0

    def write(self, name: Name, rows: History) -> None:
        """Append the rows of one series."""
        self._held.append((name, rows))
        self._count += len(rows)
        if self._count >= ROW_GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the footer; the file itself stays open."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if not self._count:
            return
        counts = [len(rows) for _, rows in self._held]
        columns = [_texts([getattr(name, part) for name, _ in self._held], counts) for part in Name._fields]
        for column in COLUMNS[len(columns) :]:
            values = np.concatenate([_values(rows, column) for _, rows in self._held])
            columns.append(pa.Array.from_buffers(SCHEMA.field(column).type, len(values), [None, pa.py_buffer(values)]))
        self._writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), row_group_size=ROW_GROUP_ROWS)
        self._held, self._count = [], 0


def _values(rows: History, column: str) -> NDArray[Any]:
    if column == "step":
        return rows.width / SECOND
    return np.ascontiguousarray(getattr(rows, column))


def _texts(texts: Sequence[str], counts: Sequence[int]) -> pa.Array:
    """Return each text as often as its count says."""
    numbers: dict[str, int] = {}
    index = np.repeat(np.array([numbers.setdefault(text, len(numbers)) for text in texts], dtype=np.int32), counts)
    encoded = [text.encode() for text in numbers]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int32)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    dictionary = pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))
    return pa.DictionaryArray.from_arrays(
        pa.Array.from_buffers(pa.int32(), len(index), [None, pa.py_buffer(index)]), dictionary, safe=False
    )


class ParquetSource:
    """Reads rows of Parquet."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            OSError: it cannot be read.
            IsothermError: it is no Parquet, or has not the columns that are needed.
        """
        self._path = path
        try:
            with path.open("rb") as file, pq.ParquetFile(file) as parquet:
                schema = parquet.schema_arrow
                self.size = parquet.metadata.num_rows
        except pa.ArrowException as error:
            raise _broken(path, error) from error
        self.position = 0
        self.header = list(schema.names)
        self._readings = is_of_readings(path, self.header)
        wanted = (*Name._fields, "time", "value") if self._readings else COLUMNS
        self._columns = [name for name in wanted if name in self.header]
        if "unit" in self._columns and pa.types.is_null(schema.field("unit").type):
            self._columns.remove("unit")
        for name in self._columns:
            _check_type(path, schema.field(name))

    def blocks(self) -> Iterator[Rows]:
        """Yield all rows, in pieces of at most BLOCK_ROWS.

        Raises:
            IsothermError: the file is damaged.
        """
        first = 0
        try:
            with self._path.open("rb") as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
                # One row group after the other: over all of them, what was read is held until the end.
                for group in range(parquet.num_row_groups):
                    for batch in parquet.iter_batches(BLOCK_ROWS, row_groups=[group], columns=self._columns):
                        if batch.num_rows:
                            self.position = first + batch.num_rows
                            yield self._rows(first, batch)
                            first += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise _broken(self._path, error) from error

    def _rows(self, first: int, batch: pa.RecordBatch) -> Rows:
        count = batch.num_rows
        faults: dict[int, Fault] = {}
        columns: dict[str, Any] = {name: batch.column(batch.schema.get_field_index(name)) for name in self._columns}
        for name, column in columns.items():
            if name != "unit" and column.null_count:
                for index in np.flatnonzero(_nulls(column)).tolist():
                    faults.setdefault(index, Fault("malformed", f"{name} is null"))
        names, name_index = _names(columns, count)
        time = _times(columns["time"])
        if self._readings:
            value = _numbers(columns["value"], pa.float64())
            aggregates = {"sum": value, "min": value, "max": value, "last": value}
            counts, step, last_at = np.ones(count, dtype=np.int64), np.zeros(count, dtype=np.int64), time
        else:
            aggregates = {one: _numbers(columns[one], pa.float64()) for one in ("sum", "min", "max", "last")}
            counts = _numbers(columns["count"], pa.int64())
            seconds = _numbers(columns["step"], pa.float64())
            step = np.rint(np.clip(np.nan_to_num(seconds, nan=-1), -1, 1e9) * SECOND).astype(np.int64)
            last_at = _times(columns["last_at"])
        return Rows(
            first=first,
            line=np.arange(first + 1, first + count + 1),
            names=names,
            name=name_index,
            time=time,
            step=step,
            count=counts,
            last_at=last_at,
            text=lambda index: [_text(columns[name][index]) if name in columns else "" for name in self.header],
            faults=faults,
            **aggregates,
        )


def _names(columns: Mapping[str, Any], count: int) -> tuple[list[Name], NDArray[np.int64]]:
    """Return the distinct names, and which one each row has; a null is the empty text."""
    texts, index = [], np.zeros(count, dtype=np.int64)
    for part in Name._fields:
        if part in columns:
            encoded = pc.dictionary_encode(columns[part].dictionary_decode() if _is_coded(columns[part]) else columns[part])
            found = ["", *encoded.dictionary.to_pylist()]
            own = np.where(_nulls(columns[part]), 0, _values_of(encoded.indices, np.dtype(np.int32)).astype(np.int64) + 1)
        else:
            found, own = [""], np.zeros(count, dtype=np.int64)
        index = index * len(found) + own
        texts.append(found)
    distinct, inverse = np.unique(index, return_inverse=True)
    names = []
    for one in distinct.tolist():
        parts = []
        for found in reversed(texts):
            one, own_index = divmod(one, len(found))
            parts.append(found[own_index])
        names.append(Name(*reversed(parts)))
    return names, inverse.astype(np.int64)


def _is_coded(column: Any) -> bool:
    return bool(pa.types.is_dictionary(column.type))


def _numbers(column: Any, kind: Any) -> NDArray[Any]:
    return _values_of(pc.cast(column, kind, safe=False), np.dtype(np.int64 if kind == pa.int64() else np.float64))


def _times(column: Any) -> NDArray[np.int64]:
    return _numbers(pc.cast(column, _TIME, safe=False).view(pa.int64()), pa.int64())


def _values_of(column: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the values of a column; where it is null, anything."""
    if column.null_count == len(column):
        return np.zeros(len(column), dtype=dtype)
    return np.frombuffer(column.buffers()[1] or b"", dtype=dtype)[column.offset : column.offset + len(column)]


def _nulls(column: Any) -> NDArray[np.bool_]:
    """Tell where a column is null."""
    found = pc.is_null(column)
    bits = np.unpackbits(np.frombuffer(found.buffers()[1] or b"", dtype=np.uint8), bitorder="little")
    return bits[found.offset : found.offset + len(found)].astype(np.bool_)


def _text(value: Any) -> str:
    found = value.as_py() if not pa.types.is_timestamp(value.type) else value.cast(pa.utf8()).as_py()
    return "" if found is None else str(found)


def _check_type(path: Path, field: Any) -> None:
    """Make sure that a column is of a kind that can be read.

    Raises:
        IsothermError: it is not.
    """
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if field.name in Name._fields:
        fits, expected = pa.types.is_string(kind) or pa.types.is_large_string(kind), "text"
    elif field.name in ("time", "last_at"):
        fits, expected = pa.types.is_timestamp(kind), "a timestamp"
    elif field.name == "count":
        fits, expected = pa.types.is_integer(kind), "an integer"
    else:
        fits, expected = pa.types.is_integer(kind) or pa.types.is_floating(kind), "a number"
    if not fits:
        raise IsothermError(f"{path}: column {field.name!r} is of type {field.type}, expected {expected}")


def _broken(path: Path, error: Exception) -> IsothermError:
    return IsothermError(f"{path} is no Parquet file, or is damaged: {error}")
