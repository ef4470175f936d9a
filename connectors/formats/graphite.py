"""Graphite's plain text protocol: ``path value timestamp``, with the tags of Graphite 1.1 (``path;tag=value``).

Many lines are cut and converted by columns when each of them is three words and its numbers are plain. Lines that do not
all fit are taken in slices, and a slice that does not is read line by line
(https://graphite.readthedocs.io/en/latest/feeding-carbon.html).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from connectors.formats.decoded import PIECE, Decoded, Source, absolute_us
from connectors.formats.escape import NameCache, as_sent, as_text, check_utf8, escape_device, escape_metric
from isotherm.errors import InvalidReading
from isotherm.rejects import Rejected

PLAIN_PIECE = 2_000
"""Lines in a piece when all are plain: each costs less than 1 µs."""

# float() takes more than carbon's clients mean: underscores, digits of other scripts.
_PLAIN_VALUE = "0123456789.+-eE"
_PLAIN_TIME = "0123456789.-\n"
_NUMBER = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|nan|inf|infinity)", re.IGNORECASE)

_NOW = -1.0


class GraphiteDecoder:
    """Turns lines into readings of ``DEVICE/METRIC``.

    The path's first component, after the prefix, names the device and the rest the metric, dots kept. Tags follow by key
    as ``/tag:value``. Characters that a name may not have are written as ``_HH`` (connectors/formats/escape.py).

    | line                                 | name                    |
    |--------------------------------------|-------------------------|
    | host.cpu.idle 97.5 1790000000        | host/cpu.idle           |
    | host.disk.used;disk=sda 7 1790000000 | host/disk.used/disk:sda |

    Timestamps are in s, with or without decimals; -1 is now, as carbon has it.
    """

    def __init__(self, prefix: str = "") -> None:
        """Prepare.

        Args:
            prefix: Components that every path begins with, before the device: ``collectd``.
        """
        self._prefix = prefix.rstrip(".") + "." if prefix else ""
        self._names = NameCache(self._name)

    def __call__(self, data: bytes, now: int) -> Iterator[Decoded]:
        """Decode lines.

        Args:
            data: Complete lines; the last may lack its newline. Blank ones are passed over.
            now: µs since the epoch UTC: the time of lines whose timestamp is -1.
        """
        lines = as_text(data).removesuffix("\n").split("\n")
        for first in range(0, len(lines), PLAIN_PIECE):
            piece = lines[first : first + PLAIN_PIECE]
            plain = self._plain(piece, first, now)
            if plain is not None:
                yield plain
                continue
            for start in range(0, len(piece), PIECE):
                part = piece[start : start + PIECE]
                yield self._plain(part, first + start, now) or self._careful(part, first + start, now)

    def _plain(self, lines: Sequence[str], first: int, now: int) -> Decoded | None:
        """Decode lines that are all plain and good; None when they are not."""
        try:
            paths, values, stamps = zip(*[line.split(" ") for line in lines], strict=True)
            ends = "\n".join(stamps) + "\n"  # float() drops the carriage return of CRLF; others make a line not plain
            if "".join(values).strip(_PLAIN_VALUE) or ends.replace("\r\n", "\n").strip(_PLAIN_TIME):
                return None
            return Decoded(
                [self._names[path] for path in paths],
                _time_us(list(map(float, stamps)), now),
                np.array(list(map(float, values))),
                lambda i: _source(lines, first, i),
            )
        except (ValueError, InvalidReading):
            return None

    def _careful(self, lines: Sequence[str], first: int, now: int) -> Decoded:
        """Decode any lines."""
        names: list[str] = []
        times: list[float] = []
        values: list[float] = []
        places: list[int] = []
        rejects: list[Rejected] = []
        for i, line in enumerate(lines):
            if not line.strip(" \t\r"):
                continue
            try:
                name, value, time = self._reading(line)
            except InvalidReading as error:
                at, raw = _source(lines, first, i)
                rejects.append(Rejected(error.reason, error.detail, raw, at=at))
            else:
                names.append(name)
                times.append(time)
                values.append(value)
                places.append(i)
        return Decoded(
            names,
            _time_us(times, now),
            np.array(values, dtype=np.float64),
            lambda i: _source(lines, first, places[i]),
            rejects=rejects,
        )

    def _reading(self, line: str) -> tuple[str, float, float]:
        """Return the name, value and time of a line.

        Raises:
            InvalidReading: it is refused.
        """
        check_utf8(line)
        words = [word for word in line.rstrip("\r").replace("\t", " ").split(" ") if word]
        if len(words) != 3:
            raise InvalidReading("malformed", f"{line[:80]!r}, expected 'path value timestamp'")
        path, value, stamp = words
        return self._names[path], _number(value, "value"), _number(stamp, "timestamp")

    def _name(self, path: str) -> str:
        """Return the SenML name of a path.

        Raises:
            InvalidReading: it names no device, or is malformed.
        """
        if "\t" in path:
            raise InvalidReading("malformed", f"path {path[:80]!r} has a tab")
        if not path.startswith(self._prefix):
            raise InvalidReading("no_device", f"path {path[:80]!r} does not begin with {self._prefix!r}")
        dotted, *tags = path[len(self._prefix) :].split(";")
        device, _, metric = dotted.partition(".")
        if not device or not metric:
            raise InvalidReading("no_device", f"path {path[:80]!r}, expected '{self._prefix}device.metric'")
        return "/".join([escape_device(device), escape_metric(metric), *map(escape_metric, _sorted_tags(tags))])


def _sorted_tags(tags: Sequence[str]) -> list[str]:
    """Turn ``tag=value`` into ``tag:value``, by tag."""
    found: dict[str, str] = {}
    for tag in tags:
        key, _, value = tag.partition("=")
        if not key or not value:
            raise InvalidReading("malformed", f"{tag[:80]!r}, expected 'tag=value'")
        if key in found:
            raise InvalidReading("malformed", f"tag {key[:80]!r} twice, expected once")
        found[key] = value
    return [f"{key}:{value}" for key, value in sorted(found.items())]


def _number(word: str, what: str) -> float:
    if not _NUMBER.fullmatch(word):
        raise InvalidReading("type", f"{what} {word[:80]!r}, expected a number")
    return float(word)


def _time_us(seconds: Sequence[float], now: int) -> NDArray[np.int64]:
    column = np.array(seconds, dtype=np.float64)
    return np.where(column == _NOW, now, absolute_us(column))


def _source(lines: Sequence[str], first: int, i: int) -> Source:
    return first + i + 1, as_sent(lines[i].removesuffix("\r"))
