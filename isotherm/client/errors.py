"""What may go wrong for a program that uses the API.

ClientError
├── Unavailable             no answer, or 502, 503 or 504, also after trying again
├── NotUnderstood           an answer that is none of Isotherm's: another server, or a proxy's page
└── Refused                 the platform says no (problem+json, RFC 9457): status, detail, faults
    ├── Invalid             400, 413, 415, 422: what was sent is wrong; its faults say which field, value and rule
    ├── Unauthenticated     401: no token, or one that is not valid
    ├── Forbidden           403: not with this token, or its user's role
    ├── NotFound            404, 405
    ├── Conflict            409
    │   └── PreconditionFailed   412: it has changed since it was read, or is there already
    ├── RateLimited         429, also after waiting
    └── ServerFailed        500 and above
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from isotherm import errors


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with one field.

    Attributes:
        field: Its name; of nested ones with dots.
        value: What was sent, where it is short.
        rule: What it should be.
    """

    field: str
    rule: str
    value: Any = None


class ClientError(errors.IsothermError):
    """The root."""


class Unavailable(ClientError, errors.Unavailable):
    """The platform does not answer, or cannot now.

    Attributes:
        retry_after: s after which it asks to be tried again; 0 when it did not say.
    """

    def __init__(self, text: str, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class NotUnderstood(ClientError):
    """What came back is no answer of Isotherm's."""


class Refused(ClientError):
    """The platform says no; nothing of what was asked for was done.

    Attributes:
        status: HTTP's.
        detail: Why, in words.
        faults: Which fields are wrong.
        retry_after: s after which it may be tried again; 0 when that is not said.
    """

    def __init__(self, status: int, detail: str, faults: Sequence[Fault] = (), retry_after: float = 0.0) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.faults = tuple(faults)
        self.retry_after = retry_after


class Invalid(Refused):
    """What was sent is wrong."""

    @property
    def field(self) -> str:
        """The first field that is wrong, or nothing."""
        return self.faults[0].field if self.faults else ""


class Unauthenticated(Refused):
    """No valid token was shown."""


class Forbidden(Refused):
    """The token, or the role of its user, does not allow it."""


class NotFound(Refused):
    """There is no such thing."""


class Conflict(Refused):
    """It is not as the request supposes."""


class PreconditionFailed(Conflict):
    """It has changed since it was read, or is there already: read it again."""


class RateLimited(Refused):
    """This token has made too many requests."""


class ServerFailed(Refused):
    """An error of the platform's own, which is in its log."""


_OF_STATUS: dict[int, type[Refused]] = {
    400: Invalid,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    405: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    429: RateLimited,
}


def refused(status: int, detail: str, faults: Sequence[Fault] = (), retry_after: float = 0.0) -> Refused:
    """Return the error that a status stands for."""
    kind = _OF_STATUS.get(status, ServerFailed if status >= 500 else Refused)
    return kind(status, detail, faults, retry_after)
