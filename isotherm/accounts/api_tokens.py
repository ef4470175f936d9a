"""Tokens that programs show instead of logging in: each of one user, for some scopes, and over on a day that is known.

    | key                                   | type | content                                                        |
    |---------------------------------------|------|----------------------------------------------------------------|
    | ``iso:{accounts}:api-token:HASH``     | hash | id, user, name, scopes, created, expires (µs); expires with it |
    |                                       |      | one that is lent: user, role, scopes                           |
    | ``iso:{accounts}:api-tokens:NAME``    | set  | hashes of the user's tokens, some of which may be over         |

A token is 256 random bits, of which the store has the SHA-256 alone. What it may do is what its scopes say and its user may
do at the time: who takes a role from a user takes it from their tokens.

One that is lent has no user behind it: who may reach the store, and is trusted as an admin is, uses the API with it for as
long as one command of the command line takes.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass

from isotherm.accounts.role import Role
from isotherm.accounts.sessions import Holder, hash_of
from isotherm.accounts.users import PREFIX, Users
from isotherm.clock import now_us
from isotherm.errors import BadField, SettingsError
from isotherm.limits import DAY, MILLISECOND
from isotherm.store.client import Client
from isotherm.store.reader import answering

SCOPES = {
    "devices:read": Role.VIEWER,
    "devices:write": Role.OPERATOR,
    "device-tokens:write": Role.ADMIN,
    "series:read": Role.VIEWER,
    "commands:read": Role.VIEWER,
    "commands:write": Role.OPERATOR,
    "configuration:read": Role.VIEWER,
    "configuration:write": Role.OPERATOR,
    "firmware:read": Role.VIEWER,
    "firmware:write": Role.OPERATOR,
    "firmware-keys:write": Role.ADMIN,
    "alarms:read": Role.VIEWER,
    "alarms:write": Role.OPERATOR,
    "rules:read": Role.VIEWER,
    "rules:write": Role.OPERATOR,
    "rejects:read": Role.VIEWER,
    "rejects:write": Role.OPERATOR,
    "system:read": Role.VIEWER,
    "tokens:read": Role.VIEWER,
    "tokens:write": Role.VIEWER,
    "hosts:read": Role.VIEWER,
    "hosts:write": Role.ADMIN,
    "host-keys:write": Role.VIEWER,
    "users:read": Role.ADMIN,
    "users:write": Role.ADMIN,
}
"""Scope → least role of its user. ``read`` and ``write`` alone stand for all of theirs."""

MAX_TOKENS = 100
"""Of one user."""

MAX_DAYS = 366
DEFAULT_DAYS = 90
MAX_NAME_CHARS = 60
MARK = "iso_"
"""How a token begins, so that people and scanners of leaked secrets know what it is."""

_TOKEN = PREFIX + "api-token:"
_OF_USER = PREFIX + "api-tokens:"


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token, without what only its owner knows; times are µs since the epoch UTC."""

    id: str
    user: str
    name: str
    scopes: frozenset[str]
    created: int
    expires: int


