"""InfluxDB line protocol (v1 and v2): ``measurement,tag=value field=value,field=value timestamp``.

One loop takes line after line. A line of ASCII without quotes and backslashes is cut with ``str.split``; any other goes to
a parser that knows the escapes, spare blanks, comments and every way to be wrong. A line is Influx's unit: when one field
is bad the whole line is refused.

What a backslash escapes (docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol); elsewhere it is a backslash:

    | in                               | escapes             |
    |----------------------------------|---------------------|
    | measurement                      | comma, space        |
    | tag key, tag value, field key    | comma, space, ``=`` |
    | string value                     | ``"``, backslash    |
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from connectors.formats.decoded import PIECE, Decoded, Gathered, Source
from connectors.formats.escape import MAX_SERIES_CHARS, NameCache, as_sent, as_text, check_utf8, escape_device, escape_metric
from isotherm.errors import InvalidReading
from isotherm.limits import MAX_ATTRIBUTE_CHARS, MAX_LINE_BYTES
from isotherm.pack import Attribute
from isotherm.rejects import Rejected

PRECISIONS = {
    "ns": 1,
    "n": 1,
    "us": 1_000,
    "u": 1_000,
    "µs": 1_000,
    "µ": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3_600 * 1_000_000_000,
}
"""What a timestamp counts → its length in ns. v1 writes ``n`` and ``u``, v2 ``ns`` and ``us``."""

PLAIN_PIECE = 2_000
"""Readings in a piece when all are plain: each costs about 1 µs."""

_SPECIAL_COST = PLAIN_PIECE // PIECE

_FAR_US = 2**62
_INTEGERS = {"i": range(-(2**63), 2**63), "u": range(2**64)}
_TRUE, _FALSE = ("t", "T", "true", "True", "TRUE"), ("f", "F", "false", "False", "FALSE")
_BOOLEANS = dict.fromkeys(_TRUE, 1.0) | dict.fromkeys(_FALSE, 0.0)
_NUMBER_STARTS = frozenset("0123456789+-.")
_NUMBER_ENDS = frozenset("0123456789.")

# Quantifiers are possessive, so that no input makes them go back.
_HEAD = r"(?:\\ |[^ \n])*+"  # up to the first space that is not escaped
_WORD = r"(?:\\[,= ]|[^,= ])++"
_STRING = r'"(?:[^"\\]++|\\.)*+"'
_COMMENT = r"[ \t]*+\#[^\n]*+"
_LINE = re.compile(rf"({_COMMENT}|{_HEAD}(?:[^\n=\\]++|={_STRING}|\\[^\n]|[^\n])*+)(?:\n|\Z)", re.DOTALL)
_PARTS = re.compile(rf"[ \t]*+({_HEAD}) ++((?:={_STRING}|\\[,= ]|[^ ])++)(?: ++(\S++))?[ \t]*+", re.DOTALL)
_HEAD_AND_KEY = re.compile(rf"(?![#\t])({_HEAD}) (.+)", re.DOTALL)
_MEASUREMENT = re.compile(r"(?:\\[, ]|[^, ])++")
_TAG = re.compile(rf",({_WORD})=({_WORD})")
_FIELD = re.compile(rf'({_WORD})=({_STRING}|[^", ][^, ]*+)(?:,|\Z)', re.DOTALL)
_DIGITS = _TIMESTAMP = re.compile(r"-?[0-9]{1,25}")
_ESCAPE = re.compile(r"\\([,= ])")
_MEASUREMENT_ESCAPE = re.compile(r"\\([, ])")
_STRING_ESCAPE = re.compile(r'\\(["\\])')


class InfluxDecoder:
    """Turns lines into readings of ``DEVICE/METRIC``.

    The first of ``device_tags`` that a line has names the device. The metric is the measurement, then the other tags by
    key as ``/key:value``, then ``/field``; a field called ``value`` is left out. Characters that a name may not have are
    written as ``_HH`` (connectors/formats/escape.py).

    | line                                  | name                           |
    |---------------------------------------|--------------------------------|
    | temperature,device=room-1 value=21.5  | room-1/temperature             |
    | cpu,cpu=cpu0,host=h usage_idle=1      | h/cpu/cpu:cpu0/usage_idle      |

    Integers become floats, exact up to 2**53; true and false become 1 and 0; strings become attributes. A newline in a
    string belongs to it, if the string ends within the same input: a stream that is cut into lines cannot have it.
    """

    def __init__(self, *, device_tags: Sequence[str] = ("device", "host"), precision: str = "ns") -> None:
        """Prepare.

        Args:
            device_tags: Tags that may name the device, the first choice first.
            precision: What timestamps count, one of PRECISIONS.

        Raises:
            ValueError: the precision is unknown.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r}, expected one of {', '.join(PRECISIONS)}")
        self._device_tags = tuple(device_tags)
        self._unit_ns = PRECISIONS[precision]
        self._stems = NameCache(self._stem)
        self._names = NameCache(self._name)

    def __call__(self, data: bytes, now: int) -> Iterator[Decoded]:
        """Decode lines.

        Args:
            data: Complete lines; the last may lack its newline. Blank ones and comments are passed over.
            now: µs since the epoch UTC: the time of lines without a timestamp.
        """
        found = _Found()
        for at, line in _lines(as_text(data)):
            if not self._take_plain(line, at, now, found):
                found.work += _SPECIAL_COST
                try:
                    self._take(line, at, now, found)
                except InvalidReading as error:
                    found.rejects.append(Rejected(error.reason, error.detail, as_sent(line), at=at))
            if len(found.names) + found.work >= PLAIN_PIECE:
                yield found.decoded(_source)
                found = _Found()
        yield found.decoded(_source)

    def _take_plain(self, line: str, at: int, now: int, found: _Found) -> bool:
        """Take a line if it is plain and good; leave no trace if not."""
        parts = line.split(" ")
        if not 2 <= len(parts) <= 3 or '"' in line or "\\" in line or not line.isascii() or len(line) > MAX_LINE_BYTES:
            return False
        time = now
        if len(parts) == 3:
            stamp = parts[2]
            if not stamp.isdigit() or len(stamp) > 19:
                return False
            time = int(stamp) * self._unit_ns // 1000
            if time > _FAR_US:
                return False
        head = parts[0]
        fields = parts[1].split(",") if "," in parts[1] else (parts[1],)
        names, values = [], []
        try:
            for field in fields:
                key, _, text = field.partition("=")
                values.append(_number(text))
                names.append(self._names[f"{head} {key}"])
        except InvalidReading:
            return False
        found.names += names
        found.values += values
        found.times += [time] * len(names)
        found.origins += [(at, line)] * len(names)
        return True

    def _take(self, line: str, at: int, now: int, found: _Found) -> None:
        """Take any line.

        Raises:
            InvalidReading: it is refused.
        """
        if not line.strip(" \t\r") or line.lstrip(" \t").startswith("#"):
            return
        if len(line) > MAX_LINE_BYTES:
            raise InvalidReading(
                "line_too_long", f"a line of {len(line)} characters, expected at most {MAX_LINE_BYTES} bytes"
            )
        check_utf8(line)
        parts = _PARTS.fullmatch(line)
        if parts is None:
            raise InvalidReading("malformed", f"{line[:80]!r}, expected 'measurement,tag=value field=value timestamp'")
        head, fields, stamp = parts.groups()
        time = now if stamp is None else self._time(stamp)
        readings: list[tuple[str, float]] = []
        attributes: list[Attribute] = []
        for key, text in _fields(fields):
            name = self._names[f"{head} {key}"]
            if text.startswith('"'):
                attributes.append(Attribute(name, time, _string(text)))
            else:
                readings.append((name, _number(text)))
        found.names += [name for name, _ in readings]
        found.values += [value for _, value in readings]
        found.times += [time] * len(readings)
        found.origins += [(at, line)] * len(readings)
        found.attributes += attributes
        found.work += len(attributes)

    def _time(self, stamp: str) -> int:
        if not _TIMESTAMP.fullmatch(stamp):
            raise InvalidReading("malformed", f"timestamp {stamp[:80]!r}, expected an integer")
        time = int(stamp) * self._unit_ns // 1000
        if abs(time) > _FAR_US:
            raise InvalidReading("time", f"timestamp {stamp} lies far outside any clock's range")
        return time

    def _name(self, key: str) -> str:
        """Return the SenML name of a head, a space and a field's key, all with their escapes.

        Raises:
            InvalidReading: the head is malformed, or has no tag that names the device.
        """
        match = _HEAD_AND_KEY.fullmatch(key)
        if match is None:
            raise InvalidReading("malformed", f"{key[:80]!r}, expected 'measurement,tag=value field=value timestamp'")
        head, field = match.groups()
        return self._stems[head] if field == "value" else f"{self._stems[head]}/{escape_metric(_unescape(field))}"

    def _stem(self, head: str) -> str:
        """Return what the names of a line begin with."""
        measurement, tags = _parse_head(head)
        device = next((tag for tag in self._device_tags if tag in tags), None)
        if device is None:
            expected = " or ".join(self._device_tags)
            raise InvalidReading("no_device", f"{head[:80]!r} has no tag {expected} that names its device")
        parts = [escape_device(tags.pop(device)), escape_metric(measurement)]
        stem = "/".join(parts + [escape_metric(f"{tag}:{value}") for tag, value in sorted(tags.items())])
        # Every field's name repeats it: without a bound a line of n bytes would become n² bytes of names.
        if len(stem) > MAX_SERIES_CHARS:
            raise InvalidReading("name", f"a name of {len(stem)} characters without its field, at most {MAX_SERIES_CHARS}")
        return stem


