"""Who is logged in: sessions on the server's side.

    | key                               | type    | content                                                      |
    |-----------------------------------|---------|--------------------------------------------------------------|
    | ``iso:{accounts}:session:HASH``   | hash    | user, created, seen, expires (ms), address, agent            |
    | ``iso:{accounts}:sessions:NAME``  | set     | hashes of the user's sessions, some of which may be over     |
    | ``iso:{accounts}:kick``           | channel | hash of a session whose open pages must end                  |

The browser holds 256 random bits, the store their SHA-256. What the user may do is looked up at each request: it is not kept
in the session. The channel may lose a message; whoever holds a page open looks its session up now and then as well.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass

from isotherm.accounts.role import Role
from isotherm.accounts.users import PREFIX, USER
from isotherm.store.client import Client
from isotherm.store.reader import answering
from isotherm.store.script import Script

KICKS = PREFIX + "kick"

ID_BYTES = 32
NOTED_MS = 60_000
"""A session's use is noted at most so often: a request is otherwise no write."""

MAX_SESSIONS = 50
"""Of one user; the oldest ends when there are more."""

_SESSION = PREFIX + "session:"
_OF_USER = PREFIX + "sessions:"
_HOUR_MS = 3_600_000
_MAX_AGENT_CHARS = 200


@dataclass(frozen=True, slots=True)
class Holder:
    """Who a session belongs to.

    Attributes:
        session: Hash of its id.
        name: The user.
        role: What they may do now.
        must_change: Whether they must choose a password before anything else.
    """

    session: str
    name: str
    role: Role
    must_change: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """A session, as its user sees it; times are ms since the epoch UTC."""

    hash: str
    created: int
    seen: int
    expires: int
    address: str
    agent: str


class Sessions:
    """Begins, looks up and ends sessions. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client, *, idle_hours: float, hours: float) -> None:
        """Prepare.

        Args:
            redis: The store.
            idle_hours: A session that is not used for so long is over.
            hours: So is one that has been open for so long.
        """
        self._redis = redis
        self._idle_ms = int(idle_hours * _HOUR_MS)
        self._most_ms = int(hours * _HOUR_MS)
        self._script = Script(redis, "session.lua", package=__package__)

    async def begin(self, name: str, *, address: str, agent: str) -> str:
        """Begin a session; returns its id, which nobody else ever learns."""
        identity = secrets.token_urlsafe(ID_BYTES)
        hashed, now = hash_of(identity), _now_ms()
        fields: dict[str, str | int] = {
            "user": name,
            "created": now,
            "seen": now,
            "expires": now + self._most_ms,
            "address": address,
            "agent": agent[:_MAX_AGENT_CHARS],
        }
        with answering():
            async with self._redis.pipeline(transaction=True) as writing:
                writing.hset(_SESSION + hashed, mapping=fields)
                writing.pexpire(_SESSION + hashed, min(self._idle_ms, self._most_ms))
                writing.sadd(_OF_USER + name, hashed)
                writing.pexpire(_OF_USER + name, self._most_ms)
                await writing.execute()
        for old in (await self.of(name))[MAX_SESSIONS:]:
            await self.end(name, old.hash)
        return identity

    async def find(self, hashed: str) -> Holder | None:
        """Return who the session with this hash belongs to, or None when it is over."""
        with answering():
            arguments = [_now_ms(), self._idle_ms, min(NOTED_MS, self._idle_ms // 2), USER]
            answer = await self._script([_SESSION + hashed], arguments)
        if answer is None:
            return None
        name, role, must_change = (part.decode() for part in answer)
        return Holder(hashed, name, Role.of(role), must_change == "1")

    async def of(self, name: str) -> list[Session]:
        """Return the open sessions of a user, the one that was used last first; forgets those that are over."""
        found: list[Session] = []
        with answering():
            for member in await self._redis.smembers(_OF_USER + name):
                hashed = member.decode()
                fields = await self._redis.hgetall(_SESSION + hashed)
                if fields:
                    found.append(_read(hashed, fields))
                else:
                    await self._redis.srem(_OF_USER + name, hashed)
        return sorted(found, key=lambda one: one.seen, reverse=True)

    async def end(self, name: str, hashed: str) -> bool:
        """End a session of a user; returns whether it was one."""
        with answering():
            if await self._redis.hget(_SESSION + hashed, "user") != name.encode():
                return False
            async with self._redis.pipeline(transaction=True) as ending:
                ending.srem(_OF_USER + name, hashed)
                ending.delete(_SESSION + hashed)
                await ending.execute()
            await self._redis.publish(KICKS, hashed)
        return True

    async def end_all(self, name: str, *, but: str = "") -> int:
        """End the sessions of a user, except one; returns how many."""
        ended = [one for one in await self.of(name) if one.hash != but]
        for one in ended:
            await self.end(name, one.hash)
        return len(ended)

    async def kick(self, name: str) -> None:
        """Have the open pages of a user opened anew: what they may do has changed."""
        for one in await self.of(name):
            with answering():
                await self._redis.publish(KICKS, one.hash)


def hash_of(identity: str) -> str:
    """Return what is kept of a session's id: its SHA-256, hexadecimal."""
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _read(hashed: str, fields: dict[bytes, bytes]) -> Session:
    created, seen, expires = (int(fields[name]) for name in (b"created", b"seen", b"expires"))
    return Session(hashed, created, seen, expires, fields[b"address"].decode(), fields[b"agent"].decode())
