"""SenML in JSON (RFC 8428 §5): arrays of records, and NDJSON, one record or array a line.

The fast path decodes a whole chunk of lines in one call when every line is a record of name, value, time and unit and
nothing else. Whatever does not fit that mould, good or bad, takes the general path, line by line and record by record, so
that a good reading beside a bad one is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from connectors.formats.decoded import Decoded
from isotherm.errors import InvalidReading
from isotherm.limits import MAX_PACK_BYTES, MAX_PACK_READINGS
from isotherm.rejects import Rejected

VERSION = 10
"""The SenML version that is understood (RFC 8428 §4.4)."""

RELATIVE_BELOW_S = 2**28
"""Smaller times are relative to now (RFC 8428 §4.5.3)."""

_FAR_S = 1e12
"""Times are clipped here before they become integers; intake refuses them long before."""


class _PlainRecord(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What nearly every record is: no base fields, a number for a value."""

    n: str
    v: float
    t: float = 0.0
    u: str = ""


class _Record(msgspec.Struct, gc=False):
    """A record with every field of RFC 8428 that we read."""

    bn: str | None = None
    bt: float | None = None
    bu: str | None = None
    bv: float | None = None
    bver: int | None = None
    n: str = ""
    u: str | None = None
    v: float | None = None
    vs: str | None = None
    vb: bool | None = None
    vd: str | None = None
    s: float | None = None
    t: float = 0.0


_BASE_FIELD = re.compile(rb'"b(?:n|t|u|v|s|ver)"\s*:')

_plain_lines = msgspec.json.Decoder(_PlainRecord)
_record = msgspec.json.Decoder(_Record)
_array = msgspec.json.Decoder(list[msgspec.Raw])
_labels = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode_lines(lines: bytes, now: int) -> Decoded:
    """Decode NDJSON.

    Args:
        lines: Complete lines; the last may lack its newline. Blank ones are passed over.
        now: µs since the epoch UTC; relative times count from here.
    """
    try:
        records = _plain_lines.decode_lines(lines)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_each((line for line in lines.splitlines() if line.strip()), now)
    names = [record.n for record in records]
    return Decoded(
        names,
        _absolute_us(np.array([record.t for record in records], dtype=np.float64), now),
        np.array([record.v for record in records], dtype=np.float64),
        lambda i: _raw_line(lines, records, i),
        {record.n: record.u for record in records if record.u},
    )


def _raw_line(lines: bytes, records: Sequence[_PlainRecord], i: int) -> bytes:
    """Return the line of record i; where lines and records are not one to one, the record written anew."""
    found = [line for line in lines.split(b"\n") if line.strip()]
    return found[i] if len(found) == len(records) else msgspec.json.encode(records[i])


def decode_payload(payload: bytes, now: int) -> Decoded:
    """Decode one SenML array (or one record) that came as a message.

    Args:
        payload: The message's body.
        now: µs since the epoch UTC; relative times count from here.
    """
    if len(payload) > MAX_PACK_BYTES:
        detail = f"a payload of {len(payload)} bytes, expected at most {MAX_PACK_BYTES}"
        return Decoded.nothing(Rejected("too_large", detail, payload))
    return _decode_each([payload], now)


def _decode_each(payloads: Iterator[bytes] | Sequence[bytes], now: int) -> Decoded:
    collector = _Collector(now)
    for payload in payloads:
        collector.add(payload)
    return collector.decoded()


