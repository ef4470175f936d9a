"""A pack: readings in columns, and its form on the wire.

One pack is one Kafka record of the topic ``readings``: an Arrow IPC stream with one RecordBatch.

    | column | Arrow type                | meaning                                              |
    |--------|---------------------------|------------------------------------------------------|
    | series | dictionary<int32, utf8>   | ``device/metric``; every name once, in the dictionary |
    | time   | timestamp[us, UTC]        | when it was measured                                 |
    | value  | float64                   | finite                                               |
    | seq    | uint64, nullable          | the device's own number of the reading, if it sends one |

The highest bit of ``seq`` is set where the device gave no time, so that a repetition of the reading has another one.

Schema metadata: ``isotherm.version`` (of this format), ``connector`` (protocol and instance, what the ledger counts
by), ``received_at`` (µs UTC), ``units`` (JSON, series → unit; only those the connector has news of) and ``attributes``
(JSON, a list of ``[series, time µs, text]``: string values, of which the newest is kept and no history).

Arrays are built from buffers rather than with ``pyarrow.array``: that would import pandas when it is installed (1.2 s)
and copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

VERSION = b"1"

NO_SEQ = np.iinfo(np.uint64).max
"""In a column of sequence numbers: this reading has none."""

STAMPED = 1 << 63
"""Bit of a sequence number: the reading's time counts from its arrival, so a repetition of it has another time."""

_Scalar = TypeVar("_Scalar", bound=np.generic)

