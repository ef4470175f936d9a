"""Who looks at a page: the user whom the guard has found behind a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import panel as pn

from dashboards.access import identity
from isotherm.accounts.role import Role
from isotherm.errors import IsothermError, Unauthorized


class NotAllowed(IsothermError):
    """A visitor's role does not let them do this, or their token's scopes do not.

    Attributes:
        what: Which of them: ``role`` or ``scope``.
    """

    def __init__(self, text: str, what: str = "role") -> None:
        super().__init__(text)
        self.what = what


@dataclass(frozen=True, slots=True)
class Visitor:
    """A user, as pages see one.

    Attributes:
        name: The account's name.
        role: What they may do.
        session: Hash of their session, or ``local`` where nobody has to log in.
        form_token: What a form of this page must carry.
        address: Where the request came from.
    """

    name: str
    role: Role
    session: str = ""
    form_token: str = ""
    address: str = ""

    @property
    def is_local(self) -> bool:
        """Whether this is whoever sits at the machine, and no account."""
        return self.session == identity.LOCAL.session

    def may(self, role: Role) -> bool:
        """Tell whether the visitor may do what this role may."""
        return self.role >= role

    def must(self, role: Role, what: str) -> None:
        """See that the visitor may do what this role may.

        Raises:
            NotAllowed: they may not.
        """
        if not self.may(role):
            raise NotAllowed(
                f"{self.name} is {_with_article(self.role)} and may not {what}; {_with_article(role)} may: ask one"
            )


def visitor() -> Visitor:
    """Return who looks at the page that is being built; call it while the page is built, and keep it.

    Raises:
        Unauthorized: the request has not passed the guard.
    """
    return visitor_of(pn.state.headers)


def visitor_of(headers: Mapping[str, str]) -> Visitor:
    """Return who makes a request, by its headers.

    Raises:
        Unauthorized: the request has not passed the guard.
    """
    found = identity.read(headers)
    if found is None:
        raise Unauthorized("nobody is behind this request: it has not passed the guard")
    return Visitor(*found)


def _with_article(role: Role) -> str:
    name = role.name.lower()
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
