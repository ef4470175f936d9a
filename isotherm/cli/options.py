"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from isotherm.limits import DAY, HOUR, MINUTE, SECOND

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Data directory of the local stack [default: .isotherm]", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def duration_us(text: str) -> int:
    """Parse a duration such as ``90s``, ``10m``, ``24h`` or ``7d`` into µs.

    Raises:
        typer.BadParameter: it is none.

    >>> duration_us("10m")
    600000000
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise typer.BadParameter(f"{text!r}, expected a duration such as 90s, 10m, 24h or 7d")
    return int(float(match[1]) * _UNITS[match[2]])


def address(text: str) -> tuple[str, int]:
    """Parse ``host:port``.

    Raises:
        typer.BadParameter: it is none.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise typer.BadParameter(f"{text!r}, expected HOST:PORT")
    return host.strip("[]"), int(port)
