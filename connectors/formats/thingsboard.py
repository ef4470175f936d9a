"""ThingsBoard's JSON, of a device and of a gateway, so that devices which were made for it work unchanged.

    v1/devices/me/telemetry    {"temperature":21.5,"on":true}                            now
                               {"ts":1790000000123,"values":{"temperature":21.5}}        ts: ms since the epoch, UTC
                               [{"ts":…,"values":{…}}, {"temperature":21.6}]             any number of either
    v1/gateway/telemetry       {"Device A":[{"ts":…,"values":{…}}], "Device B":[…]}      the same of each device

Numbers are readings, true and false are 1 and 0. A string is an attribute, also one that holds a number (ThingsBoard turns
those into numbers, unless JSON_TYPE_CAST_ENABLED is false); so is an object or an array, as its JSON text. ``null`` is
refused, as ThingsBoard does, but alone: each value is taken or refused by itself, and what is refused is kept in the same
shape, so that it can be sent again (https://thingsboard.io/docs/reference/mqtt-api/,
https://thingsboard.io/docs/reference/gateway-mqtt-api/).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np

from connectors.formats.acceptable import check_time
from connectors.formats.decoded import PIECE, Decoded, Source
from connectors.formats.escape import NameCache, escape_bare_metric, escape_device
from isotherm.errors import InvalidReading
from isotherm.limits import MAX_ATTRIBUTE_CHARS, MAX_PACK_BYTES, MAX_PACK_READINGS
from isotherm.names import is_device_name, is_metric_name
from isotherm.pack import Attribute
from isotherm.rejects import Rejected

_FAR_MS = 2**62 // 1000
"""Further from the epoch than any clock, and within an int64 as µs."""

_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_array = msgspec.json.Decoder(list[msgspec.Raw])
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_number = msgspec.json.Decoder(float)
_text = msgspec.json.Decoder(str)

_Scalar = TypeVar("_Scalar", float, str)

_BOOLEANS = {b"true": 1.0, b"false": 0.0}


class _Element(NamedTuple):
    """One object of values.

    Attributes:
        at: Its place in its array, from 1.
        device: What a gateway calls the device; None for the peer itself.
        stamp: The timestamp as it was sent, or None.
        time: µs since the epoch UTC.
        values: By their keys, each as it was sent.
    """

    at: int
    device: str | None
    stamp: bytes | None
    time: int
    values: dict[str, msgspec.Raw]


def decode_payload(data: bytes, now: int) -> Iterator[Decoded]:
    """Decode what a device sends; its metrics' names are bare.

    Args:
        data: The message's body.
        now: µs since the epoch UTC: the time of values without a timestamp.
    """
    try:
        _check_size(data)
        elements = _elements(data, None, now)
        _check_count(elements)
    except InvalidReading as error:
        yield Decoded.nothing(Rejected(error.reason, error.detail, data))
    else:
        yield from _pieces(elements, now)


def decode_gateway_payload(data: bytes, now: int) -> Iterator[Decoded]:
    """Decode what a gateway sends for its devices.

    Args:
        data: The message's body.
        now: µs since the epoch UTC: the time of values without a timestamp.
    """
    try:
        _check_size(data)
        elements: list[_Element | Rejected] = []
        for device, raw in _mapping(data).items():
            try:
                _devices[device]
                elements += _elements(bytes(raw), device, now)
            except InvalidReading as error:
                elements.append(_rejected(error, _of_device(device, bytes(raw))))
        _check_count(elements)
    except InvalidReading as error:
        yield Decoded.nothing(Rejected(error.reason, error.detail, data))
    else:
        yield from _pieces(elements, now)


def _pieces(elements: Sequence[_Element | Rejected], now: int) -> Iterator[Decoded]:
    """Take each value by itself."""
    found = _Found(now)
    for one in _values(elements):
        if isinstance(one, Rejected):
            found.rejects.append(one)
        else:
            found.take(*one)
        if len(found) >= PIECE:
            yield found.decoded()
            found = _Found(now)
    if len(found):
        yield found.decoded()


def _values(elements: Sequence[_Element | Rejected]) -> Iterator[Rejected | tuple[_Element, str, bytes]]:
    for element in elements:
        if isinstance(element, Rejected):
            yield element
        else:
            for key, raw in element.values.items():
                yield element, key, bytes(raw)


class _Found:
    """Columns of the piece that is being gathered."""

    def __init__(self, now: int) -> None:
        self._now = now
        self.names: list[str] = []
        self.times: list[int] = []
        self.values: list[float] = []
        self.sources: list[tuple[_Element, str, bytes]] = []
        self.attributes: list[Attribute] = []
        self.rejects: list[Rejected] = []

    def __len__(self) -> int:
        return len(self.names) + len(self.attributes) + len(self.rejects)

    def take(self, element: _Element, key: str, raw: bytes) -> None:
        """Take one value, or refuse it."""
        try:
            name = _names[key] if element.device is None else f"{_devices[element.device]}/{_names[key]}"
            value = _value(raw)
            if isinstance(value, str):
                check_time(element.time, self._now)  # intake has only the text of an attribute, not its bytes
        except InvalidReading as error:
            self.rejects.append(_rejected(error, _alone(element, key, raw), element.at))
            return
        if isinstance(value, str):
            self.attributes.append(Attribute(name, element.time, value))
        else:
            self.names.append(name)
            self.times.append(element.time)
            self.values.append(value)
            self.sources.append((element, key, raw))

    def decoded(self) -> Decoded:
        sources = self.sources

        def source(i: int) -> Source:
            return sources[i][0].at, _alone(*sources[i])

        return Decoded(
            self.names,
            np.array(self.times, dtype=np.int64),
            np.array(self.values, dtype=np.float64),
            source,
            attributes=self.attributes,
            rejects=self.rejects,
        )


def _check_size(payload: bytes) -> None:
    """Make sure that a payload is not too large.

    Raises:
        InvalidReading: it is.
    """
    if len(payload) > MAX_PACK_BYTES:
        raise InvalidReading("too_large", f"a payload of {len(payload)} bytes, expected at most {MAX_PACK_BYTES}")


def _check_count(elements: Sequence[_Element | Rejected]) -> None:
    """Make sure that there are not too many values.

    Raises:
        InvalidReading: there are.
    """
    count = sum(1 if isinstance(element, Rejected) else len(element.values) for element in elements)
    if count > MAX_PACK_READINGS:
        raise InvalidReading("too_large", f"{count} values, expected at most {MAX_PACK_READINGS}")


def _elements(raw: bytes, device: str | None, now: int) -> list[_Element | Rejected]:
    """Return the elements of an array; an object is its own only element.

    Raises:
        InvalidReading: it is neither, or the array is empty.
    """
    if raw.lstrip()[:1] != b"[":
        return [_element(raw, 1, device, now)]
    try:
        members = _array.decode(raw)
    except _ERRORS as error:
        raise InvalidReading("malformed", f"no JSON array: {error}") from error
    if not members:
        raise InvalidReading("no_value", "an empty array, expected objects of values")
    elements: list[_Element | Rejected] = []
    for at, member in enumerate(members, 1):
        try:
            elements.append(_element(bytes(member), at, device, now))
        except InvalidReading as error:
            alone = b"[%b]" % bytes(member)  # without its array, a member that is an array itself would be taken
            alone = alone if device is None else _of_device(device, alone)
            elements.append(_rejected(error, alone, at))
    return elements


def _element(raw: bytes, at: int, device: str | None, now: int) -> _Element:
    """Return an object's time and values.

    Raises:
        InvalidReading: it is no object of values, or its timestamp is none.
    """
    values = _mapping(raw)
    if "ts" not in values or "values" not in values:
        return _Element(at, device, None, now, values)
    stamp = bytes(values["ts"])
    return _Element(at, device, stamp, _time_us(stamp), _mapping(bytes(values["values"])))


def _mapping(raw: bytes) -> dict[str, msgspec.Raw]:
    """Return the fields of an object.

    Raises:
        InvalidReading: it is malformed, none, or empty.
    """
    try:
        fields = _object.decode(raw)
    except msgspec.ValidationError as error:
        raise InvalidReading("type", str(error)) from error
    except _ERRORS as error:
        raise InvalidReading("malformed", f"no JSON object: {error}") from error
    if not fields:
        raise InvalidReading("no_value", "an empty object, expected values by their keys")
    return fields


def _time_us(stamp: bytes) -> int:
    """Turn ms into µs.

    Raises:
        InvalidReading: it is no number, or far outside any clock's range.
    """
    try:
        milliseconds = _number.decode(stamp)
    except _ERRORS as error:
        raise InvalidReading("type", f"timestamp {_shown(stamp)}, expected a number of ms since the epoch") from error
    if abs(milliseconds) > _FAR_MS:
        raise InvalidReading("time", f"timestamp {_shown(stamp)} lies far outside any clock's range")
    return round(milliseconds * 1000)


def _value(raw: bytes) -> float | str:
    """Return a number, or the text of an attribute.

    Raises:
        InvalidReading: it is neither.
    """
    kind = raw[:1]
    if kind in b"{[":
        text = _without_blanks(raw)
    elif kind == b'"':
        text = _decoded(_text, raw)
    elif raw in _BOOLEANS:
        return _BOOLEANS[raw]
    elif raw == b"null":
        raise InvalidReading("no_value", "null, expected a number, boolean, string, object or array")
    else:
        return _decoded(_number, raw)
    if len(text) > MAX_ATTRIBUTE_CHARS:
        raise InvalidReading("attribute", f"{len(text)} characters of text, expected at most {MAX_ATTRIBUTE_CHARS}")
    return text


def _decoded(decoder: msgspec.json.Decoder[_Scalar], raw: bytes) -> _Scalar:
    try:
        return decoder.decode(raw)
    except _ERRORS as error:
        raise InvalidReading("malformed", f"value {_shown(raw)}: {error}") from error


def _without_blanks(raw: bytes) -> str:
    try:
        return msgspec.json.format(raw, indent=-1).decode()
    except _ERRORS as error:
        raise InvalidReading("malformed", f"value {_shown(raw)}: {error}") from error


def _metric_name(key: str) -> str:
    """Return the metric that a key names: the same one, whether a device or its gateway sends it.

    Raises:
        InvalidReading: it names none.
    """
    metric = escape_bare_metric(key)
    if not is_metric_name(metric):
        raise InvalidReading("name", f"key {key[:80]!r} makes no metric's name: {metric[:80]!r}")
    return metric


def _device_name(text: str) -> str:
    """Return the name of a device of ours that a gateway's device has.

    Raises:
        InvalidReading: it has none.
    """
    device = escape_device(text)
    if not is_device_name(device):
        raise InvalidReading("name", f"device {text[:80]!r} makes no device's name: {device[:80]!r}")
    return device


_names, _devices = NameCache(_metric_name), NameCache(_device_name)


def _rejected(error: InvalidReading, raw: bytes, at: int = 0) -> Rejected:
    """Refuse a part of a payload, in one line: rejects of a payload are kept together, each in a line."""
    return Rejected(error.reason, error.detail, raw.replace(b"\n", b" "), at=at)


def _alone(element: _Element, key: str, raw: bytes) -> bytes:
    """Write one value so that it means the same by itself."""
    values = b"{%b:%b}" % (msgspec.json.encode(key), raw)
    body = values if element.stamp is None else b'{"ts":%b,"values":%b}' % (element.stamp, values)
    return body if element.device is None else _of_device(element.device, b"[" + body + b"]")


def _of_device(device: str, elements: bytes) -> bytes:
    return b"{%b:%b}" % (msgspec.json.encode(device), elements)


def _shown(raw: bytes) -> str:
    return repr(raw[:80].decode(errors="replace"))
