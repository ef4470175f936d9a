"""What every decoder returns.

A decoder is called with the bytes of one input and the time, and yields what it found piece by piece. A piece is at most
some milliseconds of work: whoever takes pieces in can do something else between two of them, so that one peer's garbage
does not hold up the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from isotherm.pack import Attribute
from isotherm.rejects import Rejected

PIECE = 200
"""Lines or records in a piece of an input that is not plain: each costs some 10 µs."""

Source = tuple[int, bytes]
"""Which line or record of the input, from 1; and its bytes, which can be sent again by themselves."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A piece of an input: readings in columns, and what was refused on the way.

    Times, values and names are as they were sent: intake decides whether they can be accepted.

    Attributes:
        names: SenML names, resolved, length n.
        time: µs since the epoch UTC, shape (n,).
        value: Samples, shape (n,).
        source: Gives the origin of reading i, for a reject.
        units: Name → unit, of those that have one.
        seq: Sequence numbers, shape (n,), NO_SEQ where there is none; None when no reading has one.
        attributes: String values.
        rejects: What is no reading.
    """

    names: Sequence[str]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    source: Callable[[int], Source]
    units: Mapping[str, str] = field(default_factory=dict)
    seq: NDArray[np.uint64] | None = None
    attributes: Sequence[Attribute] = ()
    rejects: Sequence[Rejected] = ()

    @classmethod
    def nothing(cls, *rejects: Rejected) -> Decoded:
        """No readings, only rejects."""
        return cls((), np.empty(0, dtype=np.int64), np.empty(0), lambda i: (0, b""), rejects=rejects)


_Origin = TypeVar("_Origin")


class Gathered(Generic[_Origin]):
    """Columns of a piece that is being gathered; of each reading what tells its source."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.times: list[int] = []
        self.values: list[float] = []
        self.origins: list[_Origin] = []
        self.attributes: list[Attribute] = []
        self.rejects: list[Rejected] = []

    def decoded(self, source: Callable[[_Origin], Source]) -> Decoded:
        """Return what was gathered; ``source`` turns what was kept of a reading into its source."""
        origins = self.origins
        return Decoded(
            self.names,
            np.array(self.times, dtype=np.int64),
            np.array(self.values, dtype=np.float64),
            lambda i: source(origins[i]),
            attributes=self.attributes,
            rejects=self.rejects,
        )


Decoder = Callable[[bytes, int], Iterator[Decoded]]
"""Bytes of one input, and now in µs since the epoch UTC, from where relative and missing times count."""


def absolute_us(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Turn s into µs, shape (n,); what is far outside any clock is clipped, for intake to refuse."""
    known = np.where(np.isnan(seconds), -FAR_S, seconds)
    return np.rint(np.minimum(np.maximum(known, -FAR_S), FAR_S) * 1e6).astype(np.int64)


FAR_S = 1e12
"""Further from the epoch than any clock, and within an int64 as µs."""
