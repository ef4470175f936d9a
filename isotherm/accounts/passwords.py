"""Hashes of passwords: argon2id (RFC 9106), off the event loop, a few at a time.

One hash takes 64 MiB and a tenth of a second of a core by design. So at most ``AT_ONCE`` are made at a time, and when
``WAITING`` more wait the next is refused: a flood of log-ins costs memory and time that is bounded.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import unicodedata
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from isotherm.accounts.names import MAX_PASSWORD_CHARS
from isotherm.errors import Unavailable

AT_ONCE = 2
WAITING = 32

_Answer = TypeVar("_Answer")


class Passwords:
    """Makes and verifies hashes."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        """Prepare; the default hasher is RFC 9106's second recommendation (64 MiB, 3 passes, 4 lanes)."""
        self._hasher = hasher or PasswordHasher()
        self._bound = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._nobodys = _of_nobody(self._hasher)

    async def hash(self, password: str) -> str:
        """Return the hash of a password.

        Raises:
            Unavailable: too many wait already.
        """
        return await self._in_turn(self._hasher.hash, _normal(password))

    async def matches(self, hashed: str | None, password: str) -> bool:
        """Tell whether a password is the one of a hash.

        Without a hash, because there is no such user or they have no password, it takes as long and is never so.

        Raises:
            Unavailable: too many wait already.
        """
        return await self._in_turn(self._verify, hashed or self._nobodys, password) and bool(hashed)

    def is_outdated(self, hashed: str) -> bool:
        """Tell whether a hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(hashed)

    def _verify(self, hashed: str, password: str) -> bool:
        try:
            # Nobody has a longer one, and it must not take longer either.
            return self._hasher.verify(hashed, _normal(password[: MAX_PASSWORD_CHARS + 1]))
        except (Argon2Error, InvalidHashError):
            return False

    async def _in_turn(self, work: Callable[..., _Answer], *arguments: str | bytes) -> _Answer:
        if self._waiting >= AT_ONCE + WAITING:
            raise Unavailable("too many people log in at this moment; try again in a few seconds")
        self._waiting += 1
        try:
            async with self._bound:
                return await asyncio.to_thread(work, *arguments)
        finally:
            self._waiting -= 1


def _normal(password: str) -> bytes:
    """Return the bytes that are hashed; keyboards differ in how they compose characters (RFC 8265 §4.2.2)."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def _of_nobody(hasher: PasswordHasher) -> str:
    """Return a hash that no password has, and that takes as long to verify as any."""

    def text(size: int) -> str:
        return base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=")

    cost = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${cost}${text(hasher.salt_len)}${text(hasher.hash_len)}"
