"""What people read: the title, the lines and the JSON of a delivery."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from agents.notifications.message import ACKNOWLEDGED, CLEARED, RAISED, Delivery, Message, fold
from isotherm.channels import Channel
from isotherm.clock import iso
from isotherm.limits import SECOND

SHOWN = 50
"""Subjects that a digest lists; it counts the others."""

MAX_CHARS = 300
"""Of what an event says."""

_DONE = {RAISED: "raised", CLEARED: "cleared", ACKNOWLEDGED: "acknowledged"}


class Summary(NamedTuple):
    """A delivery for people.

    Attributes:
        title: One line.
        lines: One for each subject, the worst first, and a last one that counts what is not listed.
    """

    title: str
    lines: list[str]


def summary(messages: Sequence[Message], zone: str) -> Summary:
    """Say what some messages say, which are not empty; times are by the clock of a zone (IANA)."""
    subjects = by_subject(messages)
    lines = [_line(one, ZoneInfo(zone)) for one in subjects[:SHOWN]]
    if len(subjects) > SHOWN:
        lines.append(f"and {len(subjects) - SHOWN:,} more")
    return Summary(_title(subjects), lines)


def by_subject(messages: Sequence[Message]) -> list[Message]:
    """Fold the messages of each subject into one; the worst first, and then in their order."""
    found: dict[str, list[Message]] = {}
    for one in sorted(messages, key=lambda one: (one.at, one.order)):
        found.setdefault(one.subject, []).append(one)
    return sorted(map(fold, found.values()), key=lambda one: one.rank)


def body(channel: Channel, delivery: Delivery) -> dict[str, Any]:
    """Return what a webhook is sent, see `agents.notifications.channels.webhook`."""
    subjects = by_subject(delivery.messages)
    told = summary(delivery.messages, channel.zone)
    return {
        "id": delivery.id,
        "channel": channel.id,
        "time": iso(delivery.time),
        "title": told.title,
        "text": "\n".join(told.lines),
        "severity": subjects[0].severity,
        "count": len(subjects),
        "omitted": max(0, len(subjects) - SHOWN),
        "messages": [_fields(one) for one in subjects[:SHOWN]],
    }


def _fields(message: Message) -> dict[str, Any]:
    event: dict[str, Any] = msgspec.to_builtins(message.event)
    for name in ("time", "since", "until"):
        if name in event:
            event[name] = iso(event[name])
    return event | {
        "id": message.event.id,
        "severity": message.severity,
        "first": iso(message.since),
        "counts": message.counts,
    }


def _title(subjects: Sequence[Message]) -> str:
    if len(subjects) > 1:
        devices = len({one.event.device for one in subjects})
        where = subjects[0].event.device if devices == 1 else f"{devices:,} devices"
        return f"[{subjects[0].severity}] {len(subjects):,} {_noun(subjects)} of {where}: {_done(subjects)}"
    [only] = subjects
    kind = only.event.kind
    state = "" if only.total == 1 and kind not in (CLEARED, ACKNOWLEDGED) else f", {_changes(only)}"
    return f"[{only.severity}{state}] {_what(only)}"


def _line(message: Message, zone: ZoneInfo) -> str:
    first, last = _clock(message.since, zone), _clock(message.event.time, zone)
    if message.total == 1:
        when = f"{_DONE[message.event.kind]} {last}" if message.event.kind in _DONE else last
    elif message.counts == {RAISED: 1, CLEARED: 1} and message.event.kind == CLEARED:
        when = f"raised {first}, cleared {last}"
    else:
        when = f"{_changes(message)} from {first} to {last}"
        if message.event.kind in (RAISED, CLEARED):
            when += ", now " + ("raised" if message.event.kind == RAISED else "clear")
    by = f" by {message.event.by}" if message.event.by else ""
    return f"[{message.severity}] {_what(message)}: {when}{by}"


def _changes(message: Message) -> str:
    """Say how often what happened: ``raised and cleared 14 times``."""
    counts = dict(message.counts)
    parts = []
    both = min(counts.get(RAISED, 0), counts.get(CLEARED, 0))
    if both:
        counts[RAISED] -= both
        counts[CLEARED] -= both
        parts.append("raised and cleared" + _times(both))
        if counts[RAISED] or counts[CLEARED]:
            more = RAISED if counts[RAISED] else CLEARED
            parts.append(f"{_DONE[more]}{_times(counts.pop(more), more=True)}")
    parts += [_DONE.get(kind, kind) + _times(count) for kind, count in counts.items() if count]
    return ", ".join(parts)


def _times(count: int, *, more: bool = False) -> str:
    word = "more " if more else ""
    return f" {count:,} {word}times" if count > 1 else " once more" if more else ""


def _done(subjects: Sequence[Message]) -> str:
    """Say in which state the subjects are now: ``120 raised, 97 cleared``."""
    counts: dict[str, int] = {}
    for one in subjects:
        name = _DONE.get(one.event.kind, one.event.kind)
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _noun(subjects: Sequence[Message]) -> str:
    return "alarms" if all(one.event.alarm for one in subjects) else "events"


def _what(message: Message) -> str:
    """Return what an event says, on one line, with its device."""
    event = message.event
    text = " ".join("".join(one if one.isprintable() else " " for one in event.message or event.kind).split())
    said = text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"
    return said if event.device in said else f"{event.device}: {said}"


def _clock(time: int, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(time / SECOND, zone).strftime("%Y-%m-%d %H:%M:%S %Z")
