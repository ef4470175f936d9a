"""What the tests of the decoders share."""

from __future__ import annotations

import re
from pathlib import Path

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
