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

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from isotherm.configuration.choosing import picker
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
        offers = [_Offer(one) for one in rollouts]
        for at, offer in enumerate(offers):
            newer = [other for other in offers[at + 1 :] if other.keys & offer.keys]
            by = next((other for other in newer if other.replaces(offer)), None)
            if by is not None:
                await self._rollouts.supersede(offer.rollout, by.rollout)
                continue
            for_them, is_whole = _shares(offer, newer, devices)
            for keys, some in for_them.items():
                await self._let_in(offer.rollout, keys, some)
            why = "" if is_whole else f"more than {MAX_DEVICES:,} devices match, the most that are given it"
            await self._rollouts.take_up(offer.rollout, why)

    async def _let_in(self, rollout: Rollout, keys: frozenset[str], devices: Iterable[Device]) -> None:
        """Give devices what a rollout sets of some keys, unless they have joined it before."""
        configurations = self._rollouts.configurations
        values = {key: value for key, value in values_of(rollout).items() if key in keys}
        parts: dict[int, list[Device]] = {}
        for device in devices:
            parts.setdefault(partition_of(device.name, self._partitions), []).append(device)
        for part in parts.values():
            for some in pieces(part, AT_ONCE):
                if joined := await configurations.join(rollout.id, some, _LATE):
                    await configurations.assign(joined, values, rollout.by, rollout=rollout.id)


class _Offer:
    """What a rollout has for devices."""

    def __init__(self, rollout: Rollout) -> None:
        self.rollout = rollout
        self.keys = frozenset(rollout.values)
        self.is_for: Callable[[Device], bool] = picker(rollout.targets)

    def replaces(self, older: _Offer) -> bool:
        """Tell whether this leaves an older one nothing to give."""
        ours, theirs = (msgspec.structs.replace(one.rollout.targets, devices=()) for one in (self, older))
        names, their_names = (frozenset(one.rollout.targets.devices) for one in (self, older))
        return self.keys >= older.keys and (ours, names) == (theirs, their_names)


def _shares(
    offer: _Offer, newer: Sequence[_Offer], devices: Iterable[Device]
) -> tuple[Mapping[frozenset[str], Sequence[Device]], bool]:
    """Return which keys are given to which devices, and whether these are all that match."""
    found: dict[frozenset[str], list[Device]] = {}
    count = 0
    for device in devices:
        if not offer.is_for(device):
            continue
        keys = offer.keys.difference(*(other.keys for other in newer if other.is_for(device)))
        if not keys:
            continue
        if count == MAX_DEVICES:
            return found, False
        found.setdefault(keys, []).append(device)
        count += 1
    return found, True
