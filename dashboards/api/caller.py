"""Who makes a request, and whether their role and the scopes of their token let them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import Depends
from fastapi.requests import HTTPConnection
from fastapi.security import APIKeyCookie, HTTPBearer

from dashboards.access import cookies, identity
from dashboards.visitor import NotAllowed, Visitor, visitor_of
from isotherm.accounts.api_tokens import SCOPES
from isotherm.accounts.audit import Audit
from isotherm.errors import Unavailable

log = logging.getLogger(__name__)

SCHEMES = [
    Depends(HTTPBearer(auto_error=False, description="A token: isotherm tokens create USER --scope read")),
    Depends(APIKeyCookie(name=cookies.SESSION, auto_error=False, description="The session of who is logged in.")),
]
"""What the description says of them; the guard has looked at them before."""


def may(scope: str) -> Any:
    """Return what lets a route be used by who has a scope, and gives it the Visitor: ``Annotated[Visitor, may(…)]``."""
    return Depends(_check(scope))


def check(connection: HTTPConnection, scope: str) -> Visitor:
    """Return who makes a request, or opens a websocket, that needs a scope.

    Raises:
        NotAllowed: their token has it not, or their role is less than what it needs.
    """
    visitor = visitor_of(connection.headers)
    scopes = identity.scopes(connection.headers)
    if scopes is not None and scope not in scopes:
        raise NotAllowed(f"this token may not do that: it has the scopes {' '.join(sorted(scopes))}, not {scope}", "scope")
    visitor.must(SCOPES[scope], f"do what the scope {scope} is for")
    return visitor


async def note(audit: Audit, connection: HTTPConnection, error: NotAllowed) -> None:
    """Keep in the audit log that somebody was refused what they may not do, if the store can be reached."""
    who = visitor_of(connection.headers)
    path = connection.scope["path"]
    try:
        await audit.refuse(who.name, error.what, path, address=who.address, detail=str(error), is_shown=True)
    except Unavailable as away:
        log.warning("not in the audit log, as %s: %s at %s: %s", away, who.name, path, error)


def _check(scope: str) -> Callable[[HTTPConnection], Visitor]:
    def check_scope(connection: HTTPConnection) -> Visitor:
        return check(connection, scope)

    return check_scope
