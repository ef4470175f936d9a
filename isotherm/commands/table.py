"""The table of commands in the store: what is known of each, and which of them wait for a device.

    | key                             | type    | content                                                          |
    |---------------------------------|---------|------------------------------------------------------------------|
    | ``iso:{p}:commands``            | zset    | id → deadline, of those that have not ended                      |
    | ``iso:{p}:commands:id:ID``      | hash    | the command and its ``position``; forgotten 7 d after the        |
    |                                 |         | deadline                                                         |
    | ``iso:{p}:commands:of:DEVICE``  | zset    | id → when it was created, of 7 d                                 |
    | ``iso:{p}:commands:queue:DEVICE``| zset   | id → when it was created, of those that wait to be taken up      |
    | ``iso:{p}:commands:open:DEVICE``| string  | id of the one that a connector is about to give to the device    |
    | ``iso:{p}:commands:leases``     | zset    | id → until when its connector, or an idempotent one's device,    |
    |                                 |         | has time                                                         |
    | ``iso:{p}:commands:run``        | string  | run id of the server under which all of the log was read         |
    | ``iso:{p}:commands:live``       | channel | ``WHAT DEVICE ID`` after each change                             |

One script does each step, so two connectors never take up the same command, and those of a device are taken up in their
order, one at a time. The truth is the log (`fact`): a server that was started anew may have lost its last second, and
nothing is taken up from it until the log was read again (``run``), so that no command is given to its device a second time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from isotherm.clock import now_us
from isotherm.commands.command import Command
from isotherm.commands.fact import Fact
from isotherm.errors import Unavailable
from isotherm.limits import SECOND
from isotherm.store.client import Client, heard
from isotherm.store.reader import answering
from isotherm.store.script import Script, pairs
from isotherm.topics import partition_of

LEASE = 15 * SECOND
"""How long a connector may take from taking a command up to having given it to the device."""

RETRY = 10 * SECOND
"""How long an idempotent command waits for its answer before it is given to the device again."""

LOOK_SECONDS = 1.0
"""How often whoever waits for a change looks for it, announced or not."""


class Swept(NamedTuple):
    """What a sweep has found.

    Attributes:
        run: Name of the server's run.
        is_whole: Whether the table has all that was in the log when the server began to run.
    """

    run: str
    is_whole: bool


class Table:
    """Reads and changes it. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client, partitions: int) -> None:
        self._redis = redis
        self._partitions = partitions

        def script(name: str) -> Script:
            return Script(redis, "table.lua", name, package=__package__)

        self._note, self._claim, self._sweep, self._cancel = map(
            script, ("note.lua", "claim.lua", "sweep.lua", "cancel.lua")
        )

    async def note(self, fact: Fact) -> bool:
        """Take in a fact, which may have been taken in before; tells whether more is known now."""
        lease = fact.time + (LEASE if fact.kind == "claimed" else RETRY)
        own = _own_fields(fact)
        arguments = [fact.id, fact.position, fact.state, lease, len(own) // 2, *own, *_state_fields(fact)]
        with answering():
            return bool(await self._note([self._key(fact.device)], arguments))

    async def claim(self, device: str, via: str) -> Command | None:
        """Take up the first command that waits for a device, before it is given to it; None when none does."""
        now = now_us()
        with answering():
            what, *rest = await self._claim([self._key(device)], [device, now, now + LEASE, via])
        if what == b"stale":
            raise Unavailable("the store was started anew, and a worker has not read the log of commands since")
        return _command(pairs(rest[0])) if rest else None

    async def cancel(self, command: Command, by: str) -> bool:
        """Let a command end that was never given to its device; tells whether it could."""
        with answering():
            return bool(await self._cancel([self._key(command.device)], [command.id, now_us(), f"cancelled by {by}"]))

    async def sweep(self, partition: int, *, read_under: str = "") -> Swept:
        """Do what time brings about in a partition.

        Args:
            partition: The shard.
            read_under: Name of the server's run under which all of the log has just been read and noted, if it has.
        """
        with answering():
            run, is_whole = await self._sweep([_key(partition)], [now_us(), read_under])
        return Swept(run.decode(), bool(is_whole))

    async def get(self, device: str, id: str) -> Command | None:
        """Return a command of a device, or None when there is none, or it is forgotten."""
        with answering():
            fields = await self._redis.hgetall(f"{self._key(device)}:id:{id}")
        found = _command(fields) if b"created" in fields else None
        return found if found is not None and found.device == device else None

    async def changes(self, command: Command) -> AsyncIterator[Command]:
        """Yield a command as it is, and then each time that it has changed, until it has ended."""
        key = self._key(command.device)
        with answering():
            async with self._redis.pubsub() as pubsub:
                await pubsub.subscribe(f"{key}:live")
                while (found := await self.get(command.device, command.id)) is not None:
                    yield found
                    if found.has_ended:
                        return
                    await _told_of(pubsub, command.id)

    async def of(self, device: str, *, limit: int, before: str = "") -> Sequence[Command]:
        """Return the newest commands of a device, newest first.

        Args:
            device: Whose.
            limit: How many at most.
            before: Only those that are older than this one.
        """
        key = self._key(device)
        with answering():
            ids = [id.decode() for id in reversed(await self._redis.zrange(f"{key}:of:{device}", 0, -1))]
            wanted = [id for id in ids if not before or id < before][:limit]
            async with self._redis.pipeline(transaction=False) as look:
                for id in wanted:
                    look.hgetall(f"{key}:id:{id}")
                rows = await look.execute()
        return [_command(fields) for fields in rows if b"created" in fields]

    async def waiting(self, device: str) -> int:
        """Return how many commands wait to be given to a device."""
        with answering():
            return int(await self._redis.zcard(f"{self._key(device)}:queue:{device}"))

    async def waiting_devices(self) -> set[str]:
        """Return the devices that a command waits for."""
        found: set[str] = set()
        for partition in range(self._partitions):
            key = _key(partition)
            with answering():
                ids = [id.decode() for id in await self._redis.zrange(key, 0, -1)]
                async with self._redis.pipeline(transaction=False) as look:
                    for id in ids:
                        look.hmget(f"{key}:id:{id}", ["device", "state"])
                    rows = await look.execute()
            found |= {device.decode() for device, state in rows if device and state == b"queued"}
        return found

    def channels(self) -> list[str]:
        """Return the channels on which changes are told."""
        return [f"{_key(partition)}:live" for partition in range(self._partitions)]

    def _key(self, device: str) -> str:
        return _key(partition_of(device, self._partitions))


async def _told_of(pubsub: Any, id: str) -> None:
    """Return when a change of a command is announced, or after a while: announcements may be lost."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LOOK_SECONDS):
            while True:
                message = await heard(pubsub, LOOK_SECONDS)
                if message is not None and message["data"].decode().endswith(f" {id}"):
                    return


def _key(partition: int) -> str:
    return f"iso:{{{partition}}}:commands"


def _own_fields(fact: Fact) -> list[Any]:
    """Return what a fact says whatever else is known."""
    fields: list[Any] = ["id", fact.id, "device", fact.device]
    command = fact.command
    if command is not None:
        fields += ["name", command.name, "parameters", bytes(command.parameters), "idempotent", int(command.idempotent)]
        fields += ["created", command.created, "deadline", command.deadline, "by", command.by]
    if fact.kind == "sent":
        fields += ["sent", fact.time]
    if fact.kind in ("delivered", "answered", "refused"):
        fields += ["delivered", fact.time]
    return fields


def _state_fields(fact: Fact) -> list[Any]:
    """Return what a fact says of how things stand."""
    if fact.kind in ("cancelled", "answered", "refused"):
        return ["ended", fact.time, "result", fact.result, "error", fact.error]
    return ["attempt", fact.attempt, "via", fact.via] if fact.attempt else []


_NUMBERS = ("created", "deadline", "attempt", "sent", "delivered", "ended")


def _command(fields: dict[bytes, bytes]) -> Command:
    text = {name.decode(): value.decode() for name, value in fields.items()}
    known: dict[str, Any] = {name: value for name, value in text.items() if name in Command.__struct_fields__}
    known |= {name: int(text.get(name, 0)) for name in _NUMBERS}
    known["idempotent"] = text["idempotent"] == "1"
    known["parameters"] = msgspec.Raw(fields[b"parameters"])
    return Command(**known)
