"""Restore: the registry of a file, into a store.

Each key is replaced in one step, together with others of its hash tag, and what the file does not have is removed at the
end; so nobody is locked out in between. The audit log is merged: what was done since the backup stays in it.
``RESTORING`` says that it has not ended: one that is killed leaves two registries mixed, and has to be done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from isotherm.backup.families import BACKED_UP, BEGUN_ANEW, RESTORING, Family, family_of, in_partitions
from isotherm.backup.file import Head, Reader, Record
from isotherm.backup.take import Contents, find
from isotherm.clock import now_us
from isotherm.errors import SettingsError
from isotherm.limits import MILLISECOND
from isotherm.store.client import Client
from isotherm.store.reader import answering

STEP_ELEMENTS = 1_000
"""Elements that are written in one step, if they are of several keys: it holds the store for a few milliseconds."""

STEP_BYTES = 1024 * 1024

COMMAND_ELEMENTS = 500

Advance = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class Checked:
    """A file that is whole."""

    path: Path
    head: Head
    contents: Contents


def check(path: Path, partitions: int, advance: Advance) -> Checked:
    """Read a whole file.

    Args:
        path: The file.
        partitions: How many the store has.
        advance: Is told how many bytes are read, of how many.

    Raises:
        SettingsError: it cannot be read, is damaged, from a newer version, or of a store with another number of partitions.
    """
    reader = Reader(path)
    try:
        contents = Contents()
        for key, records in groupby(_ours(path, reader.records(advance)), lambda one: one[1].key):
            family = family_of(key)
            assert family is not None
            contents.add(family, sum(len(record.elements) for _, record in records))
    finally:
        reader.close()
    if reader.head.partitions != partitions:
        raise SettingsError(
            f"{path} is of a store with {reader.head.partitions} partitions, ISOTHERM_PARTITIONS is {partitions}: devices "
            "would be looked for elsewhere; set it to the file's number, in a store without readings"
        )
    return Checked(path, reader.head, contents)


def _ours(path: Path, records: Iterable[Record]) -> Iterator[tuple[Family, Record]]:
    for record in records:
        family = family_of(record.key)
        if family is None or family.type != record.type or not record.elements:
            name = record.key.decode(errors="backslashreplace")
            raise SettingsError(
                f"{path} has {name!r} as a {record.type}, which is no part of a registry: it was changed by hand"
            )
        yield family, record


async def restore(redis: Client, checked: Checked, *, replace: bool, advance: Advance) -> bool:
    """Put the registry of a file into a store; returns whether another one was replaced.

    Args:
        redis: The store.
        checked: The file.
        replace: Whether a registry that is there may be replaced.
        advance: Is told how many bytes are read, of how many.

    Raises:
        SettingsError: there is a registry, and it may not be replaced.
        Unavailable: the store does not answer.
    """
    partitions = checked.head.partitions
    with answering():
        found, _ = await find(redis, partitions)
        existing = {key for keys in found.values() for key in keys}
        there = await _existing(redis, sorted(existing))
        if there and not replace:
            devices, users = await redis.zcard("iso:{registry}:devices"), await redis.zcard("iso:{accounts}:users")
            raise SettingsError(
                f"the store has a registry already, with {devices:,} devices and {users:,} users; nothing was changed; "
                "--replace puts the file's in its place"
            )
        versions = await _versions(redis)
        await redis.set(RESTORING, str(checked.path))
        reader = Reader(checked.path)
        try:
            written = await _write(redis, checked.path, reader, advance)
        finally:
            reader.close()
        gone = sorted(there - written) + [key for one in BEGUN_ANEW for key in in_partitions(one, partitions)]
        await _remove(redis, [key for key in gone if not _is_stream(key)])
        for key, version in (await _versions(redis)).items():
            if version or versions[key]:
                await redis.set(key, max(version, versions[key]) + 1)
        await redis.delete(RESTORING)
    return bool(there)


async def _versions(redis: Client) -> dict[str, int]:
    return {one.pattern: int(await redis.get(one.pattern) or 0) for one in BACKED_UP if one.is_version}


async def _existing(redis: Client, keys: Sequence[str]) -> set[str]:
    there = set()
    for first in range(0, len(keys), STEP_ELEMENTS):
        some = keys[first : first + STEP_ELEMENTS]
        async with redis.pipeline(transaction=False) as asking:
            for key in some:
                asking.exists(key)
            there |= {key for key, is_there in zip(some, await asking.execute(), strict=True) if is_there}
    return there


async def _remove(redis: Client, keys: Sequence[str]) -> None:
    for first in range(0, len(keys), STEP_ELEMENTS):
        async with redis.pipeline(transaction=False) as removing:
            for key in keys[first : first + STEP_ELEMENTS]:
                removing.delete(key)
            await removing.execute()


def _is_stream(key: str) -> bool:
    family = family_of(key.encode())
    return family is not None and family.type == "stream"


async def _write(redis: Client, path: Path, reader: Reader, advance: Advance) -> set[str]:
    """Write every key of the file that has not expired; returns them."""
    written: set[str] = set()
    step: list[list[Record]] = []
    elements = size = 0
    now = now_us() // MILLISECOND
    for key, parts in groupby(_ours(path, reader.records(advance)), lambda one: one[1].key):
        records = [record for _, record in parts]
        if records[0].expires is not None and records[0].expires <= now:
            continue
        if step and (elements >= STEP_ELEMENTS or size >= STEP_BYTES or _tag(step[0][0].key) != _tag(key)):
            await _commit(redis, step)
            step, elements, size = [], 0, 0
        step.append(records)
        elements += sum(len(record.elements) for record in records)
        size += sum(len(record.elements[0]) for record in records if record.type == "string")
        written.add(key.decode())
    if step:
        await _commit(redis, step)
    return written


def _tag(key: bytes) -> bytes:
    return key[: key.index(b"}")]


async def _commit(redis: Client, step: Sequence[Sequence[Record]]) -> None:
    """Replace some keys of one hash tag, all of them or none."""
    async with redis.pipeline(transaction=True) as writing:
        for records in step:
            key, type = records[0].key.decode(), records[0].type
            elements = [element for record in records for element in record.elements]
            if type == "stream":
                elements = await _merged(redis, key, elements)
            writing.delete(key)
            for first in range(0, len(elements), COMMAND_ELEMENTS):
                _put(writing, type, key, elements[first : first + COMMAND_ELEMENTS])
            if records[0].expires is not None:
                writing.pexpireat(key, records[0].expires)
        await writing.execute()


async def _merged(redis: Client, key: str, elements: list[Any]) -> list[Any]:
    """Return the entries of a stream, with those that are in the store."""
    async with redis.pipeline(transaction=False) as reading:
        reading.xrange(key)
        [kept] = await reading.execute()
    every = dict(elements) | {id: list(fields.items()) for id, fields in kept}
    return sorted(every.items(), key=lambda entry: tuple(map(int, entry[0].split(b"-"))))


def _put(writing: Any, type: str, key: str, elements: list[Any]) -> None:
    match type:
        case "string":
            writing.set(key, elements[0])
        case "set":
            writing.sadd(key, *elements)
        case "zset":
            writing.zadd(key, dict(elements))
        case "hash":
            writing.hset(key, mapping=dict(elements))
        case "stream":
            for id, fields in elements:
                writing.xadd(key, dict(fields), id=id)
