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
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from isotherm.errors import Unavailable
from isotherm.logs import Throttle
from isotherm.store import layout
from isotherm.store.client import Client

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


COLUMNS = ("received", "accepted", "rejected", "stored", "duplicates", "in_flight", "lost", "skewed")


def instance_of(protocol: str) -> str:
    """Return a name for this process's part in the ledger, such as ``tcp/6f1c02d9``."""
    return f"{protocol}/{os.urandom(4).hex()}"


async def report(redis: Client, instance: str, log_id: str, account: Account) -> None:
    """Write an account to the store; absolute numbers, so it may be repeated.

    Raises:
        RedisError: the store did not take it.
    """
    fields: dict[str, str | int] = {"log": log_id, "accepted": account.accepted, "skewed": account.skewed}
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
    """Return protocol → line.

    Args:
        redis: The store.
        partitions: Number of shards.
        log_id: Identity of the log that exists now; what only older logs hold is lost.

    Raises:
        Unavailable: the store does not answer.
    """
    stored: Counter[str] = Counter()
    duplicates: Counter[str] = Counter()
    reported: dict[str, dict[str, str]] = {}
    try:
        async for key in redis.scan_iter(match=layout.CONNECTOR_PREFIX + "*", count=1000):
            fields = await redis.hgetall(key.decode())
            name = key.decode().removeprefix(layout.CONNECTOR_PREFIX)
            reported[name] = {field.decode(): value.decode() for field, value in fields.items()}
        # After the connectors' side: a reading accepted in between would otherwise look stored but not accepted.
        for partition in range(partitions):
            for total, counted in ((stored, layout.stored_key), (duplicates, layout.duplicates_key)):
                counts = await redis.hgetall(counted(partition))
                total.update({instance.decode(): int(count) for instance, count in counts.items()})
    except RedisError as error:
        raise Unavailable(f"the store does not answer: {error}") from error
    lines: dict[str, Line] = {}
    for instance in sorted({*stored, *duplicates, *reported}):
        protocol = instance.partition("/")[0]
        line = _line(reported.get(instance, {}), stored[instance], duplicates[instance], log_id)
        lines[protocol] = lines.get(protocol, Line()) + line
    return lines


def _line(reported: Mapping[str, str], stored: int, duplicates: int, log_id: str) -> Line:
    reasons = {
        name.removeprefix("rejected:"): int(count) for name, count in reported.items() if name.startswith("rejected:")
    }
    rejected = sum(reasons.values())
    accepted = max(int(reported.get("accepted", 0)), stored + duplicates)
    open_readings = accepted - stored - duplicates
    gone = reported.get("log", log_id) != log_id
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
