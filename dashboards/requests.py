"""What the alarms page of a browser asks for, as `alarms.js` and `rules.js` send it. Whoever sends it may be anybody."""

from __future__ import annotations

from typing import Annotated

import msgspec

MAX_SEEN = 500
"""Alarms acknowledged at once."""


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """An occurrence that a visitor has looked at: the alarm's key, and when it was raised, µs."""

    key: str
    since: int


class _Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="do"):
    """What a browser asks for; the answer carries the same number ``n``."""

    n: int


class Acknowledge(_Request, frozen=True, kw_only=True, tag="acknowledge"):
    """Somebody has seen these occurrences."""

    alarms: Annotated[list[Seen], msgspec.Meta(min_length=1, max_length=MAX_SEEN)]
    note: str = ""


class Shelve(_Request, frozen=True, kw_only=True, tag="shelve"):
    """Not hear of an alarm, or of all of a rule (its id is the key), for so long."""

    key: str
    seconds: int


class Unshelve(_Request, frozen=True, kw_only=True, tag="unshelve"):
    """Hear of it again."""

    key: str


class Save(_Request, frozen=True, kw_only=True, tag="save"):
    """Keep a rule: ``base`` is what it was when they began to change it, empty for a new one."""

    form: dict[str, str | bool]
    base: str = ""
    anyway: bool = False


class Enable(_Request, frozen=True, kw_only=True, tag="enable"):
    """Have a rule evaluated, or not."""

    id: str
    enabled: bool


class Remove(_Request, frozen=True, kw_only=True, tag="remove"):
    """Forget a rule."""

    id: str


class Preview(_Request, frozen=True, kw_only=True, tag="preview"):
    """Say what a rule would have done."""

    form: dict[str, str | bool]


class Stop(_Request, frozen=True, kw_only=True, tag="stop"):
    """End the preview that is worked out."""


Request = Acknowledge | Shelve | Unshelve | Save | Enable | Remove | Preview | Stop


def understood(data: object) -> Request:
    """Return a message of a browser as what it asks for.

    Raises:
        msgspec.ValidationError: it is none of these.
    """
    request: Request = msgspec.convert(data, type=Request)
    return request
