"""Where configurations are kept: in the store, as the registry is.

    | key                                            | type   | content                                                 |
    |------------------------------------------------|--------|---------------------------------------------------------|
    | ``iso:{p}:configuration``                      | zset   | devices that have to be given theirs, by when it is due |
    | ``iso:{p}:configuration:device:NAME``          | hash   | version, state, … (see configuration.py)                |
    | ``iso:{p}:configuration:desired:NAME``         | hash   | key → value as JSON                                     |
    | ``iso:{p}:configuration:reported:NAME``        | hash   | the same, as the device has said                        |
    | ``iso:{p}:configuration:rollout:ID:STATE``     | zset   | a rollout's devices; those that wait by their wave      |
    | ``iso:{p}:configuration:rollout:ID:joined``    | zset   | those of a continuous one by when they were registered  |
    | ``iso:{p}:configuration:held:ID``              | string | it is there while a rollout is given to nobody          |
    | ``iso:{p}:configuration:before:ID``            | hash   | ``DEVICE KEY`` → value before a rollout, or nothing     |
    | ``iso:{p}:configuration:live``                 | channel| ``queued DEVICE configuration``: it is due              |

A store that was restored to what it was some time ago catches up with its devices: who reports a version that it does not
know is given what is desired anew, under a newer one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from isotherm.clock import now_us
from isotherm.commands.command import CONFIGURE, Command
from isotherm.configuration.configuration import (
    DEADLINE,
    MAX_BYTES,
    MAX_KEYS,
    MAX_REPORTED_KEYS,
    Configuration,
    State,
    encoded,
    id_of,
)
from isotherm.errors import BadField, InvalidReading
from isotherm.limits import MINUTE, SECOND
from isotherm.registry import Device
from isotherm.store.client import Client
from isotherm.store.reader import answering
from isotherm.store.script import Script, pairs
from isotherm.topics import partition_of

RETRY = (30 * SECOND, 1 * MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE)
"""How long a report is awaited before a device is given its configuration again; the last holds for all further times."""

Change = Literal["changed", "unchanged", "gone", "version", "large"]
"""What came of a change; ``gone``: the rollout does not want it any more; ``version``: the version was another."""

Noted = Literal["returned", "sent", "progress", "failed", "confirmed"]


class Configurations:
    """Reads and changes them. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client, partitions: int) -> None:
        self._redis = redis
        self._partitions = partitions

        def script(name: str) -> Script:
            return Script(redis, "table.lua", name, package=__package__)

        names = ("assign.lua", "claim.lua", "forget.lua", "hold.lua", "join.lua", "leave.lua", "note.lua")
        self._assign, self._claim, self._forget, self._hold, self._join, self._leave, self._note = map(script, names)

    async def get(self, device: str) -> Configuration:
        """Return a device's configuration: an empty one, if nothing is desired or reported."""
        key = self.key_of(device)
        with answering():
            async with self._redis.pipeline(transaction=False) as look:
                for kind in ("device", "desired", "reported"):
                    look.hgetall(f"{key}:{kind}:{device}")
                return _configuration(device, *await look.execute())

    async def change(self, device: str, values: Mapping[str, Any], by: str, *, version: int | None = None) -> Configuration:
        """Change what is desired of one device; returns its configuration then.

        Args:
            device: Whose.
            values: Key → value; None removes the key.
            by: Who does it.
            version: Only if this is the version until now.

        Raises:
            BadField: a value cannot be kept, or there would be too many; or the version was another.
        """
        (answer,) = await self.assign([device], encoded(values), by, version=version)
        if answer == "large":
            raise BadField("values", f"{device} would have too much", f"at most {MAX_KEYS} keys and {MAX_BYTES:,} bytes")
        if answer == "version":
            raise BadField("version", f"{device} does not have version {version} any more", "the version that it has now")
        return await self.get(device)

    async def assign(
        self,
        devices: Sequence[str],
        values: Mapping[str, bytes],
        by: str,
        *,
        rollout: str = "",
        back: str = "",
        version: int | None = None,
    ) -> list[Change]:
        """Change what is desired of devices of one partition, each at once or not at all.

        Args:
            devices: Whose.
            values: As `encoded` returns them.
            by: Who does it.
            rollout: For which rollout; who does not wait for it (any more) is left as it is.
            back: The rollout that had set these values: what was desired before it is desired again.
            version: Only if this is the version until now.
        """
        flat = [text for pair in values.items() for text in pair]
        expected: int | str = "" if version is None else version
        arguments = [now_us(), by, rollout, back, expected, MAX_KEYS, MAX_BYTES, len(values), *flat, *devices]
        with answering():
            answers = await self._assign([self.key_of(devices[0])], arguments)
        known: dict[Any, Change] = {1: "changed", 0: "unchanged", b"gone": "gone", b"version": "version", b"large": "large"}
        return [known[one] for one in answers]

    async def claim(self, device: str, via: str, *, is_new: bool) -> Command | None:
        """Take up what is desired of a device, if that is due, as the command by which it is told.

        Args:
            device: Whose.
            via: The connector that will give it.
            is_new: The device has come anew: what was sent before may be lost.
        """
        now = now_us()
        with answering():
            found = await self._claim([self.key_of(device)], [device, now, via, int(is_new), *RETRY])
        return _command(device, pairs(found[0]), pairs(found[1]), now) if found else None

    async def note(self, device: str, version: int, what: Noted, detail: str = "") -> State:
        """Say what has become of a version; returns the device's state then.

        Args:
            device: Whose.
            version: Of its configuration.
            what: Whether it got to the device; how far that is; or what it says.
            detail: Of ``failed`` why; of ``progress`` how far, %.
        """
        with answering():
            arguments = [device, version, now_us(), what, detail, RETRY[-1]]
            return (await self._note([self.key_of(device)], arguments)).decode() or "none"

    async def report(self, device: str, version: int, result: bytes) -> State:
        """Take in what a device says that it has; returns its state then.

        Args:
            device: Whose.
            version: The version that this is of.
            result: JSON: an object of all its settings; anything else says that it has all that is desired.

        Raises:
            InvalidReading: it cannot be read, or has too many settings.
        """
        try:
            value = msgspec.json.decode(result)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidReading("malformed", f"the result cannot be read: {error}") from error
        if not isinstance(value, dict):
            return await self.note(device, version, "confirmed")
        if len(value) > MAX_REPORTED_KEYS:
            detail = f"{len(value)} settings, expected at most {MAX_REPORTED_KEYS}"
            raise InvalidReading("too_large", detail)
        flat = [text for key, one in value.items() for text in (key, msgspec.json.encode(one))]
        with answering():
            return (
                await self._note([self.key_of(device)], [device, version, now_us(), "reported", *flat])
            ).decode() or "none"

    async def due(self) -> set[str]:
        """Return the devices that have to be given their configuration now."""
        found: set[str] = set()
        for partition in range(self._partitions):
            with answering():
                found |= {name.decode() for name in await self._redis.zrangebyscore(key_of(partition), "-inf", now_us())}
        return found

    async def join(self, rollout: str, devices: Sequence[Device], wave: int) -> list[str]:
        """Enter devices of one partition that a continuous rollout is for, unless they were before.

        Args:
            rollout: Which one.
            devices: Them.
            wave: The one that they wait for.

        Returns:
            Who waits for that wave now, and has to be given what is desired.
        """
        flat = [part for one in devices for part in (one.name, one.created)]
        with answering():
            found = await self._join([self.key_of(devices[0].name)], [rollout, wave, *flat])
        return [name.decode() for name in found]

    async def leave(self, rollout: str, devices: Sequence[str]) -> None:
        """Leave devices of one partition that wait for a rollout to newer ones."""
        with answering():
            await self._leave([self.key_of(devices[0])], [rollout, *devices])

    async def hold(self, rollout: str, what: Literal["halt", "resume", "retry", "supersede"]) -> int:
        """Hold a rollout or have it go on; returns how many devices that was about."""
        with answering():
            counts = [
                await self._hold([key_of(partition)], [rollout, now_us(), what]) for partition in range(self._partitions)
            ]
        return sum(counts)

    async def push(self, device: str, by: str) -> Configuration:
        """Have a device given what is desired of it once more."""
        found = await self.get(device)
        if found.desired:
            await self.assign([device], {key: bytes(value) for key, value in found.desired.items()}, by)
        return await self.get(device)

    async def forget(self, device: str) -> None:
        """Forget what is desired of a device and what it has reported: it was removed, and another may come to its name."""
        with answering():
            await self._forget([self.key_of(device)], [device])

    def channels(self) -> list[str]:
        """Return the channels on which devices are told that are due."""
        return [f"{key_of(partition)}:live" for partition in range(self._partitions)]

    def key_of(self, device: str) -> str:
        """Return the key of the devices that are due, in the partition of a device."""
        return key_of(partition_of(device, self._partitions))


