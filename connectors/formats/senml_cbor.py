"""SenML in CBOR (RFC 8428 §6): an array of maps whose labels are integers (Table 4) or text.

    | label | -1   | -2 | -3 | -4 | -5 | -6 | 0 | 1 | 2 | 3  | 4  | 5 | 6 | 7  | 8  |
    |-------|------|----|----|----|----|----|---|---|---|----|----|---|---|----|----|
    | field | bver | bn | bt | bu | bv | bs | n | u | v | vs | vb | s | t | ut | vd |

CBOR can say much more than SenML, and a decoder that takes it all can be made to work for minutes: arrays as map keys whose
hashes collide, regular expressions, references of references. So depth is bounded to that of an array of maps of scalars,
which is all that SenML has (§11), and every tag is refused but decimal fractions (tag 4). A fraction is two levels deep
itself, hence payloads with one are walked label by label, so that a label still cannot be a container.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import SEEK_CUR, BytesIO
from typing import NoReturn

import cbor2
import msgspec

from connectors.formats.acceptable import check_size
from connectors.formats.decoded import PIECE, Decoded
from connectors.formats.records import Collector, Record
from isotherm.errors import InvalidReading
from isotherm.limits import MAX_PACK_READINGS
from isotherm.rejects import Rejected

_NUMBERS = {"bver": -1, "bn": -2, "bt": -3, "bu": -4, "bv": -5, "bs": -6} | {
    field: number for number, field in enumerate(["n", "u", "v", "vs", "vb", "s", "t", "ut", "vd"])
}
_FIELDS: dict[object, str] = {number: field for field, number in _NUMBERS.items()} | {f: f for f in [*_NUMBERS, "seq"]}
_BASE_LABELS = {label for label, field in _FIELDS.items() if field[0] == "b"}

_ARRAY, _MAP = 4, 5  # major types (RFC 8949 §3.1)
_FRACTION_TAG = 4
_FRACTION_HEAD = b"\xc4"
_BREAK = b"\xff"
_INDEFINITE = 31

_ERRORS = (cbor2.CBORError, ValueError, RecursionError, MemoryError)


def decode_payload(data: bytes, now: int) -> Iterator[Decoded]:
    """Decode one SenML array (or one record) that came as a message.

    Args:
        data: The message's body.
        now: µs since the epoch UTC; relative times count from here.
    """
    try:
        items = _items(data)
    except InvalidReading as error:
        yield Decoded.nothing(Rejected(error.reason, error.detail, data))
        return
    collector = Collector(now, _encode)
    alone = data if len(items) == 1 else None
    for first in range(0, len(items), PIECE):
        part = items[first : first + PIECE]
        try:
            records = msgspec.convert([_named(item) for item in part], list[Record])
        except (InvalidReading, msgspec.ValidationError):
            for at, item in enumerate(part, first + 1):
                _collect_one(collector, item, at, alone)
        else:
            for at, record in enumerate(records, first + 1):
                collector.add(record, at, alone)
        yield collector.take()


def _items(data: bytes) -> Sequence[object]:
    """Return what the array holds.

    Raises:
        InvalidReading: it is too large, or no CBOR array of maps of scalars.
    """
    check_size(data)
    try:
        items = _flat(data)
    except _ERRORS as error:
        items = _with_fractions(data) if _FRACTION_HEAD in data else _refuse(error)
    if len(items) > MAX_PACK_READINGS:
        raise InvalidReading("too_large", f"{len(items)} records, expected at most {MAX_PACK_READINGS}")
    return items


def _flat(data: bytes) -> Sequence[object]:
    """Decode an array of maps, or a map, without tags."""
    stream = BytesIO(data)
    depth = 1 if data[:1] and data[0] >> 5 == _MAP else 2
    decoder = cbor2.CBORDecoder(stream, max_depth=depth, allow_duplicate_keys=False, semantic_decoders=_Tags())
    decoded = decoder.decode()
    _expect_end(stream)
    return decoded if isinstance(decoded, list) else [decoded]


def _with_fractions(data: bytes) -> Sequence[object]:
    """Decode what :func:`_flat` does, with decimal fractions among the values.

    Raises:
        InvalidReading: it is no CBOR array of maps of scalars.
    """
    stream = BytesIO(data)
    decoder = cbor2.CBORDecoder(stream, max_depth=2, semantic_decoders=_Tags())
    try:
        if data[0] >> 5 == _MAP:
            items = [_map(stream, decoder)]
        else:
            items = []
            for _ in _members(stream, _ARRAY):
                if len(items) == MAX_PACK_READINGS:
                    raise InvalidReading("too_large", f"more records than {MAX_PACK_READINGS}, expected at most so many")
                items.append(_map(stream, decoder))
        _expect_end(stream)
    except _ERRORS as error:
        _refuse(error)
    return items


def _map(stream: BytesIO, decoder: cbor2.CBORDecoder) -> dict[object, object]:
    found: dict[object, object] = {}
    for _ in _members(stream, _MAP):
        label = decoder.decode()
        if not isinstance(label, int | str):
            raise ValueError(f"a label of type {type(label).__name__}, expected an integer or text")
        if label in found:
            raise ValueError(f"label {str(label)[:80]!r} twice, expected once")
        found[label] = decoder.decode()
    return found


def _members(stream: BytesIO, major: int) -> Iterator[None]:
    """Read a container's head, then pause where each of its members begins (RFC 8949 §3)."""
    head = _byte(stream)
    kind, info = head >> 5, head & 31
    if kind != major:
        raise ValueError(f"major type {kind}, expected {major}")
    if info == _INDEFINITE:
        while (begun := stream.read(1)) != _BREAK:
            stream.seek(-len(begun), SEEK_CUR)
            yield
        return
    if info > 27:
        raise ValueError(f"additional information {info}, expected a length")
    count = info if info < 24 else int.from_bytes(stream.read(1 << (info - 24)))
    for _ in range(count):
        yield


