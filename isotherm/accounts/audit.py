"""The audit log: what was done by whom, and what was refused.

Two capped streams: ``iso:{accounts}:audit`` holds what was done, ``iso:{accounts}:refused`` what was not let through. So a
flood of refusals never pushes out an act; and each kind of refusal from an address is written once a minute, with how many
more there were. They are read as one.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from isotherm.accounts.users import PREFIX
from isotherm.logs import Throttle
from isotherm.store.client import Client
from isotherm.store.reader import answering
from isotherm.store.script import Script

KEPT_ACTS = 50_000
KEPT_REFUSALS = 10_000
MAX_TEXT_CHARS = 200

SEARCHED = 2_000
"""Entries of each stream that one reading looks at."""

_ACTS = PREFIX + "audit"
_REFUSALS = PREFIX + "refused"

DONE, REFUSED, FAILED = "done", "refused", "failed"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log.

    Attributes:
        id: Of the entry; ascends in time. ``Audit.read(before=…)`` takes it.
        time: µs since the epoch UTC.
        who: The user, ``cli`` with a name of the system's, or empty when nobody has shown who they are.
        what: A few words, such as ``log in`` or ``acknowledge alarm``.
        target: What it was done to.
        address: Where it came from.
        outcome: ``done``, ``refused`` or ``failed``.
        detail: More about it, or empty.
    """

    id: str
    time: int
    who: str
    what: str
    target: str
    address: str
    outcome: str
    detail: str

    @property
    def place(self) -> tuple[int, ...]:
        """Where it stands in time."""
        return tuple(map(int, self.id.split("-")))

    @property
    def text(self) -> str:
        """What is searched, in lower case."""
        return " ".join((self.who, self.what, self.target, self.address, self.outcome, self.detail)).casefold()


class Audit:
    """Writes and reads the log. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis
        self._script = Script(redis, "audit.lua", package=__package__)
        self._throttle = Throttle()

    async def write(
        self, who: str, what: str, target: str = "", *, address: str = "", outcome: str = DONE, detail: str = ""
    ) -> None:
        """Enter what was done."""
        await self._add(_ACTS, KEPT_ACTS, (who, what, target, address, outcome, detail))

    async def refuse(
        self, who: str, what: str, target: str = "", *, address: str = "", detail: str = "", is_shown: bool = False
    ) -> None:
        """Enter what was refused: of the same kind from the same address once a minute; the rest is counted.

        Args:
            who: Whose name it bears, or empty.
            what: Of what kind it is.
            target: What it was about.
            address: Where it came from.
            detail: Why.
            is_shown: They have shown who they are: what others at the address do does not leave theirs out.
        """
        held = self._throttle(f"{what}\0{address}\0{who if is_shown else ''}")
        if held is None:
            return
        if held:
            detail = f"{detail}; {held} more before".removeprefix("; ")
        await self._add(_REFUSALS, KEPT_REFUSALS, (who, what, target, address, REFUSED, detail))

    async def read(self, limit: int = 100, before: str | None = None, *, text: str = "") -> list[Entry]:
        """Return the newest entries, newest first.

        Args:
            limit: At most so many.
            before: Only those that are older than the entry with this id.
            text: Only those with this text in any of their fields, in any case.
        """
        found: list[Entry] = []
        wanted = text.casefold()
        for entry in heapq.merge(
            await self._newest(_ACTS, before), await self._newest(_REFUSALS, before), key=lambda one: one.place, reverse=True
        ):
            if wanted in entry.text:
                found.append(entry)
                if len(found) == limit:
                    break
        return found

    async def _newest(self, stream: str, before: str | None) -> list[Entry]:
        with answering():
            rows = await self._redis.xrevrange(stream, f"({before}" if before else "+", count=SEARCHED)
        return [_read(identity.decode(), fields) for identity, fields in rows]

    async def _add(self, stream: str, kept: int, values: tuple[str, ...]) -> None:
        pairs: list[bytes | int] = [kept]
        for name, value in zip(_FIELDS, values, strict=True):
            if value:
                pairs += [name, value[:MAX_TEXT_CHARS].encode("utf-8", "backslashreplace")]
        with answering():
            await self._script([stream, _REFUSALS if stream == _ACTS else _ACTS], pairs)


_FIELDS = (b"who", b"what", b"target", b"address", b"outcome", b"detail")


def _read(identity: str, fields: dict[bytes, bytes]) -> Entry:
    who, what, target, address, outcome, detail = (fields.get(name, b"").decode() for name in _FIELDS)
    return Entry(identity, int(identity.partition("-")[0]) * 1_000, who, what, target, address, outcome, detail)
