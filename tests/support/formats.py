"""What the tests of the decoders share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from connectors.formats.decoded import Decoded
from isotherm import rejects

NOW = 1_790_000_000_000_000
REASONS = set(re.findall(r"^([a-z_]+)  ", rejects.__doc__ or "", re.MULTILINE)) - {"reason"}

Row = tuple[str, int, float]


def cases(form: str) -> list[Path]:
    """Return the case folders of a format."""
    return sorted((Path(__file__).parents[1] / "connectors/cases" / form).iterdir())


def rows(found: Decoded) -> list[Row]:
    """Return the readings: name, time, value."""
    return list(zip(found.names, found.time.tolist(), found.value.tolist(), strict=True))


def reasons(found: Decoded) -> list[str]:
    """Return why each reject was refused."""
    return [one.reason for one in found.rejects]


def joined(pieces: Iterator[Decoded]) -> Decoded:
    """Return all pieces of a short input as one."""
    parts = list(pieces)
    if len(parts) == 1:
        return parts[0]
    owners = [(part, i) for part in parts for i in range(len(part.names))]
    return Decoded(
        [name for part in parts for name in part.names],
        np.concatenate([np.empty(0, dtype=np.int64), *(part.time for part in parts)]),
        np.concatenate([np.empty(0), *(part.value for part in parts)]),
        lambda i: owners[i][0].source(owners[i][1]),
        {name: unit for part in parts for name, unit in part.units.items()},
        None,
        [attribute for part in parts for attribute in part.attributes],
        [reject for part in parts for reject in part.rejects],
    )
