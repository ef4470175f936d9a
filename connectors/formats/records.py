"""SenML records (RFC 8428): base fields, relative times, versions; the same for JSON and CBOR.

Beyond the standard's fields a record may hold ``seq``, the device's own number of the reading: an extension (§4.4, §12.2)
that other readers pass over. It lets a reading that is sent twice be told from two readings.

A string (``vs``) or data (``vd``) value becomes an attribute of the device; its newest value is kept and no history.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from connectors.formats.decoded import FAR_S, Decoded, Source, absolute_us
from isotherm.errors import InvalidReading
from isotherm.limits import MAX_ATTRIBUTE_CHARS, MAX_SEQ
from isotherm.pack import NO_SEQ, STAMPED, Attribute
from isotherm.rejects import Rejected

VERSION = 10
"""The SenML version that is understood (RFC 8428 §4.4)."""

RELATIVE_BELOW_S = 2**28
"""Smaller times are relative to now (RFC 8428 §4.5.3)."""

FEW = 20
"""So many times are converted faster one by one than as a column."""


class Record(msgspec.Struct, gc=False):
    """A record with every field of RFC 8428 that we read. A field that is null counts as absent."""

    bn: str | None = None
    bt: float | None = None
    bu: str | None = None
    bv: float | None = None
    bver: int | None = None
    n: str | None = None
    u: str | None = None
    v: float | None = None
    vs: str | None = None
    vb: bool | None = None
    vd: str | None = None
    s: float | None = None
    t: float | None = None
    seq: int | None = None


_BASE_LABELS = ("bn", "bt", "bu", "bv", "bver")


class Collector:
    """Resolves records and gathers readings, attributes and rejects in columns."""

    def __init__(self, now: int, encode: Callable[[dict[str, object]], bytes]) -> None:
        """Prepare.

        Args:
            now: µs since the epoch UTC; relative times count from here.
            encode: Writes a resolved record in the format it came in, for a reject.
        """
        self._now = now
        self._encode = encode
        self.begin()
        self._clear()

    def begin(self) -> None:
        """Begin another array: base fields hold only for the records that follow in the same one (§4.1)."""
        self._name, self._time, self._unit, self._value = "", 0.0, "", 0.0
        self._lost = False

    def lose_base(self) -> None:
        """A record with base fields could not be read: those that follow in its array cannot be resolved."""
        self._lost = True

    def refuse(self, error: InvalidReading, source: Source) -> None:
        """Note what is no reading."""
        at, raw = source
        self._rejects.append(Rejected(error.reason, error.detail, raw, at=at))

    def add(self, record: Record, at: int, raw: bytes | None = None) -> None:
        """Take a record.

        Args:
            record: As it was sent.
            at: Its place in the input, from 1.
            raw: Its bytes, when they mean the same by themselves.
        """
        try:
            if self._lost:
                raise InvalidReading("base", "follows a record whose base fields could not be read")
            self._resolve(record, at, raw)
        except InvalidReading as error:
            self.refuse(error, (at, self._encode(self._alone(record)) if raw is None else raw))

    def __len__(self) -> int:
        return len(self._names) + len(self._attributes) + len(self._rejects)

    def take(self) -> Decoded:
        """Return what was gathered since the last time; base fields go on."""
        names, times, values, units, sources = self._names, self._times, self._values, self._units, self._sources
        numbers = self._numbers

        def source(i: int) -> Source:
            at, raw, unit = sources[i]
            return at, self._encode(standing_alone(names[i], unit, values[i], times[i], numbers[i])) if raw is None else raw

        piece = Decoded(
            names,
            times_us(times, self._now),
            np.array(values, dtype=np.float64),
            source,
            units,
            seq_column(numbers, times),
            self._attributes,
            self._rejects,
        )
        self._clear()
        return piece

    def _clear(self) -> None:
        self._names: list[str] = []
        self._times: list[float] = []
        self._values: list[float] = []
        self._numbers: list[int | None] = []
        self._sources: list[tuple[int, bytes | None, str]] = []
        self._units: dict[str, str] = {}
        self._attributes: list[Attribute] = []
        self._rejects: list[Rejected] = []

    def _resolve(self, record: Record, at: int, raw: bytes | None) -> None:
        self._update_base(record)
        name = self._name + (record.n or "")
        time = self._time + (record.t or 0.0)
        value = record.v if record.vb is None else float(record.vb)
        if value is not None:
            seq = _checked_seq(record.seq)
            self._names.append(name)
            self._times.append(time)
            self._values.append(self._value + value if self._value else value)
            self._numbers.append(seq)
            unit = record.u or self._unit
            self._sources.append((at, raw, unit))
            if unit:
                self._units[name] = unit
            return
        text = record.vs if record.vd is None else record.vd
        if text is not None:
            if len(text) > MAX_ATTRIBUTE_CHARS:
                raise InvalidReading("attribute", f"{len(text)} characters of text, expected at most {MAX_ATTRIBUTE_CHARS}")
            self._attributes.append(Attribute(name, _time_us(time, self._now), text))
        elif record.s is not None:
            raise InvalidReading("no_value", "a sum (s) without a value; sums are not stored")
        elif record.n or record.bn is None:
            raise InvalidReading("no_value", "none of v, vb, vs, vd in a record with a name")

    def _alone(self, record: Record) -> dict[str, object]:
        """Return a record so that it means the same by itself (§4.6), as far as its base fields are known."""
        fields = {label: value for label, value in msgspec.structs.asdict(record).items() if value is not None}
        if not self._lost:
            fields = {label: value for label, value in fields.items() if label not in _BASE_LABELS}
            fields["n"] = self._name + (record.n or "")
            if self._time:
                fields["t"] = self._time + (record.t or 0.0)
        return fields

    def _update_base(self, record: Record) -> None:
        if record.bver is not None and record.bver > VERSION:
            self._lost = True
            raise InvalidReading("version", f"SenML version {record.bver}, expected at most {VERSION}")
        if record.bn is not None:
            self._name = record.bn
        if record.bt is not None:
            self._time = record.bt
        if record.bu is not None:
            self._unit = record.bu
        if record.bv is not None:
            self._value = record.bv


def senml_us(seconds: NDArray[np.float64], now: int) -> NDArray[np.int64]:
    """Turn SenML times into µs since the epoch; shape (n,) in, shape (n,) out."""
    exact = absolute_us(seconds)
    return np.where(seconds < RELATIVE_BELOW_S, exact + now, exact)


def times_us(seconds: Sequence[float], now: int) -> NDArray[np.int64]:
    """Do what :func:`senml_us` does, of a list, which is often short."""
    if len(seconds) > FEW:
        return senml_us(np.array(seconds, dtype=np.float64), now)
    return np.array([_time_us(time, now) for time in seconds], dtype=np.int64)


def _time_us(seconds: float, now: int) -> int:
    if not -FAR_S < seconds < FAR_S:  # also what is no number
        [time] = senml_us(np.array([seconds], dtype=np.float64), now).tolist()
        return int(time)
    exact = round(seconds * 1e6)
    return exact + now if seconds < RELATIVE_BELOW_S else exact


def standing_alone(name: str, unit: str, value: float, time: float, seq: int | None) -> dict[str, object]:
    """Return a resolved record's fields (§4.6)."""
    fields: dict[str, object] = {"n": name, "u": unit, "v": value, "t": time, "seq": seq}
    return {label: value for label, value in fields.items() if value not in ("", None)}


def _checked_seq(seq: int | None) -> int | None:
    if seq is not None and not 0 <= seq <= MAX_SEQ:
        raise InvalidReading("seq", f"sequence number {seq}, expected 0 to {MAX_SEQ}")
    return seq


def seq_column(numbers: Sequence[int | None], seconds: Sequence[float]) -> NDArray[np.uint64] | None:
    """Return sequence numbers as a column; None when there is none.

    Args:
        numbers: None where a reading has none.
        seconds: SenML times of the readings: of a relative one the number is STAMPED.
    """
    if not any(number is not None for number in numbers):
        return None
    stamps = (STAMPED if time < RELATIVE_BELOW_S else 0 for time in seconds)
    marked = [NO_SEQ if n is None else n | stamp for n, stamp in zip(numbers, stamps, strict=True)]
    return np.array(marked, dtype=np.uint64)
