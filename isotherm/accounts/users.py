"""The users and their roles.

    | key                          | type | content                                                              |
    |------------------------------|------|----------------------------------------------------------------------|
    | ``iso:{accounts}:users``     | zset | name → when the user was created, µs                                 |
    | ``iso:{accounts}:user:NAME`` | hash | role, password (argon2id), disabled, must_change, subject, logged_in |
    | ``iso:{accounts}:admins``    | set  | admins who are not disabled and have a password of ours              |

Every change is one script, so that two admins who demote each other at the same time do not leave the place without one.
A user of an identity provider has a subject and no password, and is not counted as the one admin: the provider says at each
log-in what they may do, and may be away.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from isotherm.accounts.role import Role
from isotherm.clock import now_us
from isotherm.errors import BadField, Changed, SettingsError
from isotherm.store.client import Client
from isotherm.store.reader import answering
from isotherm.store.script import Script

PREFIX = "iso:{accounts}:"
USER = PREFIX + "user:"

_USERS = PREFIX + "users"
_ADMINS = PREFIX + "admins"


@dataclass(frozen=True, slots=True)
class User:
    """A user.

    Attributes:
        name: In the form of `names.user_name`.
        role: What they may do.
        created: µs since the epoch UTC.
        password: Its hash, or empty.
        is_disabled: Whether they are kept out.
        must_change: Whether the password was given to them, so that they have to choose one first.
        subject: Who they are for the identity provider (see `oidc`), or empty.
        logged_in: When they did last, µs since the epoch UTC, or 0.
    """

    name: str
    role: Role
    created: int = 0
    password: str = ""
    is_disabled: bool = False
    must_change: bool = False
    subject: str = ""
    logged_in: int = 0

    @property
    def state(self) -> str:
        """What is another text when the password is another, or somebody else has the name."""
        return hashlib.sha256(f"{self.created}\0{self.password}".encode()).hexdigest()[:32]


class Users:
    """Reads and changes users. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis
        self._script = Script(redis, "users.lua", package=__package__)

    async def get(self, name: str) -> User | None:
        """Return a user, or None when there is no such."""
        with answering():
            created = await self._redis.zscore(_USERS, name)
            fields = await self._redis.hgetall(USER + name)
        return None if created is None or not fields else _read(name, int(created), fields)

    async def existing(self, name: str) -> User:
        """Return a user.

        Raises:
            SettingsError: there is no such.
        """
        user = await self.get(name)
        if user is None:
            raise _absent(name)
        return user

    async def all(self) -> list[User]:
        """Return every user, ascending by name."""
        with answering():
            names = sorted(name.decode() for name in await self._redis.zrange(_USERS, 0, -1))
        found = [await self.get(name) for name in names]
        return [user for user in found if user is not None]

    async def count(self) -> int:
        """Return how many there are."""
        with answering():
            return await self._redis.zcard(_USERS)

    async def create(self, user: User, *, only_if_first: bool = False) -> bool:
        """Enter a user; returns whether that was done.

        Args:
            user: The user; when they were created is set here.
            only_if_first: Do it when there is no user at all, and nothing else.

        Raises:
            BadField: somebody has the name already.
        """
        fields: dict[str, str | int] = {
            "role": user.role.word,
            "password": user.password,
            "disabled": int(user.is_disabled),
            "must_change": int(user.must_change),
            "subject": user.subject,
        }
        answer = await self._run("first" if only_if_first else "create", user.name, fields)
        if answer == "taken" and not only_if_first:
            raise BadField("name", f"there is a user {user.name} already; choose another name")
        return answer == "done"

    async def change(
        self,
        name: str,
        *,
        role: Role | None = None,
        is_disabled: bool | None = None,
        subject: str | None = None,
        seen: User | None = None,
    ) -> None:
        """Change what is not None.

        Args:
            name: Whose.
            role: What they may do.
            is_disabled: Whether they are kept out.
            subject: Who they are for the identity provider.
            seen: As the user has to be for that; None whatever they are.

        Raises:
            SettingsError: there is no such user, or no admin would be left.
            Changed: they are not as they were seen.
        """
        fields: dict[str, str | int] = {}
        if role is not None:
            fields["role"] = role.word
        if is_disabled is not None:
            fields["disabled"] = int(is_disabled)
        if subject is not None:
            fields["subject"] = subject
        await self._run("change", name, fields, seen)

    async def set_password(self, name: str, hashed: str, *, must_change: bool = False) -> None:
        """Give a user another password.

        Raises:
            SettingsError: there is no such user.
        """
        await self._run("change", name, {"password": hashed, "must_change": int(must_change)})

    async def note_log_in(self, name: str) -> None:
        """Keep that a user has logged in now."""
        await self._run("change", name, {"logged_in": now_us()})

    async def remove(self, name: str, *, seen: User | None = None) -> None:
        """Forget a user.

        Args:
            name: Who.
            seen: As they have to be for that; None whatever they are.

        Raises:
            SettingsError: there is no such user, or no admin would be left.
            Changed: they are not as they were seen.
        """
        await self._run("remove", name, {}, seen)

    async def _run(self, what: str, name: str, fields: dict[str, str | int], seen: User | None = None) -> str:
        expected = {} if seen is None else _expected(seen)
        pairs = [part for pair in (*expected.items(), *fields.items()) for part in pair]
        arguments = [what, name, now_us(), len(expected), *pairs]
        with answering():
            answer = (await self._script([_USERS, USER + name, _ADMINS], arguments)).decode()
        if answer == "changed":
            raise Changed(f"user {name} was changed meanwhile")
        if answer == "absent":
            raise _absent(name)
        if answer == "last":
            raise SettingsError(f"{name} is the last admin; make somebody else admin first")
        return str(answer)


def _expected(user: User) -> dict[str, str | int]:
    """Return what is kept of a user that people see and change."""
    return {
        "role": user.role.word,
        "disabled": int(user.is_disabled),
        "must_change": int(user.must_change),
        "subject": user.subject,
    }


def _absent(name: str) -> SettingsError:
    return SettingsError(f"there is no user {name!r}; see `isotherm users list`")


def _read(name: str, created: int, fields: dict[bytes, bytes]) -> User:
    return User(
        name,
        Role.of(fields[b"role"].decode()),
        created,
        fields.get(b"password", b"").decode(),
        fields.get(b"disabled") == b"1",
        fields.get(b"must_change") == b"1",
        fields.get(b"subject", b"").decode(),
        int(fields.get(b"logged_in", 0)),
    )
