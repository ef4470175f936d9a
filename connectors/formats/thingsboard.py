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

from connectors.formats.acceptable import check_size, check_time
from connectors.formats.decoded import PIECE, Decoded, Gathered, Source
from connectors.formats.escape import NameCache, escape_bare_metric, escape_device
from isotherm.errors import InvalidReading
from isotherm.limits import MAX_ATTRIBUTE_CHARS, MAX_PACK_READINGS
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
        raw: The object as it was sent.
    """

    at: int
    device: str | None
    stamp: bytes | None
    time: int
    values: dict[str, msgspec.Raw]
    raw: bytes


def decode_payload(data: bytes, now: int) -> Iterator[Decoded]:
    """Decode what a device sends; its metrics' names are bare.

    Args:
        data: The message's body.
        now: µs since the epoch UTC: the time of values without a timestamp.
    """
    yield from _pieces(_parsed(data, None, now), data, now)


def decode_gateway_payload(data: bytes, now: int) -> Iterator[Decoded]:
    """Decode what a gateway sends for its devices.

    Args:
        data: The message's body.
        now: µs since the epoch UTC: the time of values without a timestamp.
    """
    yield from _pieces(_parsed_gateway(data, now), data, now)


def _pieces(elements: Iterator[_Element | Rejected], data: bytes, now: int) -> Iterator[Decoded]:
    """Take each value by itself."""
    try:
        check_size(data)
    except InvalidReading as error:
        yield Decoded.nothing(Rejected(error.reason, error.detail, data))
        return
    found = _Found(now)
    for one in _values(elements):
        if isinstance(one, Rejected):
            found.rejects.append(one)
        else:
            found.take(*one)
        if len(found) >= PIECE:
            yield found.decoded(_source)
            found = _Found(now)
    if len(found):
        yield found.decoded(_source)


def _values(elements: Iterator[_Element | Rejected]) -> Iterator[Rejected | tuple[_Element, str, bytes]]:
    """Yield value after value, up to MAX_PACK_READINGS, and what is refused."""
    left = MAX_PACK_READINGS
    for element in elements:
        if isinstance(element, Rejected):
            yield element
        elif len(element.values) > left:
            yield _refused(_too_many("values"), element.raw, element.at, element.device)
        else:
            left -= len(element.values)
            for key, raw in element.values.items():
                yield element, key, bytes(raw)


class _Found(Gathered[tuple[_Element, str, bytes]]):
    """Values of the piece that is being gathered."""

    def __init__(self, now: int) -> None:
        super().__init__()
        self._now = now

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
            self.rejects.append(_in_line(error, _alone(element, key, raw), element.at))
            return
        if isinstance(value, str):
            self.attributes.append(Attribute(name, element.time, value))
        else:
            self.names.append(name)
            self.times.append(element.time)
            self.values.append(value)
            self.origins.append((element, key, raw))


def _source(origin: tuple[_Element, str, bytes]) -> Source:
    return origin[0].at, _alone(*origin)


def _parsed(raw: bytes, device: str | None, now: int) -> Iterator[_Element | Rejected]:
    """Yield the elements of an array; an object is its own only element."""
    is_array = raw.lstrip()[:1] == b"["
    try:
        members = _members(raw) if is_array else [raw]
    except InvalidReading as error:
        yield _refused_whole(error, raw, device)
        return
    for at, member in enumerate(members, 1):
        try:
            element = _element(bytes(member), at, device, now)
        except InvalidReading as error:
            yield _refused(error, bytes(member), at, device) if is_array else _refused_whole(error, raw, device)
        else:
            yield element


def _parsed_gateway(data: bytes, now: int) -> Iterator[_Element | Rejected]:
    """Yield the elements of all devices."""
    try:
        devices = _mapping(data)
        if len(devices) > MAX_PACK_READINGS:
            raise _too_many("devices")
    except InvalidReading as error:
        yield _refused_whole(error, data, None)
        return
    for device, raw in devices.items():
        try:
            _devices[device]
        except InvalidReading as error:
            yield _refused_whole(error, bytes(raw), device)
        else:
            yield from _parsed(bytes(raw), device, now)


def _members(raw: bytes) -> Sequence[msgspec.Raw]:
    """Return what is in an array.

    Raises:
        InvalidReading: it is none, is empty, or has too many members.
    """
    try:
        members = _array.decode(raw)
    except _ERRORS as error:
        raise InvalidReading("malformed", f"no JSON array: {error}") from error
    if not members:
        raise InvalidReading("no_value", "an empty array, expected objects of values")
    if len(members) > MAX_PACK_READINGS:
        raise _too_many("objects")
    return members


def _too_many(what: str) -> InvalidReading:
    return InvalidReading("too_large", f"more than {MAX_PACK_READINGS} {what}, expected at most so many in a payload")


def _element(raw: bytes, at: int, device: str | None, now: int) -> _Element:
    """Return an object's time and values.

    Raises:
        InvalidReading: it is no object of values, or its timestamp is none.
    """
    values = _mapping(raw)
    if "ts" not in values or "values" not in values:
        return _Element(at, device, None, now, values, raw)
    stamp = bytes(values["ts"])
    return _Element(at, device, stamp, _time_us(stamp), _mapping(bytes(values["values"])), raw)


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


def _refused(error: InvalidReading, member: bytes, at: int, device: str | None) -> Rejected:
    """Refuse a member of an array, within an array: a member that is one itself would be taken without."""
    array = b"[%b]" % member
    return _in_line(error, array if device is None else _of_device(device, array), at)


def _refused_whole(error: InvalidReading, raw: bytes, device: str | None) -> Rejected:
    """Refuse a payload as it came, or all that a gateway says of a device."""
    return Rejected(error.reason, error.detail, raw) if device is None else _in_line(error, _of_device(device, raw), 0)


def _in_line(error: InvalidReading, raw: bytes, at: int) -> Rejected:
    """Refuse a part of a payload: what is refused is kept together, each in a line."""
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
