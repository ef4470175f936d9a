"""The file: lines of JSON, UTF-8, compressed with gzip; a head, a line for each key or each part of one, and an end.

    {"format":"isotherm registry","version":1,"created":"2026-11-28T18:00:00Z","isotherm":"0.1.0","partitions":8}
    {"key":"iso:{registry}:devices","type":"zset","value":[["kitchen",1764352800000000.0]]}
    {"key":"iso:{accounts}:api-token:9f86…","type":"hash","expires":1772128800000,"value":[["id","k3"],["user","ada"]]}
    {"records":2,"sha256":"…"}

    | type   | value                                                                            |
    |--------|----------------------------------------------------------------------------------|
    | string | TEXT                                                                             |
    | set    | [TEXT, …]                                                                        |
    | hash   | [[field TEXT, TEXT], …]                                                          |
    | zset   | [[member TEXT, score], …]                                                        |
    | stream | [[id TEXT, [[field TEXT, TEXT], …]], …], ascending                               |

TEXT is a string, or ``{"base64": "…"}`` where the bytes are no UTF-8. ``expires`` is ms since the epoch. A key with more
than PART_ELEMENTS elements takes several lines, one after the other. The end tells how many lines lie between it and the
head, and the SHA-256 of all bytes before it. That shows what was damaged or cut off; who changes a file on purpose can
reckon it anew, so a backup is kept where nobody does.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from isotherm import __version__
from isotherm.backup.families import Type
from isotherm.errors import SettingsError

FORMAT: Literal["isotherm registry"] = "isotherm registry"
VERSION = 1

PART_ELEMENTS = 10_000

MAX_LINE_BYTES = 256 * 1024 * 1024
"""Far beyond what is written: a file that has more is none of ours."""


class Blob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes that are no text."""

    base64: bytes


Text = str | Blob
Pair = tuple[Text, Text]

_VALUES: dict[Type, Any] = {
    "string": Text,
    "set": list[Text],
    "hash": list[Pair],
    "zset": list[tuple[Text, float]],
    "stream": list[tuple[Text, list[Pair]]],
}


class Head(msgspec.Struct, frozen=True):
    """The first line; `partitions` are those of the store that it was made of."""

    format: Literal["isotherm registry"]
    version: int
    created: str
    isotherm: str
    partitions: int


