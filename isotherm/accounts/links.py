"""Links that work once: an invitation to register, and the reset of a password.

``iso:{accounts}:link:HASH`` is a string (JSON) that expires. A link is taken by one command, so that of two who follow it
at the same time one is too late. Only the SHA-256 of its secret is kept.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Literal

import msgspec

from isotherm.accounts.users import PREFIX
from isotherm.errors import BadField
from isotherm.store.client import Client
from isotherm.store.reader import answering

INVITE_SECONDS = 7 * 86_400
RESET_SECONDS = 86_400

OVER = "this link is over or was used; ask an admin for another"

_LINK = PREFIX + "link:"
_BYTES = 24

Kind = Literal["invite", "reset"]
_PATHS: dict[str, str] = {"invite": "/register", "reset": "/reset"}


@dataclass(frozen=True, slots=True)
class Link:
    """What a link is good for.

    Attributes:
        kind: An invitation or a reset.
        name: Whose password may be reset; empty with an invitation.
        role: The role of who registers; empty with a reset.
        by: Who made it.
        account: With a reset, as which the account was (`User.state`): it is of no use to one that has changed since.
    """

    kind: Kind
    name: str
    role: str
    by: str
    account: str = ""


class Links:
    """Makes and takes links. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis

    async def make(self, link: Link) -> str:
        """Keep a link; returns the path that it leads to."""
        secret = secrets.token_urlsafe(_BYTES)
        seconds = INVITE_SECONDS if link.kind == "invite" else RESET_SECONDS
        with answering():
            async with self._redis.pipeline(transaction=True) as writing:
                writing.set(_key(secret), msgspec.json.encode(link), ex=seconds)
                await writing.execute()
        return f"{_PATHS[link.kind]}?link={secret}"

    async def look(self, secret: str, kind: Kind) -> Link | None:
        """Return what a link is good for, or None when it is over, was used, or is of another kind."""
        with answering():
            return _read(await self._redis.get(_key(secret)), kind)

    async def take(self, secret: str, kind: Kind) -> Link:
        """Use a link up.

        Raises:
            BadField: it is over, or was used.
        """
        with answering():
            link = _read(await self._redis.getdel(_key(secret)), kind)
        if link is None:
            raise BadField("link", OVER)
        return link


def _key(secret: str) -> str:
    return _LINK + hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _read(raw: bytes | None, kind: Kind) -> Link | None:
    link = None if raw is None else msgspec.json.decode(raw, type=Link)
    return link if link is not None and link.kind == kind else None
