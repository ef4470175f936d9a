"""What engines have in common that keep a row of state for each key, and do nothing as time passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from agents.engine import Changes, Outputs
from agents.gather import Codes
from agents.table import Table


class TableEngine:
    """A table, and the codes of the series that are wanted."""

    def __init__(self, default: NDArray[np.void], code_of: Callable[[str], int]) -> None:
        self._table = Table(default)
        self._codes = Codes(code_of)

    def load(self, rows: Mapping[str, bytes]) -> None:
        """Begin with a state."""
        self._codes.clear()
        self._table.load(rows)

    def changes(self) -> Changes:
        """Return what has changed."""
        return self._table.changes()

    def tick(self, now: int) -> Outputs:
        """Nothing happens by itself."""
        return Outputs()
