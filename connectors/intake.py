"""Intake: what every connector does with what it decoded.

    decoded ─► who may say it ─► check ─► shard by device ─► buffer per partition ─► pack ─► Kafka `readings` ─► receipt
                  └───────────────┴───► Kafka `rejects` ─────────────────────────────────────────────────► and counted

Each partition has one pack on its way at a time; what arrives meanwhile becomes the next, and packs of a partition leave at
least ISOTHERM_LINGER_MS apart. So a reading that comes alone leaves at once, packs are large when there is much to do, and a
device's readings stay in order. A pack that Kafka does not take is offered again until it does. Memory stays bounded: when
too much is in flight nothing more is taken in, and when Kafka has not taken a pack for AWAY_SECONDS, new readings for that
partition are refused at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import groupby, pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge, Histogram

from connectors.buffers import Buffer, Columns, Room, weight
from connectors.formats.acceptable import check_time, check_value
from connectors.formats.catalogue import SENML_JSON, is_joinable
from connectors.formats.decoded import Decoded
from connectors.identity import ANYONE, Identity
from connectors.receipt import Receipt
from connectors.series_table import SeriesTable, Units
from isotherm.clock import now_us
from isotherm.errors import InvalidReading, Unavailable
from isotherm.kafka import MAX_VALUE_BYTES, Producer
from isotherm.ledger import Account
from isotherm.limits import (
    MAX_AHEAD_US,
    MAX_DEVICE_METRICS,
    MAX_FUTURE_US,
    MAX_PACK_READINGS,
    MAX_PAST_US,
    MAX_REJECT_RAW_BYTES,
    SECOND,
)
from isotherm.logs import Throttle
from isotherm.names import series_name
from isotherm.pack import Attribute, Pack
from isotherm.rejects import Rejected, RejectRecord
from isotherm.settings import Settings
from isotherm.topics import READINGS, REJECTS

MAX_IN_FLIGHT = 500_000
"""Readings taken in and not yet acknowledged by Kafka: about 20 MB."""

REFUSE_SECONDS = 4.5
"""How long a request waits for Kafka before it is refused."""

AWAY_SECONDS = 3.5
"""A partition that has not taken a pack for so long is away: what comes for it is refused at once."""

DRAIN_SECONDS = 15.0
"""How long a stopping connector waits for Kafka to take the rest."""

MAX_REJECTS_AT_ONCE = 500
"""Reject records that are offered to Kafka at the same time."""

MAX_KNOWN_NAMES = 500_000
"""Names remembered with their series, about 100 MB; beyond that they are learnt anew."""

_accepted = Counter("isotherm_accepted_readings", "Readings acknowledged by Kafka", ["protocol"])
_rejected = Counter("isotherm_rejected_readings", "Inputs that were refused", ["protocol", "reason"])
_skewed = Counter("isotherm_skewed_readings", "Accepted readings from a clock that is ahead", ["protocol"])
_in_flight = Gauge("isotherm_in_flight_readings", "Readings that wait for Kafka", ["protocol"])
_packs = Histogram(
    "isotherm_pack_readings", "Readings in a pack", ["protocol"], buckets=(1, 10, 100, 1_000, 3_000, MAX_PACK_READINGS)
)
_deliveries = Histogram("isotherm_delivery_seconds", "From offering a pack to Kafka's acknowledgement", ["protocol"])

log = logging.getLogger(__name__)


class Intake:
    """The way of readings from one connector process to Kafka."""

    def __init__(
        self,
        settings: Settings,
        producer: Producer,
        instance: str,
        account: Account,
        *,
        clock: Callable[[], int] = now_us,
    ) -> None:
        """Prepare.

        Args:
            settings: Number of partitions, and how long packs gather.
            producer: Delivers them.
            instance: What the ledger counts by, such as ``tcp/6f1c02d9``.
            account: Gets the counts.
            clock: When inputs are received, µs since the epoch UTC.
        """
        self._producer = producer
        self._clock = clock
        self._instance = instance
        self._protocol = instance.partition("/")[0]
        self._account = account
        self._linger = settings.linger_ms / 1000
        self._series = SeriesTable(settings.partitions)
        self._units = Units()
        self._buffers = [Buffer() for _ in range(settings.partitions)]
        self._filled = [asyncio.Event() for _ in range(settings.partitions)]
        self._offered_at: list[float | None] = [None] * settings.partitions
        self._rejects: asyncio.Queue[tuple[RejectRecord, Receipt]] = asyncio.Queue()  # bounded by the room
        self._room = Room(MAX_IN_FLIGHT, _in_flight.labels(self._protocol))
        self._throttle = Throttle()
        self._tasks = asyncio.TaskGroup()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver for the length of the block; at its end, deliver the rest, for a bounded time."""
        async with self._tasks:
            pumps = [self._tasks.create_task(self._pump(p), name=f"pump-{p}") for p in range(len(self._buffers))]
            pumps.append(self._tasks.create_task(self._pump_rejects(), name="pump-rejects"))
            try:
                yield
                await self._drain()
            finally:
                for pump in pumps:
                    pump.cancel()

    @property
    def room(self) -> Room:
        """Tells when something can be taken in."""
        return self._room

    @property
    def is_away(self) -> bool:
        """Whether Kafka has not taken some pack for AWAY_SECONDS."""
        return any(map(self._is_away, range(len(self._offered_at))))

    def new_devices(self) -> list[str]:
        """Return the devices that were first seen since the last call."""
        return self._series.new_devices()

    async def accept(
        self, pieces: Iterable[Decoded], *, peer: str, identity: Identity = ANYONE, form: str = "", patient: bool = False
    ) -> Receipt:
        """Take in one input, and let others have a turn between its pieces.

        Args:
            pieces: What a decoder yields.
            peer: Who sent it, for the rejects.
            identity: For whom the peer may speak.
            form: Name of the decoder, so that a reject can be decoded again.
            patient: Wait for Kafka for as long as it is away.

        Raises:
            Unavailable: Kafka is away; pieces before this one may have been taken in.
        """
        receipt = Receipt()
        while self._room.is_full:  # what waits is not decoded yet: it is smaller so
            await self._given(patient)
        for piece in pieces:
            if receipt.accepted or receipt.rejected:
                await asyncio.sleep(0)
            while not self.take(piece, receipt, peer=peer, identity=identity, form=form):
                await self._given(patient)
        return receipt

    async def store(self, pieces: Iterable[Decoded], *, peer: str, identity: Identity = ANYONE, form: str = "") -> Receipt:
        """Take in one input and return when Kafka has it; the arguments are those of `accept`.

        Raises:
            Unavailable: Kafka did not acknowledge within REFUSE_SECONDS; it may get the input all the same.
        """
        try:
            async with asyncio.timeout(REFUSE_SECONDS):
                receipt = await self.accept(pieces, peer=peer, identity=identity, form=form)
                await receipt.durable()
        except TimeoutError:
            raise unacknowledged() from None
        return receipt

    async def _given(self, patient: bool) -> None:
        if self.is_away and not patient:
            raise Unavailable(f"Kafka did not acknowledge anything for {AWAY_SECONDS:.0f} s; send it again later")
        await self._room.given()

    def take(self, decoded: Decoded, receipt: Receipt, *, peer: str, identity: Identity, form: str) -> bool:
        """Take in a piece of an input; False, and nothing is taken in, when there is no room or Kafka is away."""
        now = self._clock()
        codes = self._codes(decoded, identity)
        if codes is None:
            return False
        good = self._good(decoded, codes, identity, now)
        everything = Columns(codes, decoded.time, decoded.value, decoded.seq)
        accepted = everything if good.all() else everything.rows(good)
        rejects = [*decoded.rejects, *(_refuse(decoded, i, now, identity) for i in np.flatnonzero(~good).tolist())]
        self._keep(decoded, accepted, receipt, identity, now)
        self._reject(rejects, receipt, peer, form, identity, now)
        texts = [self._store_attribute(attribute, receipt, now, identity) for attribute in decoded.attributes]
        self._reject([one for one in texts if one is not None], receipt, peer, SENML_JSON, identity, now)
        return True

    def take_clean(self, decoded: Decoded, receipt: Receipt) -> bool:
        """Take in a piece of plain readings if every one is good; else False, and nothing is taken in.

        For connectors that put what several peers sent together: each reading's name says its device, and whether its peer
        may speak for that was seen to. What is not clean has to be taken in message by message, so that each peer hears of
        its own readings alone.
        """
        now = self._clock()
        codes = self._codes(decoded, ANYONE)
        if codes is None or not self._good(decoded, codes, ANYONE, now).all():
            return False
        self._keep(decoded, Columns(codes, decoded.time, decoded.value, decoded.seq), receipt, ANYONE, now)
        return True

    def _codes(self, decoded: Decoded, identity: Identity) -> NDArray[np.int64] | None:
        """Return the numbers of the series, or -1, shape (n,); None when nothing can be taken in."""
        if len(self._series) > MAX_KNOWN_NAMES:
            self._forget_names()
        if self._room.is_full:
            return None
        codes = self._series.codes(decoded.names, identity.device, None if identity.others is None else identity.may_name)
        if self.is_away and any(map(self._is_away, self._series.partitions(codes[codes >= 0]).tolist())):
            return None
        return codes

    def _good(self, decoded: Decoded, codes: NDArray[np.int64], identity: Identity, now: int) -> NDArray[np.bool_]:
        """Tell which readings can be accepted, shape (n,)."""
        good: NDArray[np.bool_] = (codes >= 0) & np.isfinite(decoded.value)
        good &= (decoded.time >= now - MAX_PAST_US) & (decoded.time <= now + MAX_FUTURE_US)
        if identity.others is not None:
            good &= self._series.belong(codes, identity.may_name)
        return good

    def _keep(self, decoded: Decoded, accepted: Columns, receipt: Receipt, identity: Identity, now: int) -> None:
        """Put accepted readings on their way."""
        self._note_units(decoded, accepted, identity, now)
        self._series.announce(accepted.codes)
        self._store(accepted, receipt)
        self._note_skew(accepted, receipt, now)

    def _note_units(self, decoded: Decoded, accepted: Columns, identity: Identity, now: int) -> None:
        """Note units that are new, of accepted readings alone: who may not speak for a device does not change its units."""
        changed = self._units.changed(decoded.units, identity.device, now)
        codes = set(accepted.codes.tolist()) if changed else set()
        for name, unit in changed:
            if (code := self._series.code(name, identity.device)) in codes:
                self._units.note(name, identity.device, code, unit)

    def _store(self, accepted: Columns, receipt: Receipt) -> None:
        """Put readings into the buffers of their partitions."""
        self._room.take(len(accepted))
        receipt.accepted += len(accepted)
        partitions = self._series.partitions(accepted.codes)
        order = np.argsort(partitions, kind="stable")
        bounds = np.searchsorted(partitions[order], np.arange(len(self._buffers) + 1))
        for partition, (begin, end) in enumerate(pairwise(bounds.tolist())):
            if begin < end:
                self._buffers[partition].add(accepted.rows(order[begin:end]), receipt)
                self._filled[partition].set()

    def _store_attribute(self, attribute: Attribute, receipt: Receipt, now: int, identity: Identity) -> Rejected | None:
        """Put a string value into the buffer of its partition; returns the reject, as SenML, that it is instead."""
        try:
            series = series_name(attribute.series, identity.device)
            _check(series, attribute.time, now, identity)
        except InvalidReading as error:
            fields = {"n": attribute.series, "vs": attribute.text, "t": attribute.time / SECOND}
            return Rejected(error.reason, error.detail, msgspec.json.encode(fields))
        codes = self._series.codes([series], None)
        if codes[0] < 0:
            return _too_many(series, msgspec.json.encode({"n": series, "vs": attribute.text}))
        self._series.announce(codes)
        partition = int(self._series.partitions(codes)[0])
        self._room.take(weight(len(attribute.text)))
        receipt.accepted += 1
        self._buffers[partition].add_attribute(attribute._replace(series=series), receipt)
        self._filled[partition].set()
        return None

    def _note_skew(self, accepted: Columns, receipt: Receipt, now: int) -> None:
        """Flag readings that come from a clock which is ahead: no delay explains that."""
        ahead = np.flatnonzero(accepted.time > now + MAX_AHEAD_US)
        if not len(ahead):
            return
        receipt.skewed += len(ahead)
        self._account.skewed += len(ahead)
        _skewed.labels(self._protocol).inc(len(ahead))
        device = self._series.names[int(accepted.codes[ahead[0]])].partition("/")[0]
        if self._throttle(f"skew {device}") is not None:
            seconds = (int(accepted.time[ahead[0]]) - now) / SECOND
            log.warning("the clock of %s is %.0f s ahead; its readings are kept as they are", device, seconds)

    async def _pump(self, partition: int) -> None:
        """Send what gathers in a partition's buffer, one pack after the other."""
        filled, left_at = self._filled[partition], 0.0
        while True:
            await filled.wait()
            pause = left_at + self._linger - time.monotonic()
            if pause > 0 and len(self._buffers[partition]) < MAX_PACK_READINGS:
                await asyncio.sleep(pause)
            buffer, self._buffers[partition] = self._buffers[partition], Buffer()
            filled.clear()
            left_at = time.monotonic()
            for columns in buffer.cut(MAX_PACK_READINGS):
                for record in self._records(columns):
                    await self._deliver(partition, *record)
            for attributes in buffer.cut_attributes():
                size = sum(weight(len(attribute.text)) for attribute in attributes)
                await self._deliver(partition, len(attributes), size, self._pack(_NO_ROWS, {}, attributes).to_ipc())
            buffer.settle()

    async def _deliver(self, partition: int, count: int, size: int, record: bytes) -> None:
        self._offered_at[partition] = began = time.monotonic()
        await self._producer.deliver(READINGS, record, partition=partition)
        self._offered_at[partition] = None
        _deliveries.labels(self._protocol).observe(time.monotonic() - began)
        _packs.labels(self._protocol).observe(count)
        _accepted.labels(self._protocol).inc(count)
        self._account.accepted += count
        self._room.give(size)

    def _is_away(self, partition: int) -> bool:
        offered_at = self._offered_at[partition]
        return offered_at is not None and time.monotonic() - offered_at > AWAY_SECONDS

    def _records(self, columns: Columns) -> Iterator[tuple[int, int, bytes]]:
        """Yield (readings, their weight, pack as a record), in halves for as long as names make a record too large."""
        units = self._units.news(np.unique(columns.codes).tolist())
        pieces = [slice(0, len(columns))]
        while pieces:
            piece = pieces.pop()
            record = self._pack(columns.rows(piece), units).to_ipc()
            middle = (piece.start + piece.stop) // 2
            if len(record) <= MAX_VALUE_BYTES or middle == piece.start:
                yield piece.stop - piece.start, piece.stop - piece.start, record
            else:
                pieces += [slice(middle, piece.stop), slice(piece.start, middle)]

    def _pack(self, columns: Columns, units: Mapping[int, str], attributes: Sequence[Attribute] = ()) -> Pack:
        distinct, series = np.unique(columns.codes, return_inverse=True)
        names = {code: self._series.names[code] for code in distinct.tolist()}
        return Pack(
            names=list(names.values()),
            series=series.astype(np.int32),
            time=columns.time,
            value=columns.value,
            connector=self._instance,
            received_at=now_us(),
            units={name: units[code] for code, name in names.items() if code in units},
            seq=columns.seq,
            attributes=attributes,
        )

    def _reject(
        self, rejects: Sequence[Rejected], receipt: Receipt, peer: str, form: str, identity: Identity, now: int
    ) -> None:
        """Put what was refused on its way, what belongs together in one record."""
        if not rejects:
            return
        receipt.refuse(rejects)
        for group in _grouped(rejects) if is_joinable(form) else ([one] for one in rejects):
            record = RejectRecord.of(
                group, protocol=self._protocol, peer=peer, form=form, device=identity.device, received_at=now
            )
            receipt.expect()
            self._room.take(_reject_weight(record))
            self._rejects.put_nowait((record, receipt))
        if self._throttle(peer.rpartition(":")[0] or peer) is not None:
            log.warning("rejected from %s: %s: %s", peer, rejects[0].reason, rejects[0].detail)

    async def _pump_rejects(self) -> None:
        while True:
            batch = [await self._rejects.get()]
            while not self._rejects.empty() and len(batch) < MAX_REJECTS_AT_ONCE:
                batch.append(self._rejects.get_nowait())
            async with asyncio.TaskGroup() as tasks:
                for record, _ in batch:
                    key = record.device or record.peer
                    tasks.create_task(self._producer.deliver(REJECTS, record.to_json(), key=key))
            for record, receipt in batch:
                self._account.rejected[record.reason] += record.count
                _rejected.labels(self._protocol, record.reason).inc(record.count)
                self._room.give(_reject_weight(record))
                receipt.settle()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._room.emptied()
        except TimeoutError:
            log.error("stopped with %d readings that Kafka did not acknowledge", self._room.taken)

    def _forget_names(self) -> None:
        """Let nothing in until nothing in flight refers to the table of series, and begin a new one."""

        async def forget() -> None:
            await self._room.emptied()
            self._series = SeriesTable(len(self._buffers))
            self._units = Units()
            self._room.open()

        if not self._room.is_closed:
            self._room.close()
            self._tasks.create_task(forget(), name="forget-names")


