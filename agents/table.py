"""State in rows of equal width, one for each key: an array, so that those of a batch are read and written at once."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from agents.engine import Changes

FIRST_CAPACITY = 64


class Table:
    """Key → row. In the store a row is four bytes that name the layout, and the row's own."""

    def __init__(self, default: NDArray[np.void]) -> None:
        """Begin with no rows; ``default`` is what a new one is like, shape ()."""
        self._default = default
        self._layout = zlib.crc32(repr(default.dtype.descr).encode()).to_bytes(4, "little")
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        self.codes: dict[str, int] = {}
        self.keys: list[str] = []
        self._rows = np.full(FIRST_CAPACITY, self._default)
        self._changed = np.zeros(FIRST_CAPACITY, dtype=np.bool_)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def rows(self) -> NDArray[np.void]:
        """All rows by code, shape (n,); say with `touch` which ones you have changed."""
        return self._rows[: len(self.keys)]

    def code(self, key: str) -> int:
        """Return the code of a key, which gets a row when it is new."""
        code = self.codes.get(key)
        if code is None:
            code = self.codes[key] = len(self.keys)
            self.keys.append(key)
            if code == len(self._rows):
                self._rows = np.concatenate([self._rows, np.full(code, self._default)])
                self._changed = np.concatenate([self._changed, np.zeros(code, dtype=np.bool_)])
        return code

    def touch(self, codes: NDArray[np.int64]) -> None:
        """Say that rows have changed."""
        self._changed[codes] = True

    def load(self, rows: Mapping[str, bytes]) -> None:
        """Begin with rows from the store; those of another layout are left out, so their keys begin anew."""
        self.clear()
        size = len(self._layout) + self._default.dtype.itemsize
        kept = {key: row for key, row in rows.items() if len(row) == size and row.startswith(self._layout)}
        codes = [self.code(key) for key in kept]
        if codes:
            data = b"".join(row[len(self._layout) :] for row in kept.values())
            self._rows[codes] = np.frombuffer(data, dtype=self._default.dtype)

    def changes(self) -> Changes:
        """Return the rows that were touched since this was last asked."""
        codes = np.flatnonzero(self._changed)
        self._changed[codes] = False
        data, size = self._rows[codes].tobytes(), self._default.dtype.itemsize
        found = {self.keys[code]: self._layout + data[at * size : (at + 1) * size] for at, code in enumerate(codes.tolist())}
        return Changes(found)