def _byte(stream: BytesIO) -> int:
    """Return the next byte, or 0xFF at the end, which begins nothing."""
    return (stream.read(1) or _BREAK)[0]


def _expect_end(stream: BytesIO) -> None:
    """Make sure that nothing follows."""
    if rest := len(stream.getbuffer()) - stream.tell():
        raise ValueError(f"{rest} bytes after the array")


class _Tags(Mapping[int, Callable[[object, bool], object]]):
    """Says of every tag how to decode it: cbor2 would know many that nobody may send."""

    def __getitem__(self, tag: int) -> Callable[[object, bool], object]:
        if tag != _FRACTION_TAG:
            raise ValueError(f"tag {tag}, expected none but {_FRACTION_TAG}")
        return _fraction

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _fraction(content: object, immutable: bool) -> float:
    """Return mantissa times ten to the exponent (RFC 8949 §3.4.4)."""
    match content:
        case [int(exponent), int(mantissa)] | (int(exponent), int(mantissa)):
            return float(f"{mantissa:d}e{exponent:d}")
    raise ValueError("a decimal fraction that is no pair of integers")


def _refuse(error: Exception) -> NoReturn:
    raise InvalidReading("malformed", f"{error}; expected a CBOR array of maps of scalars") from error


def _named(item: object) -> dict[str, object]:
    """Give a map's fields the names that JSON has for them.

    Raises:
        InvalidReading: it is no map of a record.
    """
    if not isinstance(item, dict):
        raise InvalidReading("type", f"{type(item).__name__}, expected a map")
    if not item.keys() <= _FIELDS.keys():
        item = _known(item)
    fields = {_FIELDS[label]: value for label, value in item.items()}
    if len(fields) < len(item):
        raise InvalidReading("malformed", "a field by its number and by its name, expected once")
    if (data := fields.get("vd")) is not None:
        if not isinstance(data, bytes):
            raise InvalidReading("type", f"a data value (vd) of type {type(data).__name__}, expected a byte string")
        fields["vd"] = urlsafe_b64encode(data).rstrip(b"=").decode()
    return fields


def _known(item: dict[object, object]) -> dict[object, object]:
    """Return what we know of a map.

    Raises:
        InvalidReading: it has a field that must be understood, or a label that is none.
    """
    for label in item.keys() - _FIELDS.keys():
        if not isinstance(label, int | str):
            raise InvalidReading("type", f"a label of type {type(label).__name__}, expected an integer or text")
        if isinstance(label, str) and label.endswith("_"):
            raise InvalidReading("unknown_field", f"field {label[:80]!r} must be understood (RFC 8428 §4.4)")
    return {label: value for label, value in item.items() if label in _FIELDS}


def _collect_one(collector: Collector, item: object, at: int, alone: bytes | None) -> None:
    try:
        record = msgspec.convert(_named(item), Record)
    except InvalidReading as error:
        refused = error
    except msgspec.ValidationError as error:
        refused = InvalidReading("type", str(error))
    else:
        collector.add(record, at, alone)
        return
    collector.refuse(refused, (at, cbor2.dumps(item) if alone is None else alone))
    if isinstance(item, dict) and not item.keys().isdisjoint(_BASE_LABELS):
        collector.lose_base()


def _encode(fields: dict[str, object]) -> bytes:
    """Write a record as it would be sent."""
    present = {field: value for field, value in fields.items() if value is not None}
    if isinstance(text := present.get("vd"), str):
        present["vd"] = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return cbor2.dumps({_NUMBERS.get(field, field): value for field, value in present.items()})
