"""The table of alarms as people see it, and what they do: acknowledge, shelve, unshelve.

What the engine knows lies in its state, what people did in a hash beside it, ``iso:{p}:alarms:marks``:

    | field             | content (msgpack)                                                                  |
    |-------------------|------------------------------------------------------------------------------------|
    | ``ack KEY``       | :class:`Acknowledgement`: of the occurrence that began at ``since``, and no other   |
    | ``shelf KEY``     | :class:`Shelf`: the alarm is not heard of until then, however often it is raised    |
    | ``shelf RULE``    | the same of every alarm of a rule; in every partition                              |

The two are never written by the same hand, so neither waits for the other: an acknowledgement counts where its ``since`` is
the row's. An acknowledged alarm leaves the table a day after it was cleared; one that nobody has acknowledged stays until
the engine drops its row, a week later.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from isotherm.alarms.row import ENGINE, AlarmRow, device_of, is_alarm_key
from isotherm.clock import now_us
from isotherm.errors import SettingsError
from isotherm.events import Event
from isotherm.limits import DAY
from isotherm.store import layout
from isotherm.store.client import Client
from isotherm.store.reader import answering
from isotherm.topics import partition_of

ACKNOWLEDGED_SHOWN = 1 * DAY
"""How long an alarm that is cleared and acknowledged stays in the table."""

MAX_SHELVED = 30 * DAY
MAX_NOTE_CHARS = 500

_ACK, _SHELF = "ack ", "shelf "


class Acknowledgement(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person has seen an occurrence.

    Attributes:
        since: When the occurrence was raised, µs.
        by: Who it was.
        time: When, µs since the epoch UTC.
        note: What they wrote.
    """

    since: int
    by: str
    time: int
    note: str = ""


