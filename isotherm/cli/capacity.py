"""``isotherm capacity``: how much memory a deployment's store needs, and what a fleet needs in pods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from isotherm.cli.options import AsJson
from isotherm.cli.output import print_json, print_table

if TYPE_CHECKING:
    from isotherm.sizing import Fleet


def capacity(
    rate: Annotated[float, typer.Option(help="Readings a second of each series.")],
    series: Annotated[int | None, typer.Option(help="Number of series (metrics of devices).", min=1)] = None,
    devices: Annotated[int | None, typer.Option(help="Number of devices; by default one for each series.", min=1)] = None,
    metrics: Annotated[int, typer.Option(help="With --protocol: readings of a device each time.", min=1)] = 1,
    protocol: Annotated[
        str | None, typer.Option(help="Say what --devices need in pods that send by it: tcp, http, mqtt or coap.")
    ] = None,
    headroom: Annotated[
        float, typer.Option(help="With --protocol: share of each core that is left free.", min=0, max=0.9)
    ] = 0.5,
    as_json: AsJson = False,
) -> None:
    """Say how much memory the store needs, once readings have come for as long as they are kept.

    It is Valkey's used_memory, within a quarter; Redis may take 1.7 times as much. The server needs room beyond it for
    clients and for rewriting its append-only file: up to as much again under heavy load. With --protocol it says what all
    parts need in pods: replicas, cores, memory, and the log's disk; docs/capacity.md says what that is worth.
    """
    if not 0 < rate < float("inf"):
        raise typer.BadParameter(f"{rate}, expected more than 0", param_hint="--rate")
    if protocol is not None:
        _print_pods(protocol, devices, series, rate, metrics, headroom, as_json)
    elif series is None:
        raise typer.BadParameter("how many are there? Or how many --devices, by which --protocol?", param_hint="--series")
    else:
        _print_memory(series, rate, devices or series, as_json)


def _print_memory(series: int, rate: float, devices: int, as_json: bool) -> None:
    from isotherm.store import capacity as formula

    terms = formula.capacity(series, rate, devices)
    total = sum(term.bytes for term in terms)
    if as_json:
        print_json({"bytes": total, "bytes_per_series": round(total / series), "terms": terms})
        return
    rows = [(term.name, f"{term.keys:,}", f"{term.records:,}", f"{term.bytes / 1e6:,.1f} MB") for term in terms]
    print_table(("what", "keys", "records", "memory"), [*rows, ("all", "", "", f"{total / 1e6:,.1f} MB")])


def _print_pods(
    protocol: str, devices: int | None, series: int | None, rate: float, metrics: int, headroom: float, as_json: bool
) -> None:
    from isotherm.sizing import CONNECTORS, Fleet

    if protocol not in CONNECTORS:
        raise typer.BadParameter(f"{protocol!r}, expected one of {', '.join(CONNECTORS)}", param_hint="--protocol")
    if devices is None:
        raise typer.BadParameter("how many are there?", param_hint="--devices")
    if series is not None:
        raise typer.BadParameter("give --devices and --metrics instead, with --protocol", param_hint="--series")
    _print_plan(Fleet(devices, rate, metrics, protocol), headroom, as_json)


def _print_plan(fleet: Fleet, headroom: float, as_json: bool) -> None:
    from isotherm.settings import Settings
    from isotherm.sizing import plan

    settings = Settings.load()
    made = plan(fleet, headroom=headroom, partitions=settings.partitions, replication=max(3, settings.replication))
    if as_json:
        print_json(
            {
                "readings_per_second": fleet.readings,
                "partitions": made.partitions,
                "cores": round(made.cores, 2),
                "memory": made.memory,
                "parts": made.parts,
            }
        )
        return
    rows = [
        (
            part.name,
            f"{part.pods:,}",
            f"{part.cpu:g}",
            f"{part.memory / 1e6:,.0f} MB",
            f"{part.disk / 1e9:,.1f} GB" if part.disk else "",
            part.problem,
        )
        for part in made.parts
    ]
    print_table(("part", "pods", "cores each", "memory each", "disk each", ""), rows)
    print(
        f"{fleet.readings:,.10g} readings/s; {made.cores:,.4g} cores and {made.memory / 1e9:,.1f} GB in all; "
        f"topics with {made.partitions} partitions or more"
    )
