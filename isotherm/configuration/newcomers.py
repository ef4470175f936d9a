"""Devices that come to continuous rollouts: they are registered, or get a label, type or gateway, after these have begun.

    | key                                | type   | content                                                           |
    |------------------------------------|--------|-------------------------------------------------------------------|
    | ``iso:{rollouts}:looked``          | string | what the registry and the rollouts were when they were last found |
    | ``iso:{rollouts}:looking``         | string | somebody looks now, or has a moment ago                           |

Who joins a rollout does so once: what people make of its configuration later is left alone. Of several rollouts that are for
a device and set the same key, the newest gives it; the others give the rest, and have nothing to do with a device for which
there is no rest. So it does not matter which is looked at first, and nothing is given to and fro. A rollout to which a newer
one of the same targets leaves nothing is superseded.

The registry is read only when it has changed since, and at most once in LOOK_SECONDS, by whichever worker comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from isotherm.configuration.choosing import picker, replaces, shares
from isotherm.configuration.rollout import MAX_DEVICES, MAX_WAVES, Rollout
from isotherm.configuration.rollouts import AT_ONCE, Rollouts, pieces, values_of
from isotherm.registry import Device, Registry
from isotherm.store.client import Client
from isotherm.store.reader import answering
from isotherm.topics import partition_of

LOOK_SECONDS = 10

_LATE = MAX_WAVES
"""The wave that they wait for: one that never begins. Who has entered them gives it to them at once."""

_LOOKED = "iso:{rollouts}:looked"
_LOOKING = "iso:{rollouts}:looking"


class Newcomers:
    """Finds them, and gives them what is theirs. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client, partitions: int) -> None:
        self._redis = redis
        self._partitions = partitions
        self._registry = Registry(redis)
        self._rollouts = Rollouts(redis, partitions)

    async def welcome(self) -> None:
        """Give those who have come since the last time what continuous rollouts have for them; as often as one likes."""
        going_on = await self._rollouts.continuous()
        if not going_on:
            return
        ids = " ".join(one.id for one in going_on)
        now = f"{await self._registry.version()} {await self._registry.count()} {ids}".encode()
        with answering():
            if await self._redis.get(_LOOKED) == now or not await self._redis.set(_LOOKING, "", nx=True, ex=LOOK_SECONDS):
                return
        await self._look(going_on)
        with answering():
            await self._redis.set(_LOOKED, now)

    async def _look(self, rollouts: Sequence[Rollout]) -> None:
        """Have devices join rollouts, which are in the order in which they were begun."""
        devices = sorted(await self._registry.all(), key=lambda one: (one.created, one.name))
        for at, rollout in enumerate(rollouts):
            newer = rollouts[at + 1 :]
            by = next((other for other in newer if replaces(other, rollout)), None)
            if by is not None:
                await self._rollouts.supersede(rollout, by)
                continue
            is_meant = picker(rollout.targets)
            matching = [device for device in devices if is_meant(device)]
            for keys, some in shares(rollout, newer, matching[:MAX_DEVICES]).items():
                if keys:
                    await self._let_in(rollout, keys, some)
            is_whole = len(matching) <= MAX_DEVICES
            why = "" if is_whole else f"more than {MAX_DEVICES:,} devices match, the most that are given it"
            await self._rollouts.take_up(rollout, why)

    async def _let_in(self, rollout: Rollout, keys: frozenset[str], devices: Iterable[Device]) -> None:
        """Give devices what a rollout sets of some keys, unless they have joined it before."""
        configurations = self._rollouts.configurations
        values = values_of(rollout, keys)
        parts: dict[int, list[Device]] = {}
        for device in devices:
            parts.setdefault(partition_of(device.name, self._partitions), []).append(device)
        for part in parts.values():
            for some in pieces(part, AT_ONCE):
                if joined := await configurations.join(rollout.id, some, _LATE):
                    await configurations.assign(joined, values, rollout.by, rollout=rollout.id)
