"""How rollouts go on. What is done for one device is one step; what ends half way is taken up again by a worker.

    | key                                | type | content                                                       |
    |------------------------------------|------|---------------------------------------------------------------|
    | ``iso:{rollouts}:all``             | zset | id → when it was begun, µs                                    |
    | ``iso:{rollouts}:open``            | set  | ids of those that are running                                 |
    | ``iso:{rollouts}:continuous``      | set  | ids of those that are continuous, and not halted              |
    | ``iso:{rollouts}:rollout:ID``      | hash | it, as JSON; state, wave, wave_at and why as they are now     |

A rollout's devices are in the partitions, see table.py. What is known of one expires; of a continuous one when it was halted
long ago.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import msgspec

from isotherm.clock import now_us
from isotherm.commands.command import as_json, id_of
from isotherm.configuration.choosing import chosen, shares
from isotherm.configuration.configuration import FIRMWARE, MAX_BYTES, encoded
from isotherm.configuration.rollout import (
    DEFAULT_FAILURE_RATE,
    DEFAULT_WAVE_TIMEOUT,
    MEMBERS,
    Member,
    Progress,
    Rollout,
    State,
    Targets,
    check_limits,
    waves_of,
)
from isotherm.configuration.table import Configurations, key_of
from isotherm.errors import SettingsError
from isotherm.firmware import Image
from isotherm.registry import Device, Registry
from isotherm.store.client import Client
from isotherm.store.reader import answering
from isotherm.store.script import Script
from isotherm.topics import partition_of

AT_ONCE = 500
"""Devices that one script changes: it holds the store for some milliseconds."""

KEPT = timedelta(days=90)
"""How long a rollout is remembered after it was begun."""

_Item = TypeVar("_Item")

_REMOVED = b"null"

_PREFIX = "iso:{rollouts}:"
_ALL = _PREFIX + "all"
_OPEN = _PREFIX + "open"
_CONTINUOUS = _PREFIX + "continuous"


class Rollouts:
    """Begins them and sees to it that they go on. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client, partitions: int) -> None:
        self._redis = redis
        self._partitions = partitions
        self._registry = Registry(redis)
        self._script = Script(redis, "turn.lua", package=__package__)
        self.configurations = Configurations(redis, partitions)

    async def begin(
        self,
        targets: Targets,
        values: Mapping[str, Any],
        by: str,
        *,
        waves: Sequence[float] = (),
        max_failure_rate: float = DEFAULT_FAILURE_RATE,
        wave_timeout: int = DEFAULT_WAVE_TIMEOUT,
        image: Image | None = None,
        continuous: bool = False,
        id: str = "",
    ) -> Rollout:
        """Begin to change what is desired of devices.

        Args:
            targets: Which ones.
            values: Key → value; None removes the key.
            by: Who does it.
            waves: Up to which share of the devices each wave goes; the last has the rest.
            max_failure_rate: A greater share of failures halts it.
            wave_timeout: How long a wave is waited for, µs.
            image: Firmware that they are to have, instead of values.
            continuous: It is for devices that match later, too; there may be none yet.
            id: Of the rollout; if one was begun under it, that is returned. A new one by default.

        Raises:
            BadField: one of them is wrong, or there is no such device.
        """
        if id and (begun := await self.get(id)) is not None:
            return begun
        check_limits(max_failure_rate, wave_timeout)
        kept = encoded(values) if image is None else {FIRMWARE: as_json(image.for_device(), FIRMWARE, MAX_BYTES)}
        devices = chosen(targets, await self._registry.all(), may_come=continuous)
        rollout = Rollout(
            id=id or id_of(now_us()),
            targets=targets,
            values={key: msgspec.Raw(value or _REMOVED) for key, value in kept.items()},
            by=by,
            created=now_us(),
            devices=len(devices),
            waves=waves_of(len(devices), waves),
            max_failure_rate=max_failure_rate,
            wave_timeout=wave_timeout,
            continuous=continuous,
            wave_at=now_us(),
        )
        return await self._begin(rollout, {one.name: one.created for one in devices})

    async def roll_back(self, rollout: Rollout, by: str, *, id: str = "") -> Rollout:
        """Begin to make what was desired before a rollout desired again, where nobody has changed it since.

        Args:
            rollout: The one that is taken back.
            by: Who does it.
            id: Of what takes it back; if one was begun under it, that is returned. A new one by default.

        Raises:
            SettingsError: it has changed nothing.
        """
        if id and (begun := await self.get(id)) is not None:
            return begun
        await self._set(rollout.id, state="halted", why=f"taken back by {by}")
        await self.configurations.hold(rollout.id, "halt")
        given = [one for state in MEMBERS if state != "waiting" for one in await self.members(rollout.id, state)]
        if not given:
            raise SettingsError(f"rollout {rollout.id} has changed nothing; it is halted")
        back = msgspec.structs.replace(
            rollout,
            id=id or id_of(now_us()),
            by=by,
            created=now_us(),
            devices=len(given),
            waves=[len(given)],
            continuous=False,
            back=rollout.id,
            state="running",
            wave=0,
            wave_at=now_us(),
            why="",
        )
        return await self._begin(back, dict.fromkeys(sorted(given), 0))

    async def get(self, id: str) -> Rollout | None:
        """Return a rollout, or None when there is none, or it is forgotten."""
        with answering():
            fields = await self._redis.hgetall(_rollout_key(id))
        return _rollout(fields) if fields else None

    async def newest(self, *, limit: int, before: str = "") -> list[Rollout]:
        """Return the newest rollouts, newest first.

        Args:
            limit: How many at most.
            before: Only those that are older than this one.
        """
        with answering():
            ids = [id.decode() for id in reversed(await self._redis.zrange(_ALL, 0, -1))]
        found = [await self.get(id) for id in ids if not before or id < before][:limit]
        return [one for one in found if one is not None]

    async def progress(self, id: str) -> Progress:
        """Return how many devices of a rollout are how far."""
        with answering():
            async with self._redis.pipeline(transaction=False) as look:
                for partition in range(self._partitions):
                    for state in MEMBERS:
                        look.zcard(members_key(partition, id, state))
                counts = await look.execute()
        return Progress(*(sum(counts[at :: len(MEMBERS)]) for at in range(len(MEMBERS))))

    async def members(self, id: str, state: Member) -> list[str]:
        """Return the devices of a rollout that are so far, ascending."""
        with answering():
            async with self._redis.pipeline(transaction=False) as look:
                for partition in range(self._partitions):
                    look.zrange(members_key(partition, id, state), 0, -1)
                rows = await look.execute()
        return sorted(name.decode() for row in rows for name in row)

    async def halt(self, id: str, why: str) -> None:
        """Give it to nobody more; who has it keeps it."""
        await self._set(id, state="halted", why=why)
        await self.configurations.hold(id, "halt")

    async def resume(self, id: str) -> None:
        """Have a halted rollout go on."""
        await self._set(id, state="running", why="", wave_at=now_us())
        await self.configurations.hold(id, "resume")

    async def retry(self, id: str) -> int:
        """Give it again to those that could not or have something else; returns how many these are."""
        count = await self.configurations.hold(id, "retry")
        if count:
            await self._set(id, state="running", why="", wave_at=now_us())
        return count

    async def continuous(self) -> list[Rollout]:
        """Return the rollouts that devices which come are given, oldest first."""
        with answering():
            ids = sorted(id.decode() for id in await self._redis.smembers(_CONTINUOUS))
        found = [await self.get(id) for id in ids]
        return [one for one in found if one is not None and one.state in ("running", "watching")]

    async def supersede(self, rollout: Rollout, by: Rollout) -> None:
        """End a continuous rollout, because devices that come are given a newer one; who is being given it still is."""
        if await self._turn(rollout, state="halted", why=f"superseded by rollout {by.id}"):
            await self.configurations.hold(rollout.id, "supersede")

    async def take_up(self, rollout: Rollout, why: str) -> None:
        """Have a continuous rollout go on that further devices have joined.

        Args:
            rollout: As it was seen.
            why: It does not go to all that match, or empty.
        """
        if rollout.why != why:
            await self._turn(rollout, why=why)
        progress = await self.progress(rollout.id)
        found = await self.get(rollout.id)
        if found is not None and found.state == "watching" and (progress.waiting or progress.open):
            await self._turn(found, state="running")

    async def advance_all(self) -> None:
        """Have every rollout that is running go on; as often, and by as many, as one likes."""
        with answering():
            ids = [id.decode() for id in await self._redis.smembers(_OPEN)]
        for id in ids:
            await self.advance(id)

    async def advance(self, id: str) -> None:
        """Do what comes next for a rollout: the devices of its wave, the next wave, a halt, or its end."""
        rollout = await self.get(id)
        if rollout is None:
            with answering():
                await self._redis.srem(_OPEN, id)
            return
        if rollout.state != "running":
            await self._turn(rollout)
            return
        await self._release(rollout)
        progress = await self.progress(id)
        if progress.is_failing(rollout.max_failure_rate):
            answered = progress.applied + progress.drifted + progress.failed
            await self.halt(id, f"{progress.failed} of {answered} devices that answered could not")
        elif not progress.waiting and not progress.open:
            await self._rest(rollout)
        elif rollout.wave + 1 < len(rollout.waves) and (
            not progress.open or now_us() - rollout.wave_at > rollout.wave_timeout
        ):
            await self._turn(rollout, wave=rollout.wave + 1, wave_at=now_us())

    async def _rest(self, rollout: Rollout) -> None:
        """Say that every device has ended, unless one has joined meanwhile, or is given it again."""
        ended: State = "watching" if rollout.continuous else "done"
        if await self._turn(rollout, state=ended):
            progress = await self.progress(rollout.id)
            if progress.waiting or progress.open:
                await self._turn(msgspec.structs.replace(rollout, state=ended), state="running")

    async def _begin(self, rollout: Rollout, devices: Mapping[str, int]) -> Rollout:
        """Note a rollout and who it is for, and only then that it is running.

        Args:
            rollout: It.
            devices: Device → when it was registered, in the order in which they are given it.
        """
        waves = (number for number, size in enumerate(rollout.waves) for _ in range(size))
        waiting: dict[int, dict[str, int]] = {}
        for device, wave in zip(devices, waves, strict=True):
            waiting.setdefault(partition_of(device, self._partitions), {})[device] = wave
        with answering():
            for partition, members in waiting.items():
                for some in pieces(list(members.items()), 10 * AT_ONCE):
                    await self._redis.zadd(members_key(partition, rollout.id, "waiting"), dict(some))
                    if rollout.continuous:
                        joined = {device: devices[device] for device, _ in some}
                        await self._redis.zadd(members_key(partition, rollout.id, "joined"), joined)
                if not rollout.continuous:
                    await self._redis.expire(members_key(partition, rollout.id, "waiting"), KEPT)
            await self._redis.zadd(_ALL, {rollout.id: rollout.created})
            await self._forget_old()
        await self._set(rollout.id, record=msgspec.json.encode(rollout).decode())
        await self.advance(rollout.id)
        return await self.get(rollout.id) or rollout

    async def _forget_old(self) -> None:
        old = await self._redis.zrangebyscore(_ALL, "-inf", now_us() - KEPT / timedelta(microseconds=1))
        for id in old:
            if not await self._redis.exists(_rollout_key(id.decode())):
                await self._redis.zrem(_ALL, id)

    async def _release(self, rollout: Rollout) -> None:
        """Change what is desired of the devices whose wave has begun."""
        newer = [one for one in await self.continuous() if one.id > rollout.id] if rollout.continuous else []
        for partition in range(self._partitions):
            key = members_key(partition, rollout.id, "waiting")
            with answering():
                names = [name.decode() for name in await self._redis.zrangebyscore(key, "-inf", rollout.wave)]
            for some in pieces(names, AT_ONCE):
                await self._give(rollout, newer, some)

    async def _give(self, rollout: Rollout, newer: Sequence[Rollout], names: Sequence[str]) -> None:
        """Give devices of one partition what newer rollouts leave to them."""
        every = frozenset(rollout.values)
        if any(every & one.values.keys() for one in newer):
            devices = [await self._registry.get(name) or Device(name, 0) for name in names]
            parts = {keys: [one.name for one in some] for keys, some in shares(rollout, newer, devices).items()}
        else:
            parts = {every: list(names)}
        for keys, some in parts.items():
            if keys:
                values = values_of(rollout, keys)
                await self.configurations.assign(some, values, rollout.by, rollout=rollout.id, back=rollout.back)
            else:
                await self.configurations.leave(rollout.id, some)

    async def _set(self, id: str, **fields: str | int) -> None:
        await self._change(id, "", fields)

    async def _turn(self, rollout: Rollout, **fields: str | int) -> bool:
        """Change a rollout if it is still in the state that it was seen in; tells whether it was."""
        return await self._change(rollout.id, rollout.state, fields)

    async def _change(self, id: str, seen: str, fields: Mapping[str, str | int]) -> bool:
        flat = [part for pair in fields.items() for part in pair]
        seconds = int(KEPT.total_seconds())
        with answering():
            return bool(await self._script([_rollout_key(id), _OPEN, _CONTINUOUS], [id, seen, seconds, *flat]))


def values_of(rollout: Rollout, keys: Collection[str]) -> dict[str, bytes]:
    """Return what a rollout sets of some keys, as `encoded` returns it."""
    return {key: b"" if value == _REMOVED else bytes(value) for key, value in rollout.values.items() if key in keys}


def _rollout(fields: Mapping[bytes, bytes]) -> Rollout:
    text = {name.decode(): value.decode() for name, value in fields.items()}
    known: dict[str, Any] = {name: text[name] for name in ("state", "why") if name in text}
    known |= {name: int(text[name]) for name in ("wave", "wave_at") if name in text}
    return msgspec.structs.replace(msgspec.json.decode(fields[b"record"], type=Rollout), **known)


def _rollout_key(id: str) -> str:
    return _PREFIX + "rollout:" + id


def members_key(partition: int, id: str, state: str) -> str:
    """Return the key of a rollout's devices that are so far, or have ``joined`` it, in a partition."""
    return f"{key_of(partition)}:rollout:{id}:{state}"


def pieces(items: Sequence[_Item], size: int) -> Iterable[Sequence[_Item]]:
    """Return items in pieces of at most a size."""
    return (items[at : at + size] for at in range(0, len(items), size))
