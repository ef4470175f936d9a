"""Export: what the store holds, into a file that is there only when it is whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from isotherm.archive.rows import Name, Sink
from isotherm.errors import IsothermError
from isotherm.store.reader import Latest, Reader

PART_SUFFIX = ".part"
"""Of a file that is not whole yet."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What was written."""

    rows: int
    series: int
    bytes: int


async def take_out(
    reader: Reader, series: list[Latest], start: int, end: int, sink: Sink, advance: Callable[[int], object]
) -> tuple[int, int]:
    """Write everything of some series that is kept of [start, end).

    Args:
        reader: Of the store.
        series: Which ones, ascending.
        start, end: µs since the epoch UTC.
        sink: Where to.
        advance: Is told how many series are done, now and then.

    Returns:
        Rows, and series that had any.

    Raises:
        Unavailable: the store does not answer.
    """
    names = {f"{one.device}/{one.metric}": Name(one.device, one.metric, one.unit) for one in series}
    places = {name: number for number, name in enumerate(names)}
    found: set[str] = set()
    count = 0
    async for name, rows in reader.stored(list(names), start, end):
        if len(rows):
            sink.write(names[name], rows)
            found.add(name)
            count += len(rows)
        advance(places[name])
    advance(len(names))
    return count, len(found)


class NewFile:
    """A file that comes into being under its name when the block ends well, and not at all when it does not."""

    def __init__(self, path: Path, *, replace: bool) -> None:
        """Prepare.

        Raises:
            IsothermError: there is such a file, and it may not be replaced.
        """
        if path.exists() and not replace:
            raise IsothermError(f"{path} exists; --force replaces it")
        self._path = path
        self._part = path.with_name(path.name + PART_SUFFIX)
        self._file: IO[bytes] | None = None
        self.bytes = 0

    def __enter__(self) -> IO[bytes]:
        try:
            self._file = self._part.open("wb")
        except OSError as error:
            raise IsothermError(f"{self._part} cannot be written: {error.strerror}") from error
        return self._file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._file is not None
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
                self.bytes = self._file.tell()
                self._part.replace(self._path)
        finally:
            self._part.unlink(missing_ok=True)
            with suppress(OSError):  # it could not be written: what is left cannot either
                self._file.close()
