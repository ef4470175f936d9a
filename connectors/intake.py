"""Intake: what every connector does with what it decoded.

    decoded ─► check ─► shard by device ─► buffer per partition ─► pack ─► Kafka `readings` ─► receipt is durable
                  └───► Kafka `rejects` ─────────────────────────────────────────────────────► and counted

Each partition has one pack on its way at a time; what arrives meanwhile becomes the next. So packs are small when there is
little to do and large when there is much, without a setting, and a device's readings stay in order. A pack that Kafka
does not take is offered again until it does: memory stays bounded because `accept` waits when too much is in flight.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge

from connectors.formats.decoded import Decoded
from connectors.series_table import Key, SeriesTable, Units, resolve
from isotherm.clock import now_us
from isotherm.errors import InvalidReading
from isotherm.kafka import MAX_VALUE_BYTES, Producer
from isotherm.ledger import Account
from isotherm.limits import DAY, MAX_FUTURE_US, MAX_PACK_READINGS, MAX_PAST_US, SECOND
from isotherm.logs import Throttle
from isotherm.pack import Pack
from isotherm.rejects import Rejected, RejectRecord
from isotherm.settings import Settings
from isotherm.topics import READINGS, REJECTS

MAX_IN_FLIGHT = 500_000
"""Readings taken in and not yet acknowledged by Kafka: about 20 MB."""

REFUSE_SECONDS = 5.0
"""How long a request waits for Kafka before it is refused."""

DRAIN_SECONDS = 20.0
"""How long a stopping connector waits for Kafka to take the rest."""

MAX_REJECTS_WAITING = 1_000
"""Rejects taken in and not yet acknowledged by Kafka: at most 64 MB."""

MAX_KNOWN_NAMES = 500_000
"""Names remembered with their series, about 100 MB; beyond that they are learnt anew."""

_accepted = Counter("isotherm_accepted_readings", "Readings acknowledged by Kafka", ["protocol"])
_rejected = Counter("isotherm_rejected_readings", "Inputs that were refused", ["protocol", "reason"])
_in_flight = Gauge("isotherm_in_flight_readings", "Readings that wait for Kafka", ["protocol"])

log = logging.getLogger(__name__)


class Intake:
    """The way of readings from one connector process to Kafka."""

    def __init__(self, settings: Settings, producer: Producer, instance: str, account: Account) -> None:
        self._producer = producer
        self._instance = instance
        self._protocol = instance.partition("/")[0]
        self._account = account
        self._linger = settings.linger_ms / 1000
        self._series = SeriesTable(settings.partitions)
        self._units = Units()
        self._buffers = [_Buffer() for _ in range(settings.partitions)]
        self._filled = [asyncio.Event() for _ in range(settings.partitions)]
        self._rejects: asyncio.Queue[tuple[RejectRecord, asyncio.Future[None]]] = asyncio.Queue(MAX_REJECTS_WAITING)
        self._room = _Room(MAX_IN_FLIGHT, _in_flight.labels(self._protocol))
        self._throttle = Throttle()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver for the length of the block; at its end, deliver the rest, for a bounded time."""
        async with asyncio.TaskGroup() as tasks:
            pumps = [tasks.create_task(self._pump(p), name=f"pump-{p}") for p in range(len(self._buffers))]
            pumps.append(tasks.create_task(self._pump_rejects(), name="pump-rejects"))
            try:
                yield
                await self._drain()
            finally:
                for pump in pumps:
                    pump.cancel()

    async def accept(self, decoded: Decoded, *, peer: str, device: str | None = None) -> Receipt:
        """Take in what a decoder made of one input; waits while too much is in flight.

        Args:
            decoded: The readings and rejects.
            peer: Who sent it, for the rejects.
            device: The device that the channel names, if it does.
        """
        await self._room.wait()
        if len(self._series) > MAX_KNOWN_NAMES:
            await self._forget_names()
        # No await from here to the end of _store: the codes are those of the present table.
        now = now_us()
        keys: Sequence[Key] = decoded.names if device is None else [(device, name) for name in decoded.names]
        codes = np.fromiter(map(self._series.__getitem__, keys), dtype=np.int64, count=len(keys))
        good = (codes >= 0) & np.isfinite(decoded.value)
        good &= (decoded.time >= now - MAX_PAST_US) & (decoded.time <= now + MAX_FUTURE_US)
        rejects = [*decoded.rejects, *(_refuse(decoded, i, now, device) for i in np.flatnonzero(~good).tolist())]
        for name, unit in decoded.units.items():
            self._units.note(self._series[name if device is None else (device, name)], unit, now)
        pending = self._store(codes[good], decoded.time[good], decoded.value[good])
        pending += [
            await self._reject(RejectRecord.of(r, protocol=self._protocol, peer=peer, received_at=now)) for r in rejects
        ]
        return Receipt(int(np.count_nonzero(good)), rejects, pending)

    def _store(
        self, codes: NDArray[np.int64], time: NDArray[np.int64], value: NDArray[np.float64]
    ) -> list[asyncio.Future[None]]:
        """Put readings into the buffers of their partitions; each future ends when they are durable."""
        self._room.take(len(codes))
        partitions = self._series.partitions(codes)
        order = np.argsort(partitions, kind="stable")
        bounds = np.searchsorted(partitions[order], np.arange(len(self._buffers) + 1))
        pending = []
        for partition, (begin, end) in enumerate(pairwise(bounds.tolist())):
            if begin < end:
                rows = order[begin:end]
                pending.append(self._buffers[partition].add(codes[rows], time[rows], value[rows]))
                self._filled[partition].set()
        return pending

    async def _pump(self, partition: int) -> None:
        """Send what gathers in a partition's buffer, one pack after the other."""
        filled = self._filled[partition]
        while True:
            await filled.wait()
            if self._buffers[partition].count < MAX_PACK_READINGS:
                await asyncio.sleep(self._linger)
            buffer, self._buffers[partition] = self._buffers[partition], _Buffer()
            filled.clear()
            for piece in buffer.cut(MAX_PACK_READINGS):
                for count, record in self._records(*piece):
                    await self._producer.deliver(READINGS, record, partition=partition)
                    self._account.accepted += count
                    _accepted.labels(self._protocol).inc(count)
                    self._room.give(count)
            buffer.done.set_result(None)

    def _records(
        self, codes: NDArray[np.int64], time: NDArray[np.int64], value: NDArray[np.float64]
    ) -> Iterator[tuple[int, bytes]]:
        """Yield (readings, pack as a record), in halves for as long as their names make a record too large."""
        units = self._units.news(np.unique(codes).tolist())
        pieces = [slice(0, len(codes))]
        while pieces:
            piece = pieces.pop()
            record = self._pack(codes[piece], time[piece], value[piece], units).to_ipc()
            middle = (piece.start + piece.stop) // 2
            if len(record) <= MAX_VALUE_BYTES or middle == piece.start:
                yield piece.stop - piece.start, record
            else:
                pieces += [slice(middle, piece.stop), slice(piece.start, middle)]

    def _pack(
        self, codes: NDArray[np.int64], time: NDArray[np.int64], value: NDArray[np.float64], units: Mapping[int, str]
    ) -> Pack:
        distinct, series = np.unique(codes, return_inverse=True)
        names = {code: self._series.names[code] for code in distinct.tolist()}
        return Pack(
            names=list(names.values()),
            series=series.astype(np.int32),
            time=time,
            value=value,
            connector=self._instance,
            received_at=now_us(),
            units={name: units[code] for code, name in names.items() if code in units},
        )

    async def _reject(self, record: RejectRecord) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._rejects.put((record, done))
        if self._throttle(record.peer.rpartition(":")[0] or record.peer) is not None:
            log.warning("rejected from %s: %s: %s", record.peer, record.reason, record.detail)
        return done

    async def _pump_rejects(self) -> None:
        while True:
            batch = [await self._rejects.get()]
            while not self._rejects.empty():
                batch.append(self._rejects.get_nowait())
            async with asyncio.TaskGroup() as tasks:
                for record, _ in batch:
                    key = (record.device or record.peer).encode()
                    tasks.create_task(self._producer.deliver(REJECTS, record.to_json(), key=key))
            for record, done in batch:
                self._account.rejected[record.reason] += 1
                _rejected.labels(self._protocol, record.reason).inc()
                done.set_result(None)
                self._rejects.task_done()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._room.emptied()
                await self._rejects.join()
        except TimeoutError:
            log.error("stopped with %d readings that Kafka did not acknowledge", self._room.taken)

    async def _forget_names(self) -> None:
        """Begin a new table of series when nothing in flight refers to the old one."""
        with self._room.closed():
            await self._room.emptied()
            self._series = SeriesTable(len(self._buffers))
            self._units = Units()