class Line(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A key, or a part of one."""

    key: Text
    type: Type
    value: msgspec.Raw
    expires: int | None = None


class End(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last line."""

    records: int
    sha256: str


class Record(msgspec.Struct, frozen=True):
    """A line, with bytes for what the store has: of a string one element, of a stream (id, pairs)."""

    key: bytes
    type: Type
    elements: list[Any]
    expires: int | None = None


def text_of(value: bytes) -> Text:
    """Return bytes as the file has them."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return Blob(value)


def bytes_of(text: Text) -> bytes:
    """Return what was meant by that."""
    return text.base64 if isinstance(text, Blob) else text.encode()


class Writer:
    """Writes one."""

    def __init__(self, out: IO[bytes], *, created: str, partitions: int) -> None:
        """Begin; `created` is the time, ISO 8601."""
        self._gzip = gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=6, mtime=0)
        self._sum = hashlib.sha256()
        self.records = 0
        self._write(msgspec.json.encode(Head(FORMAT, VERSION, created, __version__, partitions)))

    def add(self, record: Record) -> None:
        """Write a key; one with many elements takes several lines."""
        for first in range(0, len(record.elements), PART_ELEMENTS):
            value = _encode(record.type, record.elements[first : first + PART_ELEMENTS])
            line = Line(text_of(record.key), record.type, msgspec.Raw(msgspec.json.encode(value)), record.expires)
            self._write(msgspec.json.encode(line))
            self.records += 1

    def close(self) -> None:
        """Write the end."""
        self._write(msgspec.json.encode(End(self.records, self._sum.hexdigest())))
        self._gzip.close()

    def _write(self, line: bytes) -> None:
        self._sum.update(line + b"\n")
        self._gzip.write(line + b"\n")


def _encode(type: Type, elements: list[Any]) -> Any:
    match type:
        case "string":
            return text_of(elements[0])
        case "set":
            return [text_of(member) for member in elements]
        case "zset":
            return [(text_of(member), score) for member, score in elements]
        case "hash":
            return [(text_of(field), text_of(value)) for field, value in elements]
        case "stream":
            return [(text_of(id), _encode("hash", fields)) for id, fields in elements]


def _decode(type: Type, value: Any) -> list[Any]:
    match type:
        case "string":
            return [bytes_of(value)]
        case "set":
            return [bytes_of(member) for member in value]
        case "zset":
            return [(bytes_of(member), score) for member, score in value]
        case "hash":
            return [(bytes_of(field), bytes_of(text)) for field, text in value]
        case "stream":
            return [(bytes_of(id), _decode("hash", fields)) for id, fields in value]


class Reader:
    """Reads one. Only who has read it to its end knows that it is whole.

    Attributes:
        head: Its first line.
        bytes: Its size.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            SettingsError: it cannot be read, is something else, or was made by a newer version.
        """
        self._path = path
        try:
            self.bytes = path.stat().st_size
            self._file = path.open("rb")
        except OSError as error:
            raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
        self._gzip = gzip.GzipFile(fileobj=self._file, mode="rb")
        self._sum = hashlib.sha256()
        try:
            self.head = self._head(self._line())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close it."""
        self._file.close()

    def records(self, advance: Callable[[int, int], object]) -> Iterator[Record]:
        """Yield every record; `advance` is told how many bytes are read, of how many.

        Raises:
            SettingsError: it is damaged, or cut off.
        """
        count, line = 0, self._line()
        while following := self._line():
            count += 1
            yield self._record(line, count + 1)
            line = following
            advance(self._file.tell(), self.bytes)
        self._check_end(line, count)

    def _line(self) -> bytes:
        """Return the next line, and count the one before it into the sum."""
        try:
            line = self._gzip.readline(MAX_LINE_BYTES)
        except EOFError as error:
            raise SettingsError(f"{self._path} is cut off; use another backup") from error
        except (OSError, zlib.error) as error:
            raise self._damaged(str(error)) from error
        if line and not line.endswith(b"\n"):
            raise self._damaged("its last line has no end")
        return line

    def _head(self, line: bytes) -> Head:
        try:
            head = msgspec.json.decode(line, type=Head)
        except msgspec.MsgspecError as error:
            raise SettingsError(f"{self._path} is no backup that `isotherm backup` has written: {error}") from error
        if head.version != VERSION:
            raise SettingsError(
                f"{self._path} has version {head.version} of the format, made by Isotherm {head.isotherm}; this one, "
                f"{__version__}, reads version {VERSION}: restore with the Isotherm that made it, or a newer one"
            )
        self._sum.update(line)
        return head

    def _record(self, line: bytes, number: int) -> Record:
        self._sum.update(line)
        try:
            kept = msgspec.json.decode(line, type=Line)
            elements = _decode(kept.type, msgspec.json.decode(kept.value, type=_VALUES[kept.type]))
        except msgspec.MsgspecError as error:
            raise self._damaged(f"line {number}: {error}") from error
        return Record(bytes_of(kept.key), kept.type, elements, kept.expires)

    def _check_end(self, line: bytes, count: int) -> None:
        try:
            end = msgspec.json.decode(line, type=End)
        except msgspec.MsgspecError as error:
            raise self._damaged("it has no end; it was cut off") from error
        if (end.records, end.sha256) != (count, self._sum.hexdigest()):
            raise self._damaged(f"its content is not what its end says ({end.records} lines, SHA-256 {end.sha256})")

    def _damaged(self, detail: str) -> SettingsError:
        return SettingsError(f"{self._path} is damaged: {detail}; use another backup")
