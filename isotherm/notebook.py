"""History for notebooks: series of a running store as a pandas DataFrame."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from isotherm.clock import duration_us, now_us
from isotherm.errors import SettingsError
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.history import WIDTHS, History
from isotherm.store.reader import Reader

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("mean", "min", "max", "last", "sum", "count")

DEFAULT_POINTS = 10_000
"""Rows of each series where no width is asked for."""

MAX_CELLS = 50_000_000
"""Rows times series of a regular frame: 400 MB a column."""

_Answer = TypeVar("_Answer")


def frame(
    pattern: str,
    last: str = "24h",
    *,
    every: str | None = None,
    column: str | Sequence[str] = "mean",
    fill: str | None = None,
    end: int | None = None,
    settings: Settings | None = None,
) -> pd.DataFrame:
    """Return the history of all series that match a pattern, one column each; works in Jupyter too.

    The store is that of the running local stack, or what ISOTHERM_REDIS names. Without ``every`` the rows are the stored
    ones, at most 10,000 a series, NaN where one series has a row and another has none; of raw readings of one series with
    the same time the last to arrive is kept. Where the store has kept only wider rows than ``every``, each stands at its
    begin, with NaN after it.

    Args:
        pattern: ``device/metric``, with ``*``, ``?`` and ``[…]`` as a shell has them; ``*`` also matches slashes.
        last: How far back from ``end``: ``90s``, ``10m``, ``24h``, ``7d``.
        every: Width of the rows of a regular grid, such as ``1min``; a row stands for the time from its label on.
        column: ``mean``, ``min``, ``max``, ``last``, ``sum`` or ``count``; with several, columns are (series, column).
        fill: With ``every``: how long the last value is carried on into rows without a reading, such as ``5min``.
        end: µs since the epoch UTC; now by default.
        settings: Another store than the one above.

    Returns:
        Index: UTC, ascending, named ``time``; empty when nothing matches.

    Raises:
        SettingsError: an argument is none, or the frame would have more than MAX_CELLS cells.
        Unavailable: the store does not answer.
        ModuleNotFoundError: pandas is not installed.

    >>> hourly = frame("sensor-*/temperature", last="3h", every="1h", column="max")
    >>> hourly.columns.tolist()
    ['sensor-1/temperature', 'sensor-2/temperature']
    >>> hourly.index.tz, len(hourly)
    (datetime.timezone.utc, 4)
    >>> frame("sensor-1/*", last="3h", column=["min", "max"]).columns.tolist()
    [('sensor-1/temperature', 'min'), ('sensor-1/temperature', 'max')]
    """
    columns = [column] if isinstance(column, str) else list(column)
    for name in columns:
        if name not in COLUMNS:
            raise SettingsError(f"{name!r} is no column, expected some of {', '.join(COLUMNS)}")
    if fill is not None and every is None:
        raise SettingsError("fill needs every: only a regular grid has rows without a reading")
    until = now_us() + 1 if end is None else end
    begin, step, max_age = until - _duration(last), _duration(every), _duration(fill)
    found = _run(_read(settings or Settings.load(), pattern, begin, until, step))
    if step:
        found = {name: rows.on_grid(begin, until, step, max_age) for name, rows in found.items()}
    return _frame(found, columns, several=not isinstance(column, str))


async def _read(settings: Settings, pattern: str, start: int, end: int, step: int) -> dict[str, History]:
    async with client.connected(settings) as redis:
        reader = Reader(redis, settings.partitions)
        names = await reader.series(pattern)
        if not step:
            return await reader.query_many(names, start, end, DEFAULT_POINTS)
        if (cells := (end - start) // step * len(names)) > MAX_CELLS:
            raise SettingsError(f"{len(names)} series would take {cells:,} cells, at most {MAX_CELLS:,}: widen every")
        # Rows of a width that divides the grid's, so that each lies in one cell.
        width = max((width for width in WIDTHS if step % width == 0), default=1)
        return await reader.query_many(names, start, end, (end - start) // width + 2)


def _frame(found: Mapping[str, History], columns: Sequence[str], *, several: bool) -> pd.DataFrame:
    import pandas as pd

    parts = {}
    for series, rows in found.items():
        kept = np.append(rows.time[1:] != rows.time[:-1], True)[: len(rows)]
        index = _index(rows.time[kept])
        for name in columns:
            parts[(series, name) if several else series] = pd.Series(getattr(rows, name)[kept], index=index)
    if not parts:
        names = pd.MultiIndex.from_tuples([], names=["series", "column"]) if several else pd.Index([], dtype="str")
        return pd.DataFrame(index=_index(np.empty(0, dtype=np.int64)), columns=names, dtype="float64")
    joined = pd.concat(parts, axis=1, sort=True)
    joined.index.name = "time"
    joined.columns.names = ["series", "column"] if several else ["series"]
    return joined


def _index(time: Any) -> pd.DatetimeIndex:
    import pandas as pd

    return pd.DatetimeIndex(time.view("datetime64[us]"), name="time").tz_localize("UTC")


def _duration(text: str | None) -> int:
    if text is None:
        return 0
    try:
        return duration_us(text)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _run(work: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Run a coroutine to its end, in a thread of its own where an event loop runs already, as in Jupyter."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    answers: list[_Answer] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            answers.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - it is raised where the caller waits
            errors.append(error)

    thread = threading.Thread(target=call, name="isotherm-notebook")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return answers[0]