class Shelf(msgspec.Struct, frozen=True):
    """A person does not want to hear of an alarm for a while.

    Attributes:
        until: For how long, µs since the epoch UTC.
        by: Who it was.
        time: When, µs since the epoch UTC.
    """

    until: int
    by: str
    time: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm in the table.

    Attributes:
        row: What the engine knows.
        acknowledged: By whom its present occurrence was acknowledged, if it was.
        shelved: By whom it, or its rule, is shelved at present, if it is.
        shelf: Which of the two: its key, or the rule; empty when it is not shelved.
    """

    row: AlarmRow
    acknowledged: Acknowledgement | None = None
    shelved: Shelf | None = None
    shelf: str = ""

    @property
    def status(self) -> str:
        """``active`` or ``cleared``, then ``acknowledged`` and ``shelved`` where it is so: ``active, shelved``."""
        words = ["active" if self.row.is_active else "cleared"]
        words += ["acknowledged"] * (self.acknowledged is not None) + ["shelved"] * (self.shelved is not None)
        return ", ".join(words)

    @property
    def needs_attention(self) -> bool:
        """Whether somebody should look: it is not shelved, and active or not acknowledged."""
        return self.shelved is None and (self.row.is_active or self.acknowledged is None)


class Alarms:
    """Reads the table, and marks what people do. Every method raises Unavailable when the store does not answer.

    What people do comes back as an event, for the caller to append to the EventLog and to deliver to the topic ``events``.
    """

    def __init__(self, redis: Client, partitions: int) -> None:
        self._redis = redis
        self._partitions = partitions

    async def list(self, *, now: int | None = None) -> list[Alarm]:
        """Return the alarms that were raised, newest first; without those cleared and acknowledged a while ago.

        Args:
            now: µs since the epoch UTC; by default the clock's.
        """
        now = now_us() if now is None else now
        found: list[Alarm] = []
        for partition in range(self._partitions):
            rows, marks = await self._read(partition)
            found += (_alarm(key, row, marks, now) for key, row in rows.items() if row.since)
        shown = (one for one in found if not _is_over(one, now))
        return sorted(shown, key=lambda one: (-one.row.since, one.row.key))

    async def shelved(self, now: int) -> set[str]:
        """Return the keys of the alarms, and the ids of the rules, that are shelved."""
        found = set()
        for partition in range(self._partitions):
            with answering():
                marks = await self._redis.hgetall(layout.marks_key(partition))
            for name, mark in marks.items():
                if name.startswith(_SHELF.encode()) and msgspec.msgpack.decode(mark, type=Shelf).until > now:
                    found.add(name.decode().removeprefix(_SHELF))
        return found

    async def get(self, key: str, *, now: int | None = None) -> Alarm:
        """Return one alarm.

        Raises:
            SettingsError: there is none.
        """
        partition = self._partition(key)
        with answering():
            held = await self._redis.hget(layout.state_key(partition, ENGINE), key)
            marks = await self._redis.hgetall(layout.marks_key(partition))
        row = msgspec.msgpack.decode(held, type=AlarmRow) if held is not None and is_alarm_key(key) else None
        if row is None or not row.since:
            raise SettingsError(f"there is no alarm {key!r}; see: isotherm alarms")
        return _alarm(key, row, marks, now_us() if now is None else now)

    async def acknowledge(self, key: str, since: int, by: str, note: str = "", *, now: int | None = None) -> Event:
        """Say that somebody has seen an occurrence.

        Args:
            key: The alarm.
            since: When the occurrence was raised, as the person saw it, µs.
            by: Who it is.
            note: What they have to say.
            now: µs since the epoch UTC; by default the clock's.

        Raises:
            SettingsError: there is no such alarm, it was raised anew since, or it is acknowledged already.
        """
        now = now_us() if now is None else now
        if len(note) > MAX_NOTE_CHARS:
            raise SettingsError(f"a note of {len(note)} characters, expected at most {MAX_NOTE_CHARS}")
        alarm = await self._occurrence(key, since, now)
        if alarm.acknowledged is not None:
            raise SettingsError(f"{key} is acknowledged already, by {alarm.acknowledged.by}")
        mark = msgspec.msgpack.encode(Acknowledgement(since, by, now, note))
        await self._mark(self._partition(key), {_ACK + key: mark}, now)
        return _event("alarm.acknowledged", alarm.row, by, now, note or f"acknowledged by {by}")

    async def shelve(self, key: str, until: int, by: str, *, since: int | None = None, now: int | None = None) -> Event:
        """Not hear of an alarm, or of every alarm of a rule, until a time.

        Args:
            key: The alarm; or the rule, which has no slash.
            until: µs since the epoch UTC.
            by: Who it is.
            since: Only if this is the alarm's present occurrence, µs.
            now: µs since the epoch UTC; by default the clock's.

        Raises:
            SettingsError: there is no such alarm, it was raised anew, or ``until`` is past or too far ahead.
        """
        now = now_us() if now is None else now
        if not now < until <= now + MAX_SHELVED:
            raise SettingsError(f"an alarm is shelved for more than 0 and at most {MAX_SHELVED // DAY} days")
        row = AlarmRow(rule=key, kind="", device="")
        if "/" in key:
            row = (await self._occurrence(key, since, now)).row
        mark = msgspec.msgpack.encode(Shelf(until, by, now))
        for partition in self._partitions_of(key):
            await self._mark(partition, {_SHELF + key: mark}, now)
        return _event("alarm.shelved", row, by, now, f"shelved by {by}", until)

    async def unshelve(self, key: str, by: str, *, now: int | None = None) -> Event:
        """Hear of an alarm, or of a rule's alarms, again.

        Raises:
            SettingsError: it is not shelved by itself.
        """
        now = now_us() if now is None else now
        partitions = self._partitions_of(key)
        with answering():
            held = await self._redis.hget(layout.marks_key(partitions[0]), _SHELF + key)
            if held is None or msgspec.msgpack.decode(held, type=Shelf).until <= now:
                raise SettingsError(f"{key!r} is not shelved; see: isotherm alarms --all")
            for partition in partitions:
                await self._redis.hdel(layout.marks_key(partition), _SHELF + key)
        row = AlarmRow(rule=key, kind="", device="")
        if "/" in key:
            rule, device, metric = [*key.split("/", 2), ""][:3]
            row = AlarmRow(rule=rule, kind="", device=device, metric=metric)
        return _event("alarm.unshelved", row, by, now, f"unshelved by {by}")

    async def _occurrence(self, key: str, since: int | None, now: int) -> Alarm:
        alarm = await self.get(key, now=now)
        if since is not None and alarm.row.since != since:
            raise SettingsError(f"{key} was raised anew: the occurrence that was meant is over; look at it again")
        return alarm

    async def _mark(self, partition: int, marks: Mapping[str, bytes], now: int) -> None:
        """Write marks, and remove those of alarms that are gone and shelves that are past."""
        rows, before = await self._read(partition)
        stale = [field for field, mark in before.items() if _is_stale(field.decode(), mark, rows, now)]
        with answering():
            async with self._redis.pipeline(transaction=True) as change:
                change.hset(layout.marks_key(partition), mapping=marks)
                if gone := [field for field in stale if field.decode() not in marks]:
                    change.hdel(layout.marks_key(partition), *gone)
                await change.execute()

    async def _read(self, partition: int) -> tuple[dict[str, AlarmRow], dict[bytes, bytes]]:
        with answering():
            held = await self._redis.hgetall(layout.state_key(partition, ENGINE))
            marks = await self._redis.hgetall(layout.marks_key(partition))
        decode = msgspec.msgpack.Decoder(AlarmRow).decode
        return {key: decode(row) for field, row in held.items() if is_alarm_key(key := field.decode())}, marks

    def _partition(self, key: str) -> int:
        return partition_of(device_of(key), self._partitions)

    def _partitions_of(self, key: str) -> range:
        if "/" not in key:
            return range(self._partitions)
        partition = self._partition(key)
        return range(partition, partition + 1)


def _alarm(key: str, row: AlarmRow, marks: Mapping[bytes, bytes], now: int) -> Alarm:
    held = marks.get((_ACK + key).encode())
    acknowledged = None if held is None else msgspec.msgpack.decode(held, type=Acknowledgement)
    if acknowledged is not None and acknowledged.since != row.since:
        acknowledged = None
    for name in (key, row.rule):
        if (held := marks.get((_SHELF + name).encode())) is not None:
            shelved = msgspec.msgpack.decode(held, type=Shelf)
            if shelved.until > now:
                return Alarm(row, acknowledged, shelved, name)
    return Alarm(row, acknowledged)


def _is_over(alarm: Alarm, now: int) -> bool:
    return not alarm.row.is_active and alarm.acknowledged is not None and now - alarm.row.cleared > ACKNOWLEDGED_SHOWN


def _is_stale(field: str, mark: bytes, rows: Mapping[str, AlarmRow], now: int) -> bool:
    if field.startswith(_SHELF):
        return msgspec.msgpack.decode(mark, type=Shelf).until <= now
    row, seen = rows.get(field.removeprefix(_ACK)), msgspec.msgpack.decode(mark, type=Acknowledgement)
    # The rows were read before the marks: a mark of what is not among them may be of an alarm that was raised meanwhile.
    return now - seen.time > DAY if row is None else seen.since < row.since


def _event(kind: str, row: AlarmRow, by: str, now: int, message: str, until: int = 0) -> Event:
    return Event(
        kind=kind,
        device=row.device,
        time=now,
        message=message,
        severity=row.severity,
        metric=row.metric,
        alarm=row.key if row.device else "",
        since=row.since,
        rule=row.rule,
        by=by,
        until=until,
        source=f"people/{os.urandom(8).hex()}",
        number=1,
    )
