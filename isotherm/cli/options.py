"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isotherm import clock

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Data directory of the local stack [default: .isotherm]", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def duration_us(text: str) -> int:
    """Parse a duration such as ``90s``, ``10m``, ``24h`` or ``7d`` into µs.

    Raises:
        typer.BadParameter: it is none.
    """
    try:
        return clock.duration_us(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def address(text: str) -> tuple[str, int]:
    """Parse ``host:port``.

    Raises:
        typer.BadParameter: it is none.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise typer.BadParameter(f"{text!r}, expected HOST:PORT")
    return host.strip("[]"), int(port)