class _Found(Gathered[tuple[int, str]]):
    """What the lines of a piece hold; of each reading its line."""

    def __init__(self) -> None:
        super().__init__()
        self.work = 0  # what lines that are not plain cost, in plain readings


def _source(origin: tuple[int, str]) -> Source:
    at, line = origin
    return at, as_sent(line)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Give each line's number, from 1, and the line; newlines in strings do not end it."""
    if '"' not in text:
        for at, line in enumerate(text.split("\n"), 1):
            yield at, line.removesuffix("\r")
        return
    at = 1
    for match in _LINE.finditer(text):
        line = match[1]
        yield at, line.removesuffix("\r")
        at += 1 + line.count("\n")


def _parse_head(head: str) -> tuple[str, dict[str, str]]:
    """Return the measurement and the tags.

    Raises:
        InvalidReading: it is malformed.
    """
    match = _MEASUREMENT.match(head)
    if match is None:
        raise InvalidReading("malformed", f"{head[:80]!r} has no measurement")
    tags: dict[str, str] = {}
    at = match.end()
    while at < len(head):
        tag = _TAG.match(head, at)
        if tag is None:
            raise InvalidReading("malformed", f"{head[at : at + 80]!r}, expected ',tag=value'")
        key = _unescape(tag[1])
        if key in tags:
            raise InvalidReading("malformed", f"tag {key[:80]!r} twice, expected once")
        tags[key] = _unescape(tag[2])
        at = tag.end()
    return _MEASUREMENT_ESCAPE.sub(r"\1", match[0]), tags


