"""Alarms: what is wrong, and what people have to say about it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Literal

import msgspec

from isotherm.client.exchange import Listing, Steps, decoded, posted
from isotherm.client.model import Alarm
from isotherm.events import Severity

State = Literal["all", "attention", "active", "cleared", "shelved"]


class _Done(msgspec.Struct):
    done: str


def alarms(state: State = "all", *, severity: Severity | None = None, device: str = "") -> Listing[Alarm]:
    """Go through alarms, ascending by key; those cleared and acknowledged a while ago are gone.

    Args:
        state: ``attention`` are those that somebody should look at.
        severity: This one, or worse.
        device: A pattern of a shell over devices.
    """
    return Listing("/alarms", Alarm, state=state, severity=severity or "", device=device)


def acknowledge(alarms: Alarm | Sequence[Alarm], note: str = "") -> Steps[str]:
    """Say that somebody has seen alarms, as they were read; returns what was done, in words.

    Raises:
        NotFound: one of them is gone.
    """
    seen = [alarms] if isinstance(alarms, Alarm) else alarms
    form: dict[str, object] = {"alarms": [{"key": one.key, "since": one.since} for one in seen], "note": note}
    return (yield from _done("/alarms/acknowledge", form))


def shelve(key: str, seconds: int) -> Steps[str]:
    """Not hear of an alarm, or of all alarms of a rule, for a while.

    Args:
        key: Of an alarm, or the id of a rule.
        seconds: For how long, at least 1.
    """
    return (yield from _done("/alarms/shelve", {"key": key, "seconds": seconds}))


def unshelve(key: str) -> Steps[str]:
    """Hear of it again."""
    return (yield from _done("/alarms/unshelve", {"key": key}))


def _done(path: str, form: dict[str, object]) -> Steps[str]:
    return decoded((yield posted(path, form, uuid.uuid4().hex)).body, _Done).done
