"""``isotherm capacity``: how much memory a deployment's store needs."""

from __future__ import annotations

from typing import Annotated

import typer

from isotherm.cli.options import AsJson
from isotherm.cli.output import print_json, print_table


def capacity(
    series: Annotated[int, typer.Option(help="Number of series (metrics of devices).", min=1)],
    rate: Annotated[float, typer.Option(help="Readings a second of each series.")],
    devices: Annotated[int | None, typer.Option(help="Number of devices; by default one for each series.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Say how much memory the store needs, once readings have come for as long as they are kept.

    It is Valkey's used_memory, within a quarter; Redis may take 1.7 times as much. The server needs room beyond it for
    clients and for rewriting its append-only file: up to as much again under heavy load.
    """
    from isotherm.store import capacity as formula

    if not 0 < rate < float("inf"):
        raise typer.BadParameter(f"{rate}, expected more than 0", param_hint="--rate")
    terms = formula.capacity(series, rate, devices or series)
    total = sum(term.bytes for term in terms)
    if as_json:
        print_json({"bytes": total, "bytes_per_series": round(total / series), "terms": terms})
        return
    rows = [(term.name, f"{term.keys:,}", f"{term.records:,}", f"{term.bytes / 1e6:,.1f} MB") for term in terms]
    print_table(("what", "keys", "records", "memory"), [*rows, ("all", "", "", f"{total / 1e6:,.1f} MB")])
