"""The cookies, and the token that a form carries.

``__Host-``: a browser takes such a cookie only with Secure, for the whole host and no other, so that no neighbouring host
can plant one. Over plain HTTP Chromium and Firefox keep Secure cookies of localhost, Safari does not; elsewhere a proxy with
TLS is needed. The token of a form is a MAC of the cookie: another site cannot read the cookie, and so cannot make it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

SESSION = "__Host-isotherm"
"""Holds the id of the session."""

FORM = "__Host-isotherm-form"
"""Random; forms are bound to it while nobody is logged in."""

_ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Lax"
# Lax, not Strict: a link in a mail should not end at the log-in, nor the way back from an identity provider.


def read(header: str, name: str) -> str:
    """Return the value of a cookie in a Cookie header, or an empty text; of two with one name, neither."""
    found = [value for one, _, value in (part.strip().partition("=") for part in header.split(";")) if one == name]
    return found[0] if len(found) == 1 else ""


def set_cookie(name: str, value: str) -> str:
    """Return a Set-Cookie header of a cookie that lasts as long as the browser does."""
    return f"{name}={value}; {_ATTRIBUTES}"


def drop_cookie(name: str) -> str:
    """Return a Set-Cookie header that removes a cookie."""
    return f"{name}=; {_ATTRIBUTES}; Max-Age=0"


def new_form_cookie() -> str:
    """Return a value for the cookie FORM."""
    return secrets.token_urlsafe(24)


def form_token(cookie: str) -> str:
    """Return the token of forms that go with a cookie's value."""
    return hmac.new(cookie.encode("utf-8", "surrogatepass"), b"isotherm form", hashlib.sha256).hexdigest()


def is_form_token(token: str, cookie: str) -> bool:
    """Tell whether a token goes with a cookie's value, which must not be empty."""
    return bool(cookie) and hmac.compare_digest(token.encode("utf-8", "surrogatepass"), form_token(cookie).encode())
