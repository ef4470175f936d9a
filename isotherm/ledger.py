"""The ledger: what every connector took in, and what of it is stored.

    received = accepted + rejected          accepted = stored + duplicates + in flight + lost

A connector process counts in its own memory and writes absolute numbers to Redis every second, so a repeated write does
no harm. The far end, ``stored`` and ``duplicates`` (sent again, with the number of a reading that is stored), is counted by
the commit script in the same atomic step that stores the readings. A connector that is killed may not have written its last
second: then more has come to the far end than it reported, and what has come there was accepted, so the greater number
counts. What was accepted into a log that is gone (the embedded broker forgets its log when it ends) and never stored is not
in flight: it is lost, and said to be.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from isotherm.clock import now_us
from isotherm.logs import Throttle
from isotherm.store import layout
from isotherm.store.client import Client
from isotherm.store.reader import answering

REPORT_SECONDS = 1.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Account:
    """What one connector process counted since it started, in readings.

    Attributes:
        accepted: Acknowledged by Kafka.
        rejected: By reason.
        skewed: Of the accepted, those from a clock that is ahead.
    """

    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    skewed: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the ledger, in readings; ``skewed`` counts accepted ones that came from a clock which is ahead."""

    received: int = 0
    accepted: int = 0
    rejected: int = 0
    stored: int = 0
    duplicates: int = 0
    in_flight: int = 0
    lost: int = 0
    skewed: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Line) -> Line:
        sums: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in COLUMNS}
        return Line(**sums, reasons=Counter(self.reasons) + Counter(other.reasons))


@dataclass(frozen=True, slots=True)
class Shard:
    """What of a partition is stored, in readings."""

    stored: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """The whole ledger.

    Attributes:
        connectors: Protocol → line.
        shards: One a partition.
        processes: Connector process, such as ``tcp/6f1c02d9`` → when it last reported, µs since the epoch UTC; 0 when
            it did before reports had a time, or is known by what it has stored only.
    """

    connectors: Mapping[str, Line]
    shards: Sequence[Shard]
    processes: Mapping[str, int]


COLUMNS = ("received", "accepted", "rejected", "stored", "duplicates", "in_flight", "lost", "skewed")


def instance_of(protocol: str) -> str:
    """Return a name for this process's part in the ledger, such as ``tcp/6f1c02d9``."""
    return f"{protocol}/{os.urandom(4).hex()}"


async def report(redis: Client, instance: str, log_id: str, account: Account) -> None:
    """Write an account to the store; absolute numbers, so it may be repeated.

    Raises:
        RedisError: the store did not take it.
    """
    fields: dict[str, str | int] = {"log": log_id, "accepted": account.accepted, "skewed": account.skewed, "at": now_us()}
    fields |= {f"rejected:{reason}": count for reason, count in account.rejected.items()}
    await redis.hset(layout.CONNECTOR_PREFIX + instance, mapping=fields)


@contextlib.asynccontextmanager
async def reported(redis: Client, instance: str, log_id: str, account: Account) -> AsyncIterator[None]:
    """Keep the ledger for the length of the block, and close it with the last numbers."""
    reporting = asyncio.create_task(_keep_reporting(redis, instance, log_id, account), name="ledger")
    try:
        yield
    finally:
        reporting.cancel()
        try:
            await report(redis, instance, log_id, account)
        except RedisError as error:
            log.warning("the ledger's last second is not written: %s", error)


async def _keep_reporting(redis: Client, instance: str, log_id: str, account: Account) -> None:
    throttle = Throttle()
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        try:
            await report(redis, instance, log_id, account)
        except RedisError as error:
            if throttle("report") is not None:
                log.warning("the ledger is not written while the store is away: %s", error)


async def read(redis: Client, partitions: int, log_id: str) -> dict[str, Line]:
    """Return protocol → line; see `read_all`."""
    return dict((await read_all(redis, partitions, log_id, await processes(redis))).connectors)


async def processes(redis: Client) -> set[str]:
    """Return the connector processes that have ever reported.

    This looks at every key of the store: not something to do every second.

    Raises:
        Unavailable: the store does not answer.
    """
    with answering():
        keys = [key async for key in redis.scan_iter(match=layout.CONNECTOR_PREFIX + "*", count=1000)]
    return {key.decode().removeprefix(layout.CONNECTOR_PREFIX) for key in keys}


async def read_all(redis: Client, partitions: int, log_id: str | None, known: Collection[str]) -> Ledger:
    """Return the ledger.

    Args:
        redis: The store.
        partitions: Number of shards.
        log_id: Identity of the log that exists now; what only older logs hold is lost. With None, when nobody knows it,
            that counts as in flight.
        known: The connector processes, of `processes`. One that is not among them is told by what it has stored, and
            can be known from then on.

    Raises:
        Unavailable: the store does not answer.
    """
    names = sorted(known)
    reports = await _hashes(redis, [layout.CONNECTOR_PREFIX + name for name in names])
    reported = dict(zip(names, reports, strict=True))
    # After the connectors' side: a reading accepted in between would otherwise look stored but not accepted.
    keys = [key(partition) for key in (layout.stored_key, layout.duplicates_key) for partition in range(partitions)]
    counts = [Counter({name: int(count) for name, count in found.items()}) for found in await _hashes(redis, keys)]
    stored, duplicates = _sum(counts[:partitions]), _sum(counts[partitions:])
    lines: dict[str, Line] = {}
    seen: dict[str, int] = {}
    for instance in sorted({*stored, *duplicates, *(name for name, report in reported.items() if report)}):
        protocol, report = instance.partition("/")[0], reported.get(instance, {})
        line = _line(report, stored[instance], duplicates[instance], log_id)
        lines[protocol] = lines.get(protocol, Line()) + line
        seen[instance] = int(report.get("at", 0))
    shards = [Shard(counts[at].total(), counts[partitions + at].total()) for at in range(partitions)]
    return Ledger(lines, shards, seen)


async def _hashes(redis: Client, keys: Sequence[str]) -> list[dict[str, str]]:
    with answering():
        async with redis.pipeline(transaction=False) as look:
            for key in keys:
                look.hgetall(key)
            return [{name.decode(): value.decode() for name, value in one.items()} for one in await look.execute()]


def _sum(counts: Sequence[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return total


def _line(reported: Mapping[str, str], stored: int, duplicates: int, log_id: str | None) -> Line:
    reasons = {
        name.removeprefix("rejected:"): int(count) for name, count in reported.items() if name.startswith("rejected:")
    }
    rejected = sum(reasons.values())
    accepted = max(int(reported.get("accepted", 0)), stored + duplicates)
    open_readings = accepted - stored - duplicates
    gone = log_id is not None and reported.get("log", log_id) != log_id
    return Line(
        received=accepted + rejected,
        accepted=accepted,
        rejected=rejected,
        stored=stored,
        duplicates=duplicates,
        in_flight=0 if gone else open_readings,
        lost=open_readings if gone else 0,
        skewed=int(reported.get("skewed", 0)),
        reasons=reasons,
    )