def unacknowledged() -> Unavailable:
    """Return what a peer is told when Kafka takes too long."""
    return Unavailable(f"Kafka did not acknowledge within {REFUSE_SECONDS} s; send it again later")


_NO_ROWS = Columns(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0), None)


def _grouped(rejects: Sequence[Rejected]) -> Iterator[list[Rejected]]:
    """Yield runs of rejects that differ in their bytes alone, as long as a record keeps all of those."""
    for _, run in groupby(rejects, key=lambda one: (one.reason, one.device, one.size)):
        group: list[Rejected] = []
        size = 0
        for one in run:
            if group and (size + len(one.raw) >= MAX_REJECT_RAW_BYTES or one.size is not None):
                yield group
                group, size = [], 0
            group.append(one)
            size += len(one.raw) + 1
        yield group


def _reject_weight(record: RejectRecord) -> int:
    return weight(len(record.raw or record.raw_base64 or "") + len(record.detail))


def _refuse(decoded: Decoded, i: int, now: int, identity: Identity) -> Rejected:
    """Say why reading ``i`` cannot be accepted."""
    at, raw = decoded.source(i)
    device = identity.device
    try:
        series = series_name(decoded.names[i], identity.device)
        device = series.partition("/")[0]
        check_value(float(decoded.value[i]))
        _check(series, int(decoded.time[i]), now, identity)
    except InvalidReading as error:
        return Rejected(error.reason, error.detail, raw, device, at=at)
    return _too_many(series, raw, at)


def _too_many(series: str, raw: bytes, at: int = 0) -> Rejected:
    device, _, metric = series.partition("/")
    detail = f"{metric[:80]!r} is a new metric of {device!r}, which has {MAX_DEVICE_METRICS} already"
    return Rejected("too_many", detail, raw, device, at=at)


def _check(series: str, moment: int, now: int, identity: Identity) -> None:
    """See that a peer may say something of a series, and that its time can be right.

    Raises:
        InvalidReading: it may not, or it cannot.
    """
    device = series.partition("/")[0]
    if not identity.may_name(device):
        raise InvalidReading("identity", f"the reading names device {device!r}, the peer speaks for {identity.device!r}")
    check_time(moment, now)
