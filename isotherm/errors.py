"""Every error that Isotherm raises on purpose.

    IsothermError
    ├── SettingsError      a setting, argument or name is wrong; nothing was started
    │   ├── BadField       one field of what a person describes is; carries the field
    │   └── Changed        somebody else was faster: it is not as it was seen
    ├── StackError         the local stack cannot start, or is not running
    ├── InvalidReading     a reading cannot be accepted; carries the reason that `rejects` counts
    ├── Unauthorized       a peer did not show who it is
    │   └── Throttled      it has tried too often; carries how long it has to wait
    ├── Unavailable        Kafka or Redis is away; the same call may succeed later
    ├── AnalyticFailed     an analytic cannot go on: its code is wrong
    ├── LogConflict        the store and the Kafka log contradict each other; a person has to decide
    └── ClientError        in a program that uses the REST API; isotherm/client/errors.py draws its branches

Inside, these travel as they are. Each edge translates once: the command line to one line and an exit code, a connector
to the error of its protocol.
"""

from __future__ import annotations


class IsothermError(Exception):
    """The root; its text says what happened, why, and how to mend it."""


class SettingsError(IsothermError):
    """A setting, an argument or a name is wrong."""


class BadField(SettingsError):
    """A field of what a person describes, in a form or as an argument, is wrong.

    Attributes:
        field: Its name; empty when several fields contradict each other.
        expected: What it should be, or why it cannot be this, without what it is: the person sees that.
    """

    def __init__(self, field: str, text: str, expected: str = "") -> None:
        super().__init__(text)
        self.field = field
        self.expected = expected or text


class Changed(SettingsError):
    """Something is not as it was seen by who wants to change it; nothing was done."""


class StackError(IsothermError):
    """The local stack cannot start or is not running."""


class InvalidReading(IsothermError):
    """A reading that cannot be accepted.

    Attributes:
        reason: One word that rejects are counted by, such as ``malformed``.
        detail: What was got and what was expected.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Unauthorized(IsothermError):
    """A peer did not show who it is, or is another than it says."""


class Throttled(Unauthorized):
    """A peer has tried too often.

    Attributes:
        seconds: After which it may try again.
    """

    def __init__(self, text: str, seconds: int) -> None:
        super().__init__(text)
        self.seconds = seconds


class Unavailable(IsothermError):
    """A server that we need does not answer; try again later."""


class AnalyticFailed(IsothermError):
    """An analytic raised, hung, or cannot be loaded."""


class LogConflict(IsothermError):
    """The store's progress and the Kafka log cannot both be right."""


def first_of(group: BaseExceptionGroup[BaseException]) -> IsothermError:
    """Return the error of ours among those that ended a task group; raises the group when there is none."""
    ours = group.subgroup(IsothermError)
    while ours is not None:
        for error in ours.exceptions:
            if isinstance(error, IsothermError):
                return error
            if isinstance(error, BaseExceptionGroup):
                ours = error
    raise group
