"""Which analytics run, with which parameters, and how they are doing: what the command line, pages and agents share.

| key                               | type   | content                                                       |
|-----------------------------------|--------|---------------------------------------------------------------|
| ``iso:{registry}:analytics``      | hash   | name → JSON, see `Entry`                                      |
| ``iso:{registry}:running``        | hash   | ``name/instance`` → JSON, see `Status`; written every second  |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

import isotherm.rules.store as rule_store
from isotherm import channels
from isotherm.clock import now_us
from isotherm.limits import SECOND
from isotherm.store.client import Client
from isotherm.store.reader import answering
from isotherm.topics import READINGS

FRESH_US = 5 * SECOND
"""How old a status may be: its process says one every second."""

ON_BY_DEFAULT = ("presence", "alarms", "notifications")

IDLE_WITHOUT = {
    "alarms": (rule_store.VERSION, "waits for the first rule: isotherm rules add"),
    "notifications": (channels.VERSION, "waits for the first channel: isotherm notify add"),
}
"""What has nothing to do before there is a key: each would read every record for nothing."""

_ENTRIES = "iso:{registry}:analytics"
_RUNNING = "iso:{registry}:running"
_HOSTS = "iso:{registry}:hosts"

State = Literal["idle", "starting", "running", "refused", "failing"]


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """That an analytic is to run, or not to.

    Attributes:
        name: What it is called: its consumer group and its state.
        analytic: Which one it is: the name of its file.
        is_enabled: Whether it is to run.
        parameters: Those that are not as declared.
    """

    name: str
    analytic: str
    is_enabled: bool = True
    parameters: Mapping[str, Any] = {}


class Status(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one process of an analytic is doing.

    Attributes:
        name: Of the analytic.
        instance: Of the process.
        state: ``refused`` when its file does not pass the checks, and an older version may still run; ``idle`` while it
            has nothing to do and no process.
        at: When this was said, µs since the epoch UTC.
        pid: Of the process.
        topic: What it reads.
        partitions: Those that it works on.
        lag: Records on the topic that it has not taken in.
        packs, readings: Taken in each second.
        us_per_reading: CPU time of the analytic's code, µs.
        made, events: Derived readings and events so far.
        errors: Packs and readings that went to ``rejects`` so far.
        problem: What went wrong last, of an analytic's code its traceback; or what it waits for.
    """

    name: str
    instance: str
    state: State
    at: int
    pid: int = 0
    topic: str = READINGS.name
    partitions: tuple[int, ...] = ()
    lag: int = 0
    packs: float = 0.0
    readings: float = 0.0
    us_per_reading: float = 0.0
    made: int = 0
    events: int = 0
    errors: int = 0
    problem: str = ""


class Analytics:
    """Reads and changes what is to run. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis

    async def entries(self) -> dict[str, Entry]:
        """Return name → entry; those that run without being asked to are among them."""
        found = {name: Entry(name, name) for name in ON_BY_DEFAULT}
        with answering():
            held = await self._redis.hgetall(_ENTRIES)
        entries = (msgspec.json.decode(entry, type=Entry) for entry in held.values())
        return dict(sorted((found | {entry.name: entry for entry in entries}).items()))

    async def idle(self) -> dict[str, str]:
        """Return the analytics that have nothing to do yet, and what each waits for."""
        with answering():
            async with self._redis.pipeline(transaction=False) as reading:
                for key, _ in IDLE_WITHOUT.values():
                    reading.exists(key)
                there = await reading.execute()
        return {name: why for (name, (_, why)), is_there in zip(IDLE_WITHOUT.items(), there, strict=True) if not is_there}

    async def put(self, entry: Entry) -> None:
        """Say that an analytic is to run, or not to; running workers follow within a second or two."""
        with answering():
            await self._redis.hset(_ENTRIES, mapping={entry.name: msgspec.json.encode(entry).decode()})

    async def remove(self, name: str) -> bool:
        """Forget an entry; returns whether there was one."""
        with answering():
            return bool(await self._redis.hdel(_ENTRIES, name))

    async def report(self, status: Status) -> None:
        """Tell how a process is doing."""
        with answering():
            await self._redis.hset(
                _RUNNING, mapping={f"{status.name}/{status.instance}": msgspec.json.encode(status).decode()}
            )

    async def retract(self, status: Status) -> None:
        """Take back what was told: the process ends."""
        with answering():
            await self._redis.hdel(_RUNNING, f"{status.name}/{status.instance}")

    async def running(self) -> list[Status]:
        """Return how the processes are doing that have said so a moment ago, by name."""
        with answering():
            held = await self._redis.hgetall(_RUNNING)
            found = {key.decode(): msgspec.json.decode(value, type=Status) for key, value in held.items()}
            now = now_us()
            old = [key for key, status in found.items() if now - status.at > FRESH_US]
            if old:
                await self._redis.hdel(_RUNNING, *old)
        return sorted(
            (status for key, status in found.items() if key not in old), key=lambda status: (status.name, status.instance)
        )

    async def look(self, host: str) -> None:
        """Say that a host has looked at the entries."""
        with answering():
            await self._redis.hset(_HOSTS, mapping={host: now_us()})

    async def hosts(self) -> list[str]:
        """Return the hosts that have looked a moment ago."""
        with answering():
            held = await self._redis.hgetall(_HOSTS)
            now = now_us()
            old = [host.decode() for host, at in held.items() if now - int(at) > FRESH_US]
            if old:
                await self._redis.hdel(_HOSTS, *old)
        return sorted({host.decode() for host in held} - set(old))
