"""Events: what happened to a device, as JSON on the topic ``events`` and newest first in the store.

kind                  what happened
--------------------  ---------------------------------------------------------------
alarm.raised          a rule's condition came to hold
alarm.cleared         it holds no longer
alarm.acknowledged    a person has seen it
alarm.shelved         a person does not want to hear of it for a while
alarm.unshelved       and now does
presence.online       a device is heard of as often as it used to be
presence.late         it has missed a few readings
presence.offline      it has missed so many that it is taken to be gone
ANALYTIC              whatever an analytic says under its own name

An event has a source and a number that grows by one within it, so that whoever reads the topic knows one that comes again.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

Severity = Literal["critical", "major", "minor", "warning", "info"]
"""How bad it is, worst first; the first four are those of ITU-T X.733."""

MAX_MESSAGE_CHARS = 1_000

SEVERITIES: tuple[Severity, ...] = get_args(Severity)


class Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One event.

    Attributes:
        kind: See the table above.
        device: Whose it is.
        time: When it happened, µs since the epoch UTC.
        message: What a person reads.
        severity: How bad it is.
        metric, value, unit: Of the reading that it came from, where there is one.
        alarm: Key of the alarm, of an ``alarm.`` event.
        since: When the alarm was raised, µs; with ``alarm`` it names the occurrence.
        rule: Id of the alarm's rule.
        by: The person who did it.
        until: When a shelved alarm is heard of again, µs.
        source: Analytic, partition and when its state began: ``alarms/3/18c2…``.
        number: Grows by one within the source.

    Raises:
        ValueError: the severity is none, or the message is too long.
    """

    kind: str
    device: str
    time: int
    message: str = ""
    severity: Severity = "info"
    metric: str = ""
    value: float | None = None
    unit: str = ""
    alarm: str = ""
    since: int = 0
    rule: str = ""
    by: str = ""
    until: int = 0
    source: str = ""
    number: int = 0

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity is {self.severity!r}, expected one of {', '.join(SEVERITIES)}")
        if len(self.message) > MAX_MESSAGE_CHARS:
            raise ValueError(f"a message of {len(self.message):,} characters, expected at most {MAX_MESSAGE_CHARS:,}")

    @property
    def id(self) -> str:
        """What the event is known by, wherever it is told."""
        return f"{self.source}/{self.number}"

    def to_json(self) -> bytes:
        """Encode for the topic."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Event:
        """Decode a record of the topic.

        Raises:
            msgspec.DecodeError: it is no event.
        """
        return msgspec.json.decode(data, type=cls)
