"""A command: what a person or a program asks one device to do, and how far that is.

    state       what is known                                                  how a command gets there
    ----------  -------------------------------------------------------------  -----------------------------------------
    queued      it is kept, and no connector has given it to the device        accepted
    sent        a connector has given it to the device's connection or broker  written
    delivered   the device has it                                              CoAP's acknowledgement, or its own word
    answered    the device has done it and said what came of it                its reply
    expired     no answer came by the deadline; if ``sent`` is 0 it was never  the deadline
                given to the device and never will be
    failed      the device says that it cannot, somebody has cancelled it, or  its reply, a person, a connector's end
                a connector ended while it gave it to the device: it may have it

A state is never ahead of what happened. What is known of a command grows in one direction, see :func:`position`, so facts
may come twice and in any order. A late reply is taken after the end as well: it is what happened.

A command is given to a device once. One that is declared idempotent is given again while no answer comes.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

from isotherm.clock import iso, now_us
from isotherm.errors import BadField
from isotherm.limits import DAY, SECOND

State = Literal["queued", "sent", "delivered", "answered", "expired", "failed"]

STATES: tuple[State, ...] = get_args(State)

ENDED: frozenset[State] = frozenset({"answered", "expired", "failed"})

MAX_NAME_CHARS = 64
MAX_PARAMETERS_BYTES = 16 * 1024
"""Of the parameters as JSON: a line of TCP and one block-wise transfer take more."""

MAX_RESULT_BYTES = 48 * 1024
"""Of what a device answers, as JSON."""

MAX_ERROR_CHARS = 1_000
MAX_QUEUED = 100
"""Commands of one device that wait to be given to it."""

DEFAULT_TIMEOUT = 60 * SECOND
MAX_TIMEOUT = 1 * DAY - 600 * SECOND
"""The topics keep their records for a day: what is known of a command can be read again for as long as it may be sent."""

NAME = "[A-Za-z][A-Za-z0-9_.-]*"
"""What a command's name matches; it has at most MAX_NAME_CHARS."""

CONFIGURE = "configure"
"""The command by which a device is told its configuration; nobody sends it by hand. See `isotherm.configuration`."""

_ID = re.compile(r"[0-9a-z]{1,32}")


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command; times are µs since the epoch UTC, 0 for what has not happened.

    Attributes:
        id: Ascending with ``created``.
        device: Whom it is for.
        name: What to do.
        parameters: With what.
        idempotent: It does no harm to do it twice.
        created: When it was accepted.
        deadline: By when the answer has to be there; it is not given to the device afterwards.
        by: Who has asked for it.
        state: See the table above.
        attempt: How often a connector has taken it up.
        sent, delivered, ended: When it was first so.
        via: The connector that took it up last.
        result: What the device answered, as JSON; empty while it did not.
        error: Why it failed.
    """

    id: str
    device: str
    name: str
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    idempotent: bool = False
    created: int
    deadline: int
    by: str = ""
    state: State = "queued"
    attempt: int = 0
    sent: int = 0
    delivered: int = 0
    ended: int = 0
    via: str = ""
    result: str = ""
    error: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it, but for a late reply."""
        return self.state in ENDED


def new(
    device: str,
    name: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    timeout: int = DEFAULT_TIMEOUT,
    idempotent: bool = False,
    by: str = "",
    id: str = "",
    created: int = 0,
) -> Command:
    """Return a command that nobody knows of yet.

    Args:
        device: Whom it is for.
        name: What to do.
        parameters: With what: anything that JSON can say.
        timeout: How long until the deadline, µs.
        idempotent: It does no harm to do it twice.
        by: Who asks for it.
        id: Of it; a new one by default.
        created: When it was asked for first, µs since the epoch UTC; now by default.

    Raises:
        BadField: one of them is wrong.
    """
    if len(name) > MAX_NAME_CHARS or not re.fullmatch(NAME, name):
        raise BadField(
            "name",
            f"{name[:80]!r} is no name of a command",
            f"1 to {MAX_NAME_CHARS} letters, digits and _ . -, the first a letter",
        )
    if name == CONFIGURE:
        rule = "another name; a configuration is kept, and given to the device until it has it"
        raise BadField("name", f"{name!r} is said by the platform alone", rule)
    if not SECOND <= timeout <= MAX_TIMEOUT:
        raise BadField("timeout", f"{timeout / SECOND:g} s", f"1 to {MAX_TIMEOUT // SECOND:,} s")
    encoded = as_json(parameters or {}, "parameters", MAX_PARAMETERS_BYTES)
    created = created or now_us()
    return Command(
        id=id or id_of(created),
        device=device,
        name=name,
        parameters=msgspec.Raw(encoded),
        idempotent=idempotent,
        created=created,
        deadline=created + timeout,
        by=by,
    )


def described(command: Command) -> dict[str, Any]:
    """Return what people and programs are told of a command: plain values, times as ISO 8601 or None."""
    return {
        "id": command.id,
        "device": command.device,
        "name": command.name,
        "parameters": msgspec.json.decode(command.parameters),
        "idempotent": command.idempotent,
        "by": command.by,
        "created": iso(command.created),
        "deadline": iso(command.deadline),
        "state": command.state,
        "attempts": command.attempt,
        "sent": iso(command.sent) if command.sent else None,
        "delivered": iso(command.delivered) if command.delivered else None,
        "ended": iso(command.ended) if command.ended else None,
        "via": command.via,
        "result": msgspec.json.decode(command.result) if command.result else None,
        "error": command.error,
    }


def as_json(value: object, field: str, most: int) -> bytes:
    """Encode what a person or a device has sent.

    Raises:
        BadField: it is too large, or has a number that JSON cannot say.
    """
    if not _is_finite(value):
        raise BadField(field, f"{field} has a number that is infinite or none", "numbers that JSON can say")
    try:
        encoded = msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadField(field, f"{field} cannot be written as JSON: {error}", "what JSON can say") from error
    if len(encoded) > most:
        raise BadField(field, f"{field} has {len(encoded):,} bytes as JSON", f"at most {most:,} bytes as JSON")
    return encoded


def _is_finite(value: object) -> bool:
    """Tell whether every number in a value is; looked at without recursion, for it is a stranger's."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case float() as number if not math.isfinite(number):
                return False
            case dict() as members:
                waiting += members.values()
            case list() as items:
                waiting += items
    return True


def id_of(created: int, seed: str = "") -> str:
    """Return an id that nothing else has, or with a seed the same each time; ids ascend with the time, µs."""
    return f"{created:014x}{seed[:10] or secrets.token_hex(5)}"


def is_id(text: str) -> bool:
    """Tell whether a text may be a command's id.

    >>> is_id(id_of(0)), is_id("../x")
    (True, False)
    """
    return _ID.fullmatch(text) is not None
