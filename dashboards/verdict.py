"""Whether the ledger adds up, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from isotherm.ledger import Line

STILL_SECONDS = 30.0
"""Readings on their way for so long, with nothing stored meanwhile, are not on their way."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to say of the ledger: ``good``, ``odd`` when a person should look, or ``bad`` when numbers contradict."""

    level: Literal["good", "odd", "bad"]
    text: str


def verdict(lines: Mapping[str, Line], *, still: float = 0.0, log_is_known: bool = True) -> list[Finding]:
    """Return what is to say, the worst first.

    Args:
        lines: Protocol → line.
        still: Since when nothing more is stored although something is in flight, s.
        log_is_known: False when nobody knows whether what is in flight is lost.
    """
    found = [Finding("bad", text) for name, line in lines.items() for text in _contradictions(name, line)]
    total = sum(lines.values(), Line())
    if total.lost:
        found.append(
            Finding(
                "odd", f"{total.lost:,} readings are lost: they were in a log that is gone, such as an embedded broker's"
            )
        )
    if still >= STILL_SECONDS:
        found.append(
            Finding(
                "odd",
                f"{total.in_flight:,} readings are in flight and nothing was stored for {still:.0f} s: "
                "is a worker running? (isotherm worker)",
            )
        )
    if not log_is_known and total.in_flight:
        found.append(Finding("odd", "Kafka does not say which log it has: what is in flight may be lost"))
    if found:
        return found
    if not total.received:
        return [Finding("good", "Nothing has been received yet")]
    rest = f", {total.in_flight:,} are in flight" if total.in_flight else ""
    return [Finding("good", f"It adds up: {total.received:,} received, {total.accepted:,} accepted{rest}")]


def _contradictions(name: str, line: Line) -> list[str]:
    found = []
    if line.received != line.accepted + line.rejected:
        found.append(
            f"{name}: {line.received:,} received, but {line.accepted:,} accepted and {line.rejected:,} rejected "
            f"({line.received - line.accepted - line.rejected:+,})"
        )
    ways = line.stored + line.duplicates + line.in_flight + line.lost
    if line.accepted != ways:
        found.append(
            f"{name}: {line.accepted:,} accepted, but {ways:,} stored, sent again, in flight or lost "
            f"({line.accepted - ways:+,})"
        )
    return found
