"""SenML in JSON (RFC 8428 §5): arrays of records, and NDJSON, one record or array a line.

The fast path decodes many lines, or an array, in one call when every record is of name, value, time, unit and sequence
number and nothing else. Lines that do not all fit that mould are taken in slices, and a slice that does not is read line by
line and record by record, so that a good reading beside a bad one is kept and a bad line costs no more than its slice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from connectors.formats.acceptable import check_size
from connectors.formats.decoded import PIECE, Decoded, Source
from connectors.formats.records import Collector, Record, senml_us, seq_column, standing_alone, times_us
from isotherm.errors import InvalidReading
from isotherm.limits import MAX_PACK_READINGS, MAX_SEQ
from isotherm.rejects import Rejected

PLAIN_PIECE = 2_000
"""Records in a piece of an array when all are plain: each costs less than 1 µs."""


class _PlainRecord(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What nearly every record is: no base fields, a number for a value."""

    n: str
    v: float
    t: float = 0.0
    u: str = ""


class _NumberedRecord(_PlainRecord, forbid_unknown_fields=True, gc=False):
    """The same with a sequence number; decoding this field costs a quarter more."""

    seq: int | None = None


_BASE_FIELD = re.compile(rb'"b(?:n|t|u|v|s|ver)"\s*:')

_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_plain_lines = msgspec.json.Decoder(_PlainRecord)
_numbered_lines = msgspec.json.Decoder(_NumberedRecord)
_plain_record = msgspec.json.Decoder(_PlainRecord)
_numbered_record = msgspec.json.Decoder(_NumberedRecord)
_plain_array = msgspec.json.Decoder(list[_PlainRecord])
_numbered_array = msgspec.json.Decoder(list[_NumberedRecord])
_record = msgspec.json.Decoder(Record)
_records = msgspec.json.Decoder(list[Record])
_array = msgspec.json.Decoder(list[msgspec.Raw])
_labels = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode_lines(data: bytes, now: int) -> Iterator[Decoded]:
    """Decode NDJSON.

    Args:
        data: Complete lines; the last may lack its newline. Blank ones are passed over.
        now: µs since the epoch UTC; relative times count from here.
    """
    plain = _plain(data, now, 0)
    if plain is not None:
        yield plain
        return
    lines = data.split(b"\n")
    for first in range(0, len(lines), PIECE):
        yield from _slice(lines[first : first + PIECE], now, first)


def decode_payload(data: bytes, now: int) -> Iterator[Decoded]:
    """Decode one SenML array (or one record) that came as a message.

    Args:
        data: The message's body.
        now: µs since the epoch UTC; relative times count from here.
    """
    try:
        check_size(data)
    except InvalidReading as error:
        yield Decoded.nothing(Rejected(error.reason, error.detail, data))
        return
    plain = _plain_payload(data)
    if plain is not None:
        yield from plain.pieces(now)
        return
    collector = Collector(now, msgspec.json.encode)
    for _ in _collect(collector, data, 0):
        if len(collector) >= PIECE:
            yield collector.take()
    if len(collector):
        yield collector.take()


class _PlainArray(NamedTuple):
    """A payload whose records are all plain.

    Attributes:
        data: The payload.
        records: What is in it.
        numbers: Their sequence numbers; None when no record has one.
    """

    data: bytes
    records: Sequence[_PlainRecord]
    numbers: Sequence[int | None] | None = None

    def pieces(self, now: int) -> Iterator[Decoded]:
        """Yield the records in columns."""
        for first in range(0, len(self.records), PLAIN_PIECE):
            piece = self.records[first : first + PLAIN_PIECE]
            yield Decoded(
                [record.n for record in piece],
                times_us([record.t for record in piece], now),
                np.array([record.v for record in piece], dtype=np.float64),
                partial(self._origin, first),
                {record.n: record.u for record in piece if record.u},
                self._seq(first, piece),
            )

    def _seq(self, first: int, piece: Sequence[_PlainRecord]) -> NDArray[np.uint64] | None:
        if self.numbers is None:
            return None
        return seq_column(self.numbers[first : first + len(piece)], [record.t for record in piece])

    def _origin(self, first: int, i: int) -> Source:
        """Return where reading i of the piece that begins at ``first`` is from."""
        at = first + i
        if len(self.records) == 1:
            return 1, self.data
        one, number = self.records[at], None if self.numbers is None else self.numbers[at]
        return at + 1, msgspec.json.encode(standing_alone(one.n, one.u, one.v, one.t, number))


