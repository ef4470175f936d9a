"""A device's configuration: what it should have (desired), and what it says that it has (reported).

    state     what is known                                             how it gets there
    --------  --------------------------------------------------------  ------------------------------------------------
    none      nothing is desired
    pending   the device has not been given what is desired             a person or a rollout changed it, or the device
                                                                        reports that it has an older one
    sent      it was given to the device's connection or broker         written
    applied   the device has reported what is desired                   its report
    drifted   the device has reported something else                    its report
    failed    the device says that it cannot                            its report

A device is told by a command, which needs nothing new of a protocol or of a device that knows commands:

    {"id":"configuration-7","name":"configure","parameters":{"version":7,"values":{"interval":5}}, …}

It replies to it with what it has then, ``{"id":"configuration-7","result":{"interval":5}}``; with any result that is no
object when it has all that is desired; or with an error. ``{"id":"configuration-7","progress":40}`` says that it is at it.
It may report unasked, with the version that it has: who has lost everything reports ``configuration-0``.

What is desired is a state and no queue: only the newest is given, as often as it takes. Versions grow with each change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

from isotherm.clock import iso
from isotherm.commands.command import as_json
from isotherm.errors import BadField
from isotherm.limits import DAY

State = Literal["none", "pending", "sent", "applied", "drifted", "failed"]

STATES: tuple[State, ...] = get_args(State)

MAX_KEYS = 64
MAX_BYTES = 12 * 1024
"""Of everything that is desired of one device, as JSON: a command takes it."""

MAX_KEY_CHARS = 64
MAX_REPORTED_KEYS = 256
KEY = "[A-Za-z][A-Za-z0-9_.-]*"
FIRMWARE = "firmware"
"""The key that only an update of firmware sets."""

DEADLINE = 1 * DAY
"""What a device is told to be the deadline; the platform has none: what is desired stays so."""

_ID = re.compile(r"configuration-([0-9]{1,15})")


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """A device's configuration; times are µs since the epoch UTC, 0 for what has not happened.

    Attributes:
        device: Whose.
        version: Of what is desired; 0 while nothing is.
        desired: Key → value as JSON.
        changed, by: When and by whom ``desired`` was last changed.
        state: See the table above.
        rollout: The one that changed it last, or empty.
        attempt: How often it was given to the device.
        given: When it was last.
        via: The connector that did.
        progress: How far the device is with it, %; -1 when it has not said.
        error: Why the device cannot.
        reported: Key → value as JSON, as the device has said last.
        reported_version: The version that this belongs to.
        reported_at: When it said so.
    """

    device: str
    version: int = 0
    desired: Mapping[str, msgspec.Raw]
    changed: int = 0
    by: str = ""
    state: State = "none"
    rollout: str = ""
    attempt: int = 0
    given: int = 0
    via: str = ""
    progress: int = -1
    error: str = ""
    reported: Mapping[str, msgspec.Raw]
    reported_version: int = 0
    reported_at: int = 0

    @property
    def drift(self) -> list[str]:
        """The keys whose reported value is another than the desired one, ascending; empty while nothing was reported."""
        if not self.reported_at:
            return []
        return sorted(key for key, value in self.desired.items() if not _is_same(value, self.reported.get(key)))


def described(one: Configuration) -> dict[str, Any]:
    """Return what people and programs are told of a configuration: plain values, times as ISO 8601 or None."""
    return {
        "device": one.device,
        "version": one.version,
        "state": one.state,
        "desired": {key: msgspec.json.decode(value) for key, value in one.desired.items()},
        "changed": iso(one.changed) if one.changed else None,
        "by": one.by,
        "rollout": one.rollout,
        "attempts": one.attempt,
        "given": iso(one.given) if one.given else None,
        "via": one.via,
        "progress": one.progress if one.progress >= 0 else None,
        "error": one.error,
        "reported": {key: msgspec.json.decode(value) for key, value in one.reported.items()},
        "reported_version": one.reported_version,
        "reported_at": iso(one.reported_at) if one.reported_at else None,
        "drift": one.drift,
    }


def encoded(values: Mapping[str, Any]) -> dict[str, bytes]:
    """Return changes as they are kept: key → JSON, or nothing where the key is to be removed.

    Args:
        values: Key → value; None removes the key (RFC 7396, of the first level only).

    Raises:
        BadField: there are none, too many, or one has no name or no value that can be kept.
    """
    if not 1 <= len(values) <= MAX_KEYS:
        raise BadField("values", f"{len(values)} values", f"1 to {MAX_KEYS} of them")
    found: dict[str, bytes] = {}
    for key, value in values.items():
        if len(key) > MAX_KEY_CHARS or not re.fullmatch(KEY, key):
            rule = f"1 to {MAX_KEY_CHARS} letters, digits and _ . -, the first a letter"
            raise BadField("values", f"{key[:80]!r} is no name of a setting", f"names with {rule}")
        if key == FIRMWARE:
            raise BadField("values", f"{key!r} is set by an update of firmware alone", "names of other settings")
        found[key] = b"" if value is None else as_json(value, "values", MAX_BYTES)
    if sum(map(len, found.values())) > MAX_BYTES:
        raise BadField("values", "the values are too large", f"at most {MAX_BYTES:,} bytes as JSON")
    return found


def id_of(version: int) -> str:
    """Return the id of the command by which a device is told a version."""
    return f"configuration-{version}"


def version_in(id: str) -> int | None:
    """Return the version that a reply is about, or None when it is about a command.

    >>> version_in("configuration-7"), version_in("00659e3b")
    (7, None)
    """
    found = _ID.fullmatch(id)
    return None if found is None else int(found[1])


def _is_same(desired: msgspec.Raw, reported: msgspec.Raw | None) -> bool:
    """Tell whether a reported value is the desired one; of something with a version that alone may be reported."""
    if reported is None:
        return False
    wanted, found = msgspec.json.decode(desired), msgspec.json.decode(reported)
    return _is_equal(wanted, found) or (isinstance(wanted, dict) and "version" in wanted and wanted["version"] == found)


def _is_equal(one: Any, other: Any) -> bool:
    """Compare what JSON can say, as table.lua does: to Python, true is 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_equal, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