_TIME = pa.timestamp("us", tz="UTC")
_SCHEMA = pa.schema(
    [
        pa.field("series", pa.dictionary(pa.int32(), pa.utf8()), nullable=False),
        pa.field("time", _TIME, nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("seq", pa.uint64(), nullable=True),
    ]
)


class MalformedPack(ValueError):
    """The bytes are not a pack of this version."""


class Attribute(NamedTuple):
    """A string value: what a device says of itself, such as its firmware.

    Attributes:
        series: ``device/attribute``; in what a decoder returns, the SenML name.
        time: µs since the epoch UTC.
        text: The string; of a data value (``vd``), its base64url form.
    """

    series: str
    time: int
    text: str


@dataclass(frozen=True, slots=True)
class Pack:
    """Readings in columns.

    Attributes:
        names: Distinct series, ``device/metric``; ASCII.
        series: Index into ``names``, shape (n,), int32.
        time: µs since the epoch UTC, shape (n,), int64.
        value: Samples, shape (n,), float64.
        connector: Protocol and instance that took them in, such as ``tcp/6f1c``.
        received_at: µs since the epoch UTC.
        units: Units of the series whose unit is new or has changed.
        seq: The devices' own numbers, shape (n,), uint64, perhaps with STAMPED; NO_SEQ where there is none; None when no
            reading has one.
        attributes: String values, which are no readings of a series.
    """

    names: Sequence[str]
    series: NDArray[np.int32]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    connector: str
    received_at: int
    units: Mapping[str, str] = field(default_factory=dict)
    seq: NDArray[np.uint64] | None = None
    attributes: Sequence[Attribute] = ()

    def __len__(self) -> int:
        """Readings and attributes: what the ledger counts."""
        return len(self.value) + len(self.attributes)

    def rows(self, rows: NDArray[np.bool_]) -> Pack:
        """Return a pack of some of the readings, and all of the attributes."""
        seq = None if self.seq is None else self.seq[rows]
        return replace(self, series=self.series[rows], time=self.time[rows], value=self.value[rows], seq=seq)

    def to_ipc(self) -> bytes:
        """Encode as an Arrow IPC stream."""
        count = len(self.value)
        lengths = np.fromiter(map(len, self.names), dtype=np.int32, count=len(self.names))
        offsets = np.zeros(len(self.names) + 1, dtype=np.int32)
        np.cumsum(lengths, out=offsets[1:])
        dictionary = pa.StringArray.from_buffers(
            len(self.names), pa.py_buffer(offsets), pa.py_buffer("".join(self.names).encode("ascii"))
        )
        index = pa.Array.from_buffers(pa.int32(), count, [None, pa.py_buffer(np.ascontiguousarray(self.series))])
        columns = [
            pa.DictionaryArray.from_arrays(index, dictionary, safe=False),
            pa.Array.from_buffers(_TIME, count, [None, pa.py_buffer(np.ascontiguousarray(self.time))]),
            pa.Array.from_buffers(pa.float64(), count, [None, pa.py_buffer(np.ascontiguousarray(self.value))]),
            pa.nulls(count, pa.uint64()) if self.seq is None else _nullable(self.seq),
        ]
        metadata = {
            b"isotherm.version": VERSION,
            b"connector": self.connector.encode(),
            b"received_at": str(self.received_at).encode(),
        }
        if self.units:
            metadata[b"units"] = msgspec.json.encode(self.units)
        if self.attributes:
            metadata[b"attributes"] = msgspec.json.encode(self.attributes)
        schema = _SCHEMA.with_metadata(metadata)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
        return bytes(sink.getvalue())

    @classmethod
    def from_ipc(cls, data: bytes) -> Pack:
        """Decode what :meth:`to_ipc` made; the columns are views of ``data``.

        Raises:
            MalformedPack: ``data`` is no pack of this version.
        """
        try:
            with pa.ipc.open_stream(data) as reader:
                batch = reader.read_next_batch()
                metadata = reader.schema.metadata or {}
        except (pa.ArrowException, StopIteration, OSError) as error:
            raise MalformedPack(f"no Arrow IPC stream with a batch: {error}") from error
        if metadata.get(b"isotherm.version") != VERSION:
            raise MalformedPack(f"version {metadata.get(b'isotherm.version')!r}, expected {VERSION!r}")
        try:
            return cls._from_batch(batch, metadata)
        except (KeyError, ValueError, TypeError, AttributeError, msgspec.DecodeError) as error:
            raise MalformedPack(f"a column or its metadata is not as expected: {error!r}") from error

    @classmethod
    def _from_batch(cls, batch: pa.RecordBatch, metadata: Mapping[bytes, bytes]) -> Pack:
        if not batch.schema.equals(_SCHEMA):
            raise ValueError(f"schema {batch.schema}")
        batch.validate(full=True)
        series, seq = batch.column(0), batch.column(3)
        units, attributes = metadata.get(b"units"), metadata.get(b"attributes")
        return cls(
            names=series.dictionary.to_pylist(),
            series=_numpy(series.indices, np.int32),
            time=_numpy(batch.column(1), np.int64),
            value=_numpy(batch.column(2), np.float64),
            connector=metadata[b"connector"].decode(),
            received_at=int(metadata[b"received_at"]),
            units=msgspec.json.decode(units, type=dict[str, str]) if units else {},
            seq=_with_gaps(seq),
            attributes=msgspec.json.decode(attributes, type=list[Attribute]) if attributes else (),
        )


def _nullable(seq: NDArray[np.uint64]) -> pa.Array:
    valid = seq != NO_SEQ
    bits = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.uint64(), len(seq), [bits, pa.py_buffer(np.ascontiguousarray(seq))])


def _with_gaps(column: pa.Array) -> NDArray[np.uint64] | None:
    if column.null_count == len(column):
        return None
    data = np.frombuffer(column.buffers()[1] or b"", dtype=np.uint64)[column.offset : column.offset + len(column)]
    if not column.null_count:
        return data
    bits = np.frombuffer(column.buffers()[0], dtype=np.uint8)
    valid = np.unpackbits(bits, bitorder="little")[column.offset : column.offset + len(column)]
    return np.where(valid, data, NO_SEQ)


def _numpy(column: pa.Array, dtype: type[_Scalar]) -> NDArray[_Scalar]:
    if column.null_count:
        raise ValueError("nulls in a column that must have none")
    data = np.frombuffer(column.buffers()[1] or b"", dtype=dtype)
    return data[column.offset : column.offset + len(column)]