def _plain_payload(data: bytes) -> _PlainArray | None:
    """Return the records of an array, or the only one, when all are plain; None when they are not."""
    is_array = data.lstrip()[:1] == b"["
    try:
        if b'"seq"' not in data:
            plain = _PlainArray(data, _plain_array.decode(data) if is_array else [_plain_record.decode(data)])
        else:
            numbered = _numbered_array.decode(data) if is_array else [_numbered_record.decode(data)]
            plain = _PlainArray(data, numbered, [record.seq for record in numbered])
    except _ERRORS:
        return None
    if len(plain.records) > MAX_PACK_READINGS or not _are_sequence_numbers(plain.numbers or ()):
        return None
    return plain


def _are_sequence_numbers(numbers: Iterable[int | None]) -> bool:
    return all(number is None or 0 <= number <= MAX_SEQ for number in numbers)


def _plain(data: bytes, now: int, first: int) -> Decoded | None:
    """Decode lines that are all plain records; None when they are not."""
    seq = None
    records: Sequence[_PlainRecord]
    try:
        if b'"seq"' in data:
            records = numbered = _numbered_lines.decode_lines(data)
            numbers = [record.seq for record in numbered]
            if not _are_sequence_numbers(numbers):
                return None
            seq = seq_column(numbers, [record.t for record in numbered])
        else:
            records = _plain_lines.decode_lines(data)
    except _ERRORS:
        return None
    return Decoded(
        [record.n for record in records],
        senml_us(np.array([record.t for record in records], dtype=np.float64), now),
        np.array([record.v for record in records], dtype=np.float64),
        lambda i: _source(data, records, i, first),
        {record.n: record.u for record in records if record.u},
        seq,
    )


def _source(data: bytes, records: Sequence[_PlainRecord], i: int, first: int) -> Source:
    """Return the line of record i; where lines and records are not one to one, the record written anew."""
    found = [(at, line) for at, line in enumerate(data.split(b"\n"), first + 1) if line.strip()]
    return found[i] if len(found) == len(records) else (0, msgspec.json.encode(records[i]))


def _slice(lines: Sequence[bytes], now: int, first: int) -> Iterator[Decoded]:
    plain = _plain(b"\n".join(lines), now, first)
    if plain is not None:
        yield plain
        return
    collector = Collector(now, msgspec.json.encode)
    for at, line in enumerate(lines, first + 1):
        if line.strip():
            for _ in _collect(collector, line.removesuffix(b"\r"), at):
                if len(collector) >= PIECE:
                    yield collector.take()
    if len(collector):
        yield collector.take()


def _collect(collector: Collector, payload: bytes, line: int) -> Iterator[None]:
    """Give an array's or a line's records to a collector, one by one.

    Args:
        collector: Takes them.
        payload: An array or a record.
        line: Its place among the lines, from 1; 0 when its records have places of their own.
    """
    collector.begin()
    if payload.lstrip()[:1] != b"[":
        _collect_one(collector, payload, line or 1, payload)
        yield
        return
    try:
        records = _split(payload)
    except InvalidReading as error:
        collector.refuse(error, (line, payload))
        yield
        return
    alone = payload if len(records) == 1 else None
    for at, record in enumerate(records, 1):
        if isinstance(record, msgspec.Raw):
            _collect_one(collector, bytes(record), line or at, alone)
        else:
            collector.add(record, line or at, alone)
        yield


def _collect_one(collector: Collector, raw: bytes, at: int, alone: bytes | None) -> None:
    try:
        record = _decode(raw)
    except InvalidReading as error:
        collector.refuse(error, (at, raw if alone is None else alone))
        if _BASE_FIELD.search(raw):
            collector.lose_base()
    else:
        collector.add(record, at, alone)


def _split(payload: bytes) -> Sequence[Record | msgspec.Raw]:
    """Return the records of an array, decoded when all are good.

    Raises:
        InvalidReading: it is no array, or has too many.
    """
    records: Sequence[Record | msgspec.Raw]
    try:
        records = _array.decode(payload) if b'_"' in payload else _records.decode(payload)
    except _ERRORS:
        try:
            records = _array.decode(payload)
        except _ERRORS as error:
            raise InvalidReading("malformed", f"no JSON array: {error}") from error
    if len(records) > MAX_PACK_READINGS:
        raise InvalidReading("too_large", f"{len(records)} records, expected at most {MAX_PACK_READINGS}")
    return records


def _decode(raw: bytes) -> Record:
    try:
        record = _record.decode(raw)
        if b'_"' in raw:
            unknown = [label for label in _labels.decode(raw) if label.endswith("_")]
            if unknown:
                raise InvalidReading("unknown_field", f"field {unknown[0][:80]!r} must be understood (RFC 8428 §4.4)")
    except msgspec.ValidationError as error:
        raise InvalidReading("type", str(error)) from error
    except _ERRORS as error:
        raise InvalidReading("malformed", f"no JSON object: {error}") from error
    return record