class Receipt:
    """What became of one input.

    Attributes:
        accepted: Readings that go to the topic.
        rejects: What was refused.
    """

    __slots__ = ("_pending", "accepted", "rejects")

    def __init__(self, accepted: int, rejects: Sequence[Rejected], pending: Sequence[asyncio.Future[None]]) -> None:
        self.accepted = accepted
        self.rejects = rejects
        self._pending = pending

    async def durable(self) -> None:
        """Return when Kafka has acknowledged everything, rejects included.

        A caller that stops waiting knows nothing: what was taken in is still delivered when Kafka returns.
        """
        pending = [one for one in self._pending if not one.done()]
        if pending:
            await asyncio.wait(pending)


class _Buffer:
    """Readings of one partition that wait for their pack; ``done`` ends when Kafka has them."""

    def __init__(self) -> None:
        self.count = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._codes: list[NDArray[np.int64]] = []
        self._times: list[NDArray[np.int64]] = []
        self._values: list[NDArray[np.float64]] = []

    def add(self, codes: NDArray[np.int64], time: NDArray[np.int64], value: NDArray[np.float64]) -> asyncio.Future[None]:
        self._codes.append(codes)
        self._times.append(time)
        self._values.append(value)
        self.count += len(codes)
        return self.done

    def cut(self, size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
        """Yield everything in pieces of at most ``size`` readings."""
        codes, time, value = np.concatenate(self._codes), np.concatenate(self._times), np.concatenate(self._values)
        for at in range(0, self.count, size):
            yield codes[at : at + size], time[at : at + size], value[at : at + size]


class _Room:
    """How much may be in flight: taken when readings come in, given back when Kafka has them."""

    def __init__(self, size: int, gauge: Gauge) -> None:
        self.taken = 0
        self._size = size
        self._gauge = gauge
        self._closed = False
        self._open = asyncio.Event()
        self._empty = asyncio.Event()
        self._update()

    async def wait(self) -> None:
        await self._open.wait()

    async def emptied(self) -> None:
        await self._empty.wait()

    def take(self, count: int) -> None:
        self.taken += count
        self._update()

    def give(self, count: int) -> None:
        self.taken -= count
        self._update()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Let nothing in for the length of the block."""
        self._closed = True
        self._update()
        try:
            yield
        finally:
            self._closed = False
            self._update()

    def _update(self) -> None:
        self._gauge.set(self.taken)
        for event, state in ((self._open, self.taken < self._size and not self._closed), (self._empty, not self.taken)):
            if state:
                event.set()
            else:
                event.clear()


def _refuse(decoded: Decoded, i: int, now: int, device: str | None) -> Rejected:
    """Say why reading ``i`` cannot be accepted."""
    name, time, value = decoded.names[i], int(decoded.time[i]), float(decoded.value[i])
    try:
        series = resolve(name if device is None else (device, name))
    except InvalidReading as error:
        return Rejected(error.reason, error.detail, decoded.raw(i), device)
    device = series.partition("/")[0]
    if not np.isfinite(value):
        return Rejected("not_finite", f"value {value}, expected a finite number", decoded.raw(i), device)
    distance = f"{abs(time - now) / 1e6:.0f} s in the {'future' if time > now else 'past'}"
    expected = f"at most {MAX_FUTURE_US // SECOND} s in the future or {MAX_PAST_US // DAY} d in the past"
    return Rejected("time", f"its time lies {distance}, expected {expected}", decoded.raw(i), device)