class _Collector:
    """Gathers readings and rejects from several payloads."""

    def __init__(self, now: int) -> None:
        self._now = now
        self._names: list[str] = []
        self._times: list[float] = []
        self._values: list[float] = []
        self._raws: list[bytes] = []
        self._units: dict[str, str] = {}
        self._rejects: list[Rejected] = []

    def add(self, payload: bytes) -> None:
        """Take one array or record."""
        try:
            records = _split(payload)
        except InvalidReading as error:
            self._rejects.append(Rejected(error.reason, error.detail, payload))
            return
        base = _Base()
        alone = len(records) == 1
        for raw in records:
            try:
                reading = base.resolve(raw)
            except InvalidReading as error:
                self._rejects.append(Rejected(error.reason, error.detail, payload if alone else raw))
                continue
            if reading is not None:
                self._append(reading, payload if alone else None)

    def _append(self, reading: _PlainRecord, raw: bytes | None) -> None:
        self._names.append(reading.n)
        self._times.append(reading.t)
        self._values.append(reading.v)
        self._raws.append(msgspec.json.encode(reading) if raw is None else raw)
        if reading.u:
            self._units[reading.n] = reading.u

    def decoded(self) -> Decoded:
        """Return everything that was added."""
        return Decoded(
            self._names,
            _absolute_us(np.array(self._times, dtype=np.float64), self._now),
            np.array(self._values, dtype=np.float64),
            self._raws.__getitem__,
            self._units,
            self._rejects,
        )


class _Base:
    """The base fields that hold for the records that follow (RFC 8428 §4.1)."""

    def __init__(self) -> None:
        self._name = ""
        self._time = 0.0
        self._unit = ""
        self._value = 0.0
        self._lost = False

    def resolve(self, raw: bytes) -> _PlainRecord | None:
        """Return the reading in ``raw`` with the base fields applied; None when it has base fields alone.

        Raises:
            InvalidReading: it is no reading, or follows one whose base fields could not be read.
        """
        if self._lost:
            raise InvalidReading("base", "follows a record whose base fields could not be read")
        try:
            record = _decode(raw)
        except InvalidReading:
            self._lost = _BASE_FIELD.search(raw) is not None
            raise
        self._update(record)
        name = self._name + record.n
        value = _value(record)
        if value is None:
            if record.n or record.bn is None:
                raise InvalidReading("no_value", "none of v, vb, vs, vd in a record with a name")
            return None
        return _PlainRecord(name, self._value + value, self._time + record.t, record.u or self._unit)

    def _update(self, record: _Record) -> None:
        if record.bn is not None:
            self._name = record.bn
        if record.bt is not None:
            self._time = record.bt
        if record.bu is not None:
            self._unit = record.bu
        if record.bv is not None:
            self._value = record.bv


def _split(payload: bytes) -> list[bytes]:
    """Return the records of an array, or the one record that is no array.

    Raises:
        InvalidReading: it is neither, or has too many.
    """
    if payload.lstrip()[:1] != b"[":
        return [payload]
    try:
        records = _array.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidReading("malformed", f"no JSON array: {error}") from error
    if len(records) > MAX_PACK_READINGS:
        raise InvalidReading("too_large", f"{len(records)} records, expected at most {MAX_PACK_READINGS}")
    return [bytes(record) for record in records]


def _decode(raw: bytes) -> _Record:
    try:
        record = _record.decode(raw)
        if b'_"' in raw:
            unknown = [label for label in _labels.decode(raw) if label.endswith("_")]
            if unknown:
                raise InvalidReading("unknown_field", f"field {unknown[0][:80]!r} must be understood (RFC 8428 §4.4)")
    except msgspec.ValidationError as error:
        raise InvalidReading("type", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidReading("malformed", f"no JSON object: {error}") from error
    if record.bver is not None and record.bver > VERSION:
        raise InvalidReading("version", f"SenML version {record.bver}, expected at most {VERSION}")
    return record


def _value(record: _Record) -> float | None:
    if record.v is not None:
        return record.v
    if record.vb is not None:
        return float(record.vb)
    if record.vs is not None or record.vd is not None:
        raise InvalidReading("not_numeric", "a value of vs or vd is no number; expected v or vb")
    return None


def _absolute_us(seconds: NDArray[np.float64], now: int) -> NDArray[np.int64]:
    """Turn SenML times into µs since the epoch; shape (n,) in, shape (n,) out."""
    relative = seconds < RELATIVE_BELOW_S
    exact = np.rint(np.clip(seconds, -_FAR_S, _FAR_S) * 1e6).astype(np.int64)
    return np.where(relative, exact + now, exact)