def _fields(fields: str) -> Iterator[tuple[str, str]]:
    """Give each field's key, with its escapes, and value."""
    at = 0
    while at < len(fields):
        field = _FIELD.match(fields, at)
        if field is None:
            raise InvalidReading("malformed", f"{fields[at : at + 80]!r}, expected 'field=value'")
        yield field[1], field[2]
        at = field.end()
    if fields.endswith(","):
        raise InvalidReading("malformed", "a comma after the last field, expected a space or the end")


def _number(text: str) -> float:
    """Return a float, integer or boolean value.

    Raises:
        InvalidReading: it is none.
    """
    if not text:
        raise InvalidReading("malformed", "a field without a value, expected 'field=value'")
    # float() takes more than Influx does: underscores, blanks around the number, digits of other scripts.
    if text[-1] in _NUMBER_ENDS and text[0] in _NUMBER_STARTS and "_" not in text and text.isascii():
        try:
            return float(text)
        except ValueError:
            raise _no_number(text) from None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    digits, suffix = text[:-1], text[-1]
    if suffix in _INTEGERS and _DIGITS.fullmatch(digits) and int(digits) in _INTEGERS[suffix]:
        return float(int(digits))
    raise _no_number(text)


def _no_number(text: str) -> InvalidReading:
    return InvalidReading("type", f"value {text[:80]!r}, expected a float, 64-bit integer, boolean or string")


def _string(text: str) -> str:
    content = _STRING_ESCAPE.sub(r"\1", text[1:-1])
    if len(content) > MAX_ATTRIBUTE_CHARS:
        raise InvalidReading("attribute", f"{len(content)} characters of text, expected at most {MAX_ATTRIBUTE_CHARS}")
    return content


def _unescape(word: str) -> str:
    return _ESCAPE.sub(r"\1", word) if "\\" in word else word
