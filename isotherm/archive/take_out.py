"""Export: what the store holds, into a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from isotherm.archive.rows import Name, Sink
from isotherm.store.reader import Latest, Reader


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
