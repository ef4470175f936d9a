"""Records through an engine: the sink of an analytic in one partition, effectively once.

The state, the offset that it belongs to, and what came of the last records are committed in one script. Only then is what
came of them delivered to Kafka, and only then are more records taken. So after a crash at any moment, whoever goes on finds
a state, where in the log it belongs, and what may not have been delivered yet; that is delivered again, and known there by
its numbers. Where nothing came of records, there is no haste to commit: a crash then repeats some work.

An engine that raises is put back to where it was, and gets the packs one by one: the one that it cannot take goes to
``rejects``, and the others through.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field

import msgspec

from agents.engine import Engine, Failure, Outputs
from agents.keeping import Keeper
from agents.numbering import Numbering
from agents.shard import LogRecord
from isotherm.clock import now_us
from isotherm.errors import AnalyticFailed
from isotherm.logs import Throttle
from isotherm.pack import MalformedPack, Pack
from isotherm.rejects import Rejected, RejectRecord
from isotherm.store.analytic import AnalyticStore, Outgoing
from isotherm.store.writer import Conflict, Progress
from isotherm.topics import EVENTS, READINGS, REJECTS

COMMIT_SECONDS = 0.25
"""How long records that nothing came of may wait for their commit."""

TICK_SECONDS = 1.0
"""How often an engine hears that time has passed."""

MAX_FAILURES = 10
"""Packs in a row that an analytic may fail on: then it is the analytic that is wrong, and it stops where it is."""

Deliver = Callable[[int, Sequence[Outgoing]], Awaitable[None]]
"""Brings what came of a partition's records to Kafka; returns when it is durable."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Meter:
    """What an analytic has done since its process began.

    Attributes:
        packs, readings: Taken in.
        made, events: Derived readings, and events.
        errors: Packs and readings that went to ``rejects``.
        seconds: CPU time of the engine.
        problem: The last error, as a person wants to see it.
    """

    packs: int = 0
    readings: int = 0
    made: int = 0
    events: int = 0
    errors: int = 0
    seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What is known of records that an engine may hang on, or that end its process.

    Attributes:
        at: Partition → offset of the record that it is busy with, or -1: shared with who watches the process.
        careful: Partition → offset up to which records are taken one by one.
        poison: Partition → offsets of those that it must not get.
    """

    at: MutableSequence[int]
    careful: Mapping[int, int] = field(default_factory=dict)
    poison: Mapping[int, frozenset[int]] = field(default_factory=dict)


class Analysing:
    """Brings the records of one partition through an engine."""

    def __init__(
        self,
        partition: int,
        name: str,
        connector: str,
        engine: Engine,
        store: AnalyticStore,
        deliver: Deliver,
        end: Callable[[], Awaitable[int]],
        meter: Meter,
        suspicion: Suspicion,
        prepare: Callable[[Engine], None] = lambda _: None,
    ) -> None:
        """Prepare.

        Args:
            partition: The shard.
            name: Of the analytic.
            connector: What the ledger counts derived readings by.
            engine: For this partition alone.
            store: Where the analytic's state is kept.
            deliver: Brings records to Kafka.
            end: Tells where the log ends: there an analytic begins that was never there before.
            meter: Is told what is done.
            suspicion: Which records to be careful with.
            prepare: Tells an engine that was loaded what else it has to know.
        """
        self.engine = engine
        self._partition = partition
        self._name = name
        self._connector = connector
        self._keeper = Keeper(partition, store)
        self._prepare = prepare
        self._deliver = deliver
        self._end = end
        self._meter = meter
        self._suspicion = suspicion
        self._throttle = Throttle()
        self._numbering = Numbering({}, connector)
        self._waits_since: float | None = None
        self._ticked_at = 0.0
        self._failures = 0
        self._delivered = ""  # the version whose outbox is

    @property
    def key(self) -> str:
        """The key of the progress."""
        return self._keeper.key

    async def progress(self) -> Progress | None:
        """Read everything from the store, deliver what its last owner may not have, and return how far it is."""
        rows = await self._keeper.load()
        held = self._keeper.held
        self._waits_since = None
        self._numbering = Numbering(held.numbers, self._connector)
        self._load(rows)
        if not held.version:
            self._keeper.progress = Progress(await self._end(), "")
            if not await self._keeper.commit():
                return await self.progress()
        if held.version != self._delivered:
            # Whoever has made them counts them: by what comes of them, if it has ended before it could.
            await self._deliver(self._partition, [one._replace(readings=0) for one in held.outbox])
            self._delivered = held.version
        return self._keeper.progress

    def _load(self, rows: Mapping[str, bytes]) -> None:
        self.engine.load(rows)
        self._prepare(self.engine)

    async def apply(self, records: Sequence[LogRecord], expected: int | None) -> int | Conflict:
        """Take in records."""
        outputs = Outputs()
        poison = self._suspicion.poison.get(self._partition, frozenset())
        packs: list[tuple[int, Pack]] = []
        for record in records:
            try:
                pack = Pack.from_ipc(record.value)
            except MalformedPack:
                continue  # the worker that stores has put it on `rejects`
            if record.offset in poison:
                outputs.failures.append(Failure(pack, AnalyticFailed(f"{self._name} hung on it, or crashed")))
            else:
                packs.append((record.offset, pack))
        is_careful = records[0].offset <= self._suspicion.careful.get(self._partition, -1)
        for some in ([one] for one in packs) if is_careful else [packs]:
            await self._run_from(some, outputs)
        self._meter.packs += len(packs)
        self._meter.readings += (count := sum(len(pack.time) for _, pack in packs))
        self._keeper.progress = Progress(records[-1].offset + 1, records[-1].mark)
        return count if await self._keep(outputs) else await self._overtaken()

    async def rest(self, is_caught_up: bool) -> Conflict | None:
        """Let time pass for the engine, when all that came is taken in, and commit what waits."""
        outputs = Outputs()
        if is_caught_up and time.monotonic() - self._ticked_at >= TICK_SECONDS:
            began = time.thread_time()
            outputs = self.engine.tick(now_us())
            self._meter.seconds += time.thread_time() - began
            self._ticked_at = time.monotonic()
        return None if await self._keep(outputs) else await self._overtaken()

    async def _overtaken(self) -> Conflict:
        found = await self.progress()
        return Conflict(None if found is None else found.next)

    async def _run_from(self, packs: Sequence[tuple[int, Pack]], outputs: Outputs) -> None:
        """Run, and let it be known where, for the case that it does not come back."""
        if not packs:
            return
        self._suspicion.at[self._partition] = packs[0][0]
        try:
            await self._run([pack for _, pack in packs], outputs)
        finally:
            self._suspicion.at[self._partition] = -1

    async def _run(self, packs: Sequence[Pack], outputs: Outputs) -> None:
        began = time.thread_time()
        try:
            made = self.engine.run(packs)
        except Exception as error:  # noqa: BLE001 - it is an analytic's code: whatever it raises is told with the pack
            await self._run_one_by_one(packs, error, outputs)
        else:
            outputs.add(made)
            self._keeper.take(self.engine.changes())
            self._failures = 0
        self._meter.seconds += time.thread_time() - began

    async def _run_one_by_one(self, packs: Sequence[Pack], error: Exception, outputs: Outputs) -> None:
        await self._put_back()
        for pack in packs:
            try:
                if len(packs) == 1:
                    raise error
                made = self.engine.run([pack])
            except Exception as one:
                self._failures += 1
                if self._failures >= MAX_FAILURES:
                    raise AnalyticFailed(
                        f"{self._name} failed on {self._failures} packs in a row, the last time with\n{_told(one)}\n"
                        "It stands where it was, and goes on from there when it is mended or disabled."
                    ) from one
                outputs.failures.append(Failure(pack, one))
                await self._put_back()
            else:
                outputs.add(made)
                self._keeper.take(self.engine.changes())
                self._failures = 0

    async def _put_back(self) -> None:
        """Let the engine begin again at the last state that is known to be good."""
        self._load(await self._keeper.rows())

    async def _keep(self, outputs: Outputs) -> bool:
        """Commit what came of records, or of time, and deliver it; False when the store is elsewhere."""
        self._keeper.take(self.engine.changes())
        now = time.monotonic()
        if self._waits_since is None:
            self._waits_since = now
        if not outputs and now - self._waits_since < COMMIT_SECONDS:
            return True
        if not outputs and not self._keeper.has_news:
            return True
        outgoing, events = self._outgoing(outputs)
        if not await self._keeper.commit(outgoing, events, self._numbering.changes()):
            return False
        self._waits_since = None
        await self._deliver(self._partition, outgoing)
        self._delivered = self._keeper.held.version
        return True

    def _outgoing(self, outputs: Outputs) -> tuple[list[Outgoing], list[bytes]]:
        """Return the records for Kafka, and the events among them; everything is numbered."""
        now = now_us()
        outgoing = []
        for pack in self._numbering.packs(outputs.derived, now):
            self._meter.made += len(pack)
            outgoing.append(Outgoing(READINGS.name, "", pack.to_ipc(), len(pack)))
        source, events = f"{self._name}/{self._partition}/{self._keeper.held.born:x}", []
        for event in outputs.events:
            numbered = msgspec.structs.replace(event, source=source, number=self._keeper.held.next_event)
            self._keeper.held.next_event += 1
            events.append(numbered.to_json())
            outgoing.append(Outgoing(EVENTS.name, event.device, events[-1]))
        self._meter.events += len(events)
        outgoing += (self._reject(failure, now) for failure in outputs.failures)
        return outgoing, events

    def _reject(self, failure: Failure, now: int) -> Outgoing:
        self._meter.errors += 1
        self._meter.problem = _told(failure.error)
        if self._throttle("failed") is not None:
            log.error("%s failed on readings, which go to %s:\n%s", self._name, REJECTS.name, self._meter.problem)
        detail = f"{type(failure.error).__name__}: {failure.error}"
        rejected = Rejected("analytic", detail, failure.readings.to_ipc())
        peer = f"{READINGS.name}/{self._partition}"
        reject = RejectRecord.of([rejected], protocol=f"agent/{self._name}", peer=peer, received_at=now)
        return Outgoing(REJECTS.name, peer, reject.to_json())


def _told(error: Exception) -> str:
    return "".join(traceback.format_exception(error)).strip()
