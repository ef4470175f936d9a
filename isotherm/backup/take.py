"""Backup: the registry of a store, into a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from isotherm.backup.families import BACKED_UP, LOOKED_FOR, RESTORING, Family, family_of, reason_of, single_keys
from isotherm.backup.file import Record, Writer
from isotherm.errors import SettingsError
from isotherm.store.client import Client
from isotherm.store.reader import answering

AT_ONCE = 200
"""Keys that are read in one go."""

_NEVER = -1
"""What PEXPIRETIME says of a key that does not expire; of one that is not there any more it says -2."""


@dataclass(slots=True)
class Contents:
    """What is in a file.

    Attributes:
        keys: How many keys.
        counts: What people count, such as devices → how many.
        unknown: Keys that belong to no family: left out.
        is_torn: It was changed while it was read: a part of what was changed just then may be from before that.
    """

    keys: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    unknown: list[bytes] = field(default_factory=list)
    is_torn: bool = False

    def add(self, family: Family, elements: int) -> None:
        """Count a key."""
        self.keys += 1
        if family.counted:
            self.counts[family.counted] += 1 if "*" in family.pattern else elements


async def find(redis: Client, partitions: int) -> tuple[dict[Family, list[str]], list[bytes]]:
    """Return the keys of each family that there are, ascending, and those of which nothing is known.

    Raises:
        Unavailable: the store does not answer.
    """
    found: dict[Family, list[str]] = {family: [] for family in BACKED_UP}
    unknown = []
    keys = {key.encode() for key in single_keys(partitions)}
    with answering():
        for pattern in LOOKED_FOR:
            keys |= {key async for key in redis.scan_iter(match=pattern, count=1_000)}
    for key in sorted(keys):
        if (family := family_of(key)) is not None:
            found[family].append(key.decode())
        elif reason_of(key) is None:
            unknown.append(key)
    return found, unknown


async def take(redis: Client, partitions: int, writer: Writer, advance: Callable[[int, int], object]) -> Contents:
    """Write the registry.

    Args:
        redis: The store.
        partitions: How many it has.
        writer: Where to; it is not closed.
        advance: Is told how many keys are read, of how many.

    Raises:
        SettingsError: there is nothing to back up, or a restore has not ended.
        Unavailable: the store does not answer.
    """
    with answering():
        if await redis.get(RESTORING) is not None:
            raise SettingsError(
                "a restore into this store has not ended, so its registry may be half there; restore again with --replace"
            )
        before = await _versions(redis)
        found, unknown = await find(redis, partitions)
        contents = Contents(unknown=unknown)
        done, total = 0, sum(map(len, found.values()))
        for family, keys in found.items():
            step = 1 if family.is_large else AT_ONCE
            for first in range(0, len(keys), step):
                some = keys[first : first + step]
                for record in await _read(redis, family, some):
                    writer.add(record)
                    contents.add(family, len(record.elements))
                done += len(some)
                advance(done, total)
        contents.is_torn = await _versions(redis) != before
    if not contents.counts["devices"] and not contents.counts["users"]:
        raise SettingsError("the store has no device and no user: there is no registry to back up")
    return contents


async def _versions(redis: Client) -> list[bytes | None]:
    return [await redis.get(family.pattern) for family in BACKED_UP if family.is_version]


async def _read(redis: Client, family: Family, keys: Sequence[str]) -> list[Record]:
    async with redis.pipeline(transaction=False) as reading:
        for key in keys:
            reading.pexpiretime(key)
            _ask(reading, family, key)
        answers = await reading.execute()
    records = []
    for key, expires, answer in zip(keys, answers[::2], answers[1::2], strict=True):
        elements = _elements(family, answer)
        if elements:  # it was there when it was looked for
            records.append(Record(key.encode(), family.type, elements, None if expires <= _NEVER else expires))
    return records


def _ask(reading: Any, family: Family, key: str) -> None:
    match family.type:
        case "string":
            reading.get(key)
        case "set":
            reading.smembers(key)
        case "zset":
            reading.zrange(key, 0, -1, withscores=True)
        case "hash":
            reading.hgetall(key)
        case "stream":
            reading.xrange(key)


def _elements(family: Family, answer: Any) -> list[Any]:
    match family.type:
        case "string":
            return [] if answer is None else [answer]
        case "set":
            return sorted(answer)
        case "zset":
            return [(member, score) for member, score in answer]
        case "hash":
            return sorted(answer.items()) if not family.has or family.has.encode() in answer else []
        case "stream":
            return [(id, sorted(fields.items())) for id, fields in answer]
