"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from isotherm import clock
from isotherm.limits import SECOND

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


def duration_seconds(text: str) -> int:
    """Parse a duration into seconds, rounded up.

    Raises:
        typer.BadParameter: it is none.
    """
    return -(-duration_us(text) // SECOND)


def values(given: Iterable[str]) -> dict[str, Any]:
    """Parse ``times=3``, which is a number, and ``colour=red``, a text: a value is JSON, or else what it is.

    Raises:
        typer.BadParameter: one has no name, or no value.
    """
    found: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{one!r}, expected name=value")
        try:
            found[name] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            found[name] = value
    return found


def address(text: str) -> tuple[str, int]:
    """Parse ``host:port``.

    Raises:
        typer.BadParameter: it is none.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise typer.BadParameter(f"{text!r}, expected HOST:PORT")
    return host.strip("[]"), int(port)