class ApiTokens:
    """Makes, finds and revokes them. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis
        self._users = Users(redis)

    async def create(self, user: str, name: str, scopes: Collection[str], days: int = DEFAULT_DAYS) -> tuple[str, ApiToken]:
        """Make a token; returns it, which nobody else ever learns, and what is kept of it.

        Args:
            user: Whose it is.
            name: What it is for, in a few words.
            scopes: Of SCOPES, or ``read`` or ``write`` for all of these.
            days: After which it is over, 1 to MAX_DAYS.

        Raises:
            BadField: one of these is wrong.
            SettingsError: there is no such user, or they have MAX_TOKENS.
        """
        if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
            raise BadField("name", f"the name has {len(name)} characters, expected 1 to {MAX_NAME_CHARS} that can be read")
        if not 1 <= days <= MAX_DAYS:
            raise BadField("days", f"days is {days}, expected 1 to {MAX_DAYS}")
        owner = await self._users.existing(user)
        token, now = MARK + secrets.token_urlsafe(32), now_us()
        made = ApiToken(secrets.token_hex(4), owner.name, name, expanded(scopes), now, now + days * DAY)
        if len(await self.of(owner.name)) >= MAX_TOKENS:
            raise SettingsError(f"{owner.name} has {MAX_TOKENS} tokens; revoke one that is not used")
        key = _TOKEN + hash_of(token)
        with answering():
            async with self._redis.pipeline(transaction=True) as writing:
                writing.hset(key, mapping=_fields(made))
                writing.pexpireat(key, made.expires // MILLISECOND)
                writing.sadd(_OF_USER + owner.name, hash_of(token))
                await writing.execute()
        return token, made

    async def lend(self, name: str, scopes: Collection[str], seconds: int) -> str:
        """Make a token of no user, with the least role that its scopes need; returns it.

        Args:
            name: Whom the audit log names; one that no user can have.
            scopes: Of SCOPES, or ``read`` or ``write`` for all of these.
            seconds: After which it is over, if it is not given back.

        Raises:
            BadField: a scope is none.
        """
        meant = expanded(scopes)
        role = max(SCOPES[scope] for scope in meant)
        token = MARK + secrets.token_urlsafe(32)
        key = _TOKEN + hash_of(token)
        with answering():
            async with self._redis.pipeline(transaction=True) as writing:
                writing.hset(key, mapping={"user": name, "role": role.word, "scopes": " ".join(sorted(meant))})
                writing.expire(key, seconds)
                await writing.execute()
        return token

    async def give_back(self, token: str) -> None:
        """Make a token that was lent invalid, from the next request on."""
        with answering():
            await self._redis.delete(_TOKEN + hash_of(token))

    async def find(self, token: str) -> tuple[Holder, frozenset[str]] | None:
        """Return whose a token is with what they may do now, and its scopes; None when it is over, or never was."""
        hashed = hash_of(token)
        with answering():
            fields = await self._redis.hgetall(_TOKEN + hashed)
        if not fields:
            return None
        if (role := fields.get(b"role")) is not None:
            return Holder(hashed, fields[b"user"].decode(), Role.of(role.decode())), _scopes(fields)
        held = _read(fields)
        user = await self._users.get(held.user)
        if user is None or user.is_disabled or held.created < user.created:
            return None  # another user may have come to the name since
        return Holder(hashed, user.name, user.role, user.must_change), held.scopes

    async def by_hash(self, hashed: str) -> ApiToken | None:
        """Return the token of a user with this SHA-256; None when it is over, or was lent."""
        with answering():
            fields = await self._redis.hgetall(_TOKEN + hashed)
        return _read(fields) if fields and b"role" not in fields else None

    async def of(self, user: str) -> list[ApiToken]:
        """Return the tokens of a user, newest first; forgets those that are over."""
        found = (await self._held(user)).values()
        return sorted(found, key=lambda one: (one.created, one.id), reverse=True)

    async def revoke(self, user: str, id: str) -> ApiToken:
        """Make a token invalid, from the next request on; returns it.

        Raises:
            SettingsError: the user has none with this id.
        """
        for hashed, token in (await self._held(user)).items():
            if token.id == id:
                with answering():
                    async with self._redis.pipeline(transaction=True) as writing:
                        writing.delete(_TOKEN + hashed)
                        writing.srem(_OF_USER + user, hashed)
                        await writing.execute()
                return token
        raise SettingsError(f"{user} has no token {id[:40]!r}; see: isotherm tokens list {user}")

    async def _held(self, user: str) -> dict[str, ApiToken]:
        """Return hash → token of a user; forgets those that are over."""
        found = {}
        with answering():
            for member in await self._redis.smembers(_OF_USER + user):
                hashed = member.decode()
                fields = await self._redis.hgetall(_TOKEN + hashed)
                if fields:
                    found[hashed] = _read(fields)
                else:
                    await self._redis.srem(_OF_USER + user, hashed)
        return found


def expanded(scopes: Collection[str]) -> frozenset[str]:
    """Return the scopes that are meant.

    Raises:
        BadField: one is none, or there is none.

    >>> sorted(expanded(["write", "series:read"]))  # doctest: +NORMALIZE_WHITESPACE
    ['alarms:write', 'commands:write', 'configuration:write', 'device-tokens:write', 'devices:write',
     'firmware-keys:write', 'firmware:write', 'rejects:write', 'rules:write', 'series:read', 'tokens:write', 'users:write']
    """
    found: set[str] = set()
    for one in scopes:
        meant = {scope for scope in SCOPES if one in (scope, scope.partition(":")[2])}
        if not meant:
            raise BadField("scopes", f"{one[:40]!r} is no scope, expected read, write, {', '.join(SCOPES)}")
        found |= meant
    if not found:
        raise BadField("scopes", "a token without a scope may do nothing; give it at least one")
    return frozenset(found)


def _fields(token: ApiToken) -> dict[str, str | int]:
    return {
        "id": token.id,
        "user": token.user,
        "name": token.name,
        "scopes": " ".join(sorted(token.scopes)),
        "created": token.created,
        "expires": token.expires,
    }


def _read(fields: dict[bytes, bytes]) -> ApiToken:
    id, user, name = (fields[field].decode() for field in (b"id", b"user", b"name"))
    return ApiToken(id, user, name, _scopes(fields), int(fields[b"created"]), int(fields[b"expires"]))


def _scopes(fields: dict[bytes, bytes]) -> frozenset[str]:
    return frozenset(fields[b"scopes"].decode().split())