def key_of(partition: int) -> str:
    """Return the key of a partition's devices that are due; the others begin with it."""
    return f"iso:{{{partition}}}:configuration"


_NUMBERS = ("version", "changed", "attempt", "given", "reported_version", "reported_at")


def _configuration(
    device: str, fields: Mapping[bytes, bytes], desired: Mapping[bytes, bytes], reported: Mapping[bytes, bytes]
) -> Configuration:
    text = {name.decode(): value.decode() for name, value in fields.items()}
    known: dict[str, Any] = {name: text[name] for name in ("by", "state", "rollout", "via", "error") if name in text}
    known |= {name: int(text.get(name, 0)) for name in _NUMBERS} | {"progress": int(text.get("progress", -1))}
    return Configuration(device=device, desired=_values(desired), reported=_values(reported), **known)


def _values(flat: Mapping[bytes, bytes]) -> dict[str, msgspec.Raw]:
    return {key.decode(): msgspec.Raw(flat[key]) for key in sorted(flat)}


def _command(device: str, fields: Mapping[bytes, bytes], desired: Mapping[bytes, bytes], now: int) -> Command:
    """Return the command by which a device is told what is desired."""
    version = int(fields[b"version"])
    parameters = msgspec.json.encode({"version": version, "values": _values(desired)})
    return Command(
        id=id_of(version),
        device=device,
        name=CONFIGURE,
        parameters=msgspec.Raw(parameters),
        idempotent=True,
        created=int(fields[b"changed"]),
        deadline=now + DEADLINE,
        by=fields[b"by"].decode(),
        attempt=int(fields[b"attempt"]),
        via=fields[b"via"].decode(),
    )
