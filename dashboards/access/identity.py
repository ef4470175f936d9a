"""Who is behind a request, and the headers by which pages are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote

from bokeh.util.token import get_token_payload

from dashboards.access import cookies
from isotherm.accounts.role import Role
from isotherm.accounts.sessions import Holder, Sessions, hash_of

USER, ROLE, SESSION, FORM, ADDRESS = (f"X-Isotherm-{name}" for name in ("User", "Role", "Session", "Form", "Address"))
SCOPES = "X-Isotherm-Scopes"
"""Of the token that a request shows; without one, it may do what its user may."""

HEADERS = (USER, ROLE, SESSION, FORM, ADDRESS)

CLAIM = "visitor"
"""What the token of a page calls the first three, signed: the page's websocket must be of the same session."""

LOCAL = Holder("local", "local", Role.ADMIN)
"""Everybody, where nobody has to log in."""

PREFIX = "x-isotherm-"

NOBODY = {USER: "", ROLE: Role.VIEWER.word, SESSION: "nobody", FORM: "", ADDRESS: ""}
"""For the places of a page, which are the same for all visitors."""


async def identify(sessions: Sessions | None, cookie_header: str) -> tuple[Holder | None, bool]:
    """Return who is logged in, and whether a cookie was shown that is of nobody.

    Raises:
        Unavailable: the store does not answer.
    """
    if sessions is None:
        return LOCAL, False
    identity = cookies.read(cookie_header, cookies.SESSION)
    if not identity:
        return None, False
    holder = await sessions.find(hash_of(identity))
    return holder, holder is None


def without_identity(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request without those that only we may set."""
    return [(name, value) for name, value in headers if not name.lower().replace(b"_", b"-").startswith(PREFIX.encode())]


def as_headers(holder: Holder, cookie_header: str, address: str) -> list[tuple[bytes, bytes]]:
    """Return the headers that tell a page who looks at it."""
    cookie = cookies.read(cookie_header, cookies.SESSION if holder is not LOCAL else cookies.FORM)
    form_token = cookies.form_token(cookie) if cookie else ""
    values = (quote(holder.name), holder.role.word, holder.session, form_token, address)
    return [(name.lower().encode(), value.encode()) for name, value in zip(HEADERS, values, strict=True)]


def read(headers: Mapping[str, str]) -> tuple[str, Role, str, str, str] | None:
    """Return name, role, session hash, form token and address from the headers of a request, or None."""
    lower = {name.lower(): value for name, value in headers.items()}
    if USER.lower() not in lower:
        return None
    return (
        unquote(lower[USER.lower()]),
        Role.of(lower[ROLE.lower()]),
        lower[SESSION.lower()],
        lower.get(FORM.lower(), ""),
        lower.get(ADDRESS.lower(), ""),
    )


def scopes(headers: Mapping[str, str]) -> frozenset[str] | None:
    """Return what the token of a request is for, or None when it has shown none."""
    value = headers.get(SCOPES.lower())
    return None if value is None else frozenset(value.split())


def shown(headers: Mapping[str, str]) -> list[str]:
    """Return what the token of a page says of who asked for it."""
    return [headers.get(name.lower(), "") for name in (USER, ROLE, SESSION)]


def is_of(subprotocols: Iterable[str], holder: Holder) -> bool:
    """Tell whether the page that opens a websocket was made for the same session, user and role.

    Bokeh sends the token of the page as the second subprotocol; that its signature is ours it checks itself, after this.
    """
    tokens = list(subprotocols)
    if len(tokens) != 2 or tokens[0] != "bokeh":
        return False
    try:
        claim = get_token_payload(tokens[1])[CLAIM]
    except Exception:  # noqa: BLE001  # whatever a stranger sends: base64, zlib, JSON, and types that are others
        return False
    return bool(claim == [quote(holder.name), holder.role.word, holder.session])
