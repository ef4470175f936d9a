"""Users, of whom only an admin's token may know, and the API tokens of who asks."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from isotherm.client.exchange import Listing, Request, Steps, decoded, deleted, got, patched, segment, tagged
from isotherm.client.model import Role, Token, User


class _NewUser(msgspec.Struct):
    user: User
    password: str


class _Link(msgspec.Struct):
    url: str


def users() -> Listing[User]:
    """Go through users, ascending by name."""
    return Listing("/users", User)


def user(name: str) -> Steps[User]:
    """Return a user.

    Raises:
        NotFound: there is none.
    """
    return tagged((yield got(f"/users/{segment(name)}")), User)


def create_user(name: str, role: Role = "viewer") -> Steps[tuple[User, str]]:
    """Create a user; returns them with a password, which they must change at the first log-in.

    Raises:
        Invalid: it is no name.
        Conflict: somebody has the name.
    """
    made = decoded((yield _made("/users", {"name": name, "role": role})).body, _NewUser)
    return made.user, made.password


def update_user(user: User | str, *, role: Role | None = None, is_disabled: bool | None = None) -> Steps[User]:
    """Give a user another role, keep them out, or let them in again.

    Args:
        user: One that was read, which is refused when somebody else was faster; or a name.
        role: None leaves it.
        is_disabled: None leaves it.

    Raises:
        NotFound: there is none.
        Conflict: no admin would be left.
        PreconditionFailed: they have changed since they were read.
    """
    name, etag = (user, "") if isinstance(user, str) else (user.name, user.etag)
    change: dict[str, str | bool] = {} if role is None else {"role": role}
    change |= {} if is_disabled is None else {"is_disabled": is_disabled}
    return tagged((yield patched(f"/users/{segment(name)}", change, etag)), User)


def delete_user(user: User | str) -> Steps[None]:
    """Forget a user with their sessions and tokens.

    Raises:
        NotFound: there is none.
        Conflict: no admin would be left.
        PreconditionFailed: they have changed since they were read.
    """
    name, etag = (user, "") if isinstance(user, str) else (user.name, user.etag)
    yield deleted(f"/users/{segment(name)}", etag)


def reset_password(name: str) -> Steps[str]:
    """Return a link by which a user may choose a password, once, within a day.

    Raises:
        NotFound: there is none.
        Conflict: the identity provider keeps it.
    """
    return decoded((yield _made(f"/users/{segment(name)}/reset", {})).body, _Link).url


def invite(role: Role = "viewer") -> Steps[str]:
    """Return a link by which somebody may register, once, within seven days."""
    return decoded((yield _made("/invitations", {"role": role})).body, _Link).url


def tokens() -> Listing[Token]:
    """Go through the API tokens of who asks, ascending by id."""
    return Listing("/tokens", Token)


def create_token(name: str, scopes: Collection[str], *, days: int = 90) -> Steps[Token]:
    """Make an API token of who asks; what it is, is never shown again.

    Args:
        name: What it is for, in a few words.
        scopes: Such as ``series:read``; ``read`` and ``write`` stand for all of theirs.
        days: After which it is over.

    Raises:
        Forbidden: the token that asks has not all of these scopes, or ends earlier.
        Conflict: who asks is no user, or has too many.
    """
    return decoded((yield _made("/tokens", {"name": name, "scopes": sorted(scopes), "days": days})).body, Token)


def revoke_token(id: str) -> Steps[None]:
    """Make an API token of who asks invalid, from the next request on.

    Raises:
        NotFound: they have none.
    """
    yield deleted(f"/tokens/{segment(id)}")


def _made(path: str, body: dict[str, object]) -> Request:
    """Return a POST whose answer is a secret, so that nothing keeps it to answer a second one: it is sent once."""
    return Request(method="POST", path=path, body=msgspec.json.encode(body))
