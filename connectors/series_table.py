"""What a connector remembers of the series it has seen: their numbers, partitions and units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isotherm.errors import InvalidReading
from isotherm.limits import HOUR
from isotherm.names import series_name
from isotherm.topics import partition_of

MAX_UNIT_CHARS = 32

ANNOUNCE_UNITS_US = HOUR
"""How often the units of all series are sent again, for a store that has lost them."""

Key = str | tuple[str, str]
"""A name that says its device, or (device of the channel, name)."""


class SeriesTable(dict[Key, int]):
    """Name → number of its series, or -1 when it can name none. Looking up a good new name enters it."""

    def __init__(self, partitions: int) -> None:
        super().__init__()
        self.names: list[str] = []
        self._by_name: dict[str, int] = {}
        self._count = partitions
        self._partitions = np.empty(1024, dtype=np.int64)

    def __missing__(self, key: Key) -> int:
        try:
            name = resolve(key)
        except InvalidReading:
            return -1  # and not remembered: a peer could send any number of them, of any length
        code = self._by_name.get(name, -1)
        if code < 0:
            code = self._enter(name)
        self[key] = code
        return code

    def partitions(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the partitions of series, shape (n,)."""
        return self._partitions[codes]

    def _enter(self, name: str) -> int:
        code = self._by_name[name] = len(self.names)
        self.names.append(name)
        if code == len(self._partitions):
            self._partitions = np.concatenate([self._partitions, np.empty_like(self._partitions)])
        self._partitions[code] = partition_of(name.partition("/")[0], self._count)
        return code


class Units:
    """Which units still have to be told to the store: those of new series, changed ones, and all of them every hour."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}
        self._news: dict[int, str] = {}
        self._since = 0

    def note(self, code: int, unit: str, now: int) -> None:
        """A reading of series ``code`` came in ``unit``."""
        if now - self._since > ANNOUNCE_UNITS_US:
            self._known.clear()
            self._since = now
        if code >= 0 and self._known.get(code) != unit:
            self._known[code] = unit
            self._news[code] = unit[:MAX_UNIT_CHARS]

    def news(self, codes: Sequence[int]) -> dict[int, str]:
        """Return series → unit of those whose unit is new or has changed, once after each change."""
        return {code: self._news.pop(code) for code in codes if code in self._news}


def resolve(key: Key) -> str:
    """Return the series of a key.

    Raises:
        InvalidReading: it can name none.
    """
    return series_name(key) if isinstance(key, str) else series_name(key[1], device=key[0])
