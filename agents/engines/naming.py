"""Names of what an analytic makes."""

from __future__ import annotations

import msgspec

from isotherm.events import Event


def named(event: Event, analytic: str) -> Event:
    """Return an event that has a kind: the analytic's name, where the function gave none."""
    return event if event.kind else msgspec.structs.replace(event, kind=analytic)


def output_series(series: str, output: str) -> str:
    """Return the series that is made from a series.

    >>> output_series("room-1/temperature", "{metric}_score")
    'room-1/temperature_score'
    """
    device, _, metric = series.partition("/")
    return f"{device}/{output.replace('{metric}', metric)}"
