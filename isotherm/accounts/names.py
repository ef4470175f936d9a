"""How a user may be called, and which passwords are none (RFC 8265, with NFKC where it maps widths)."""

from __future__ import annotations

import unicodedata

from isotherm.errors import BadField

MAX_NAME_CHARS = 64
MIN_PASSWORD_CHARS = 10
MAX_PASSWORD_CHARS = 256
MIN_DIFFERENT_CHARS = 5

_ALSO = "._-@+"
_TAKEN = {"local", "system"}
"""Who is called so is no account: the visitor of a stack without log-in, and Isotherm itself."""


def user_name(text: str) -> str:
    """Return a name in the one form that it is kept in: whoever types it in another case or composition means the same.

    Raises:
        BadField: it is no name.

    >>> user_name("Zoe\u0308"), user_name("ADA@example.org")
    ('zoë', 'ada@example.org')
    """
    name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.strip()).casefold())
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        raise BadField("name", f"a name has 1 to {MAX_NAME_CHARS} characters, this one has {len(name)}")
    if not name[0].isalnum() or not all(one.isalnum() or one in _ALSO or unicodedata.combining(one) for one in name):
        raise BadField("name", f"a name consists of letters, digits and {' '.join(_ALSO)}, the first a letter or digit")
    if name in _TAKEN:
        raise BadField("name", f"{name} is no name for an account; choose another")
    return name


def password(text: str, name: str, field: str = "password") -> str:
    """Return a password that may be chosen.

    Raises:
        BadField: it is too short, too long, or easily guessed.
    """
    if len(text) < MIN_PASSWORD_CHARS:
        raise BadField(field, f"a password has at least {MIN_PASSWORD_CHARS} characters, this one has {len(text)}")
    if len(text) > MAX_PASSWORD_CHARS:
        raise BadField(field, f"a password has at most {MAX_PASSWORD_CHARS} characters")
    if len(set(text)) < MIN_DIFFERENT_CHARS or "\0" in text:
        raise BadField(field, f"a password has at least {MIN_DIFFERENT_CHARS} different characters")
    if name in text.casefold() and len(text) - len(name) < MIN_PASSWORD_CHARS // 2:
        raise BadField(field, "the password is the name, or nearly; choose another")
    return text
