"""What every decoder returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from isotherm.rejects import Rejected


@dataclass(frozen=True, slots=True)
class Decoded:
    """Readings in columns, and what was refused on the way.

    Times, values and names are as they were sent: intake decides whether they can be accepted.

    Attributes:
        names: SenML names, resolved, length n.
        time: µs since the epoch UTC, shape (n,).
        value: Samples, shape (n,).
        raw: Gives the original bytes of reading i, for a reject.
        units: Name → unit, of those that have one.
        rejects: What is no reading.
    """

    names: Sequence[str]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    raw: Callable[[int], bytes]
    units: Mapping[str, str] = field(default_factory=dict)
    rejects: Sequence[Rejected] = ()

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def nothing(cls, *rejects: Rejected) -> Decoded:
        """No readings, only rejects."""
        return cls((), np.empty(0, dtype=np.int64), np.empty(0), lambda i: b"", rejects=rejects)
