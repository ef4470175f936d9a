"""The platform itself: whether the ledger adds up, how the analytics are doing, and what has happened."""

from __future__ import annotations

import msgspec

from isotherm.client.exchange import Steps, decoded, got
from isotherm.client.model import Analytic, Ledger
from isotherm.events import Event


class _Analytics(msgspec.Struct):
    items: list[Analytic]


class _Events(msgspec.Struct):
    items: list[Event]


def ledger() -> Steps[Ledger]:
    """Return the ledger."""
    return decoded((yield got("/ledger")).body, Ledger)


def analytics() -> Steps[list[Analytic]]:
    """Return the processes of analytics, by name."""
    return decoded((yield got("/analytics", ("limit", "1000"))).body, _Analytics).items


def events(device: str = "", *, limit: int = 100) -> Steps[list[Event]]:
    """Return the newest events, newest first: alarms, devices online and offline, what people did.

    Args:
        device: Of this device only.
        limit: 1 to 1,000.
    """
    asked = [("limit", str(limit)), *([("device", device)] if device else [])]
    return decoded((yield got("/events", *asked)).body, _Events).items
