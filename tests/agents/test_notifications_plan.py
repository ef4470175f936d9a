"""The sink of notifications: events of one partition into its router."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from agents.analysing import Meter, Suspicion
from agents.notifications.courier import Courier
from agents.notifications.plan import Notifying
from agents.plan import Site
from agents.shard import LogRecord
from isotherm.rejects import RejectRecord
from isotherm.settings import Settings
from isotherm.store.analytic import AnalyticStore, Outgoing
from isotherm.store.client import Client
from isotherm.topics import REJECTS
from tests.support.notifications import event


class Ended:
    """A log that ends at its first record."""

    async def start(self) -> int:
        return 0

    async def end(self) -> int:
        return 0

    async def seek(self, offset: int) -> None:
        raise AssertionError("nobody asks for it")

    async def mark(self, offset: int) -> str | None:
        raise AssertionError("nobody asks for it")


async def test_what_is_no_event_goes_to_rejects_with_its_bytes_and_the_events_beside_it_count(
    redis: Client, tmp_path: Path
) -> None:
    delivered: list[Outgoing] = []

    async def deliver(partition: int, records: Sequence[Outgoing]) -> None:
        delivered.extend(records)

    meter = Meter()
    store = AnalyticStore(redis, "notifications", "log")
    site = Site(
        "notifications", "agent/1", None, Settings(data_dir=tmp_path), redis, store, deliver, meter, Suspicion(at=[-1])
    )
    sinks: list[Notifying] = []
    courier = Courier(lambda _: sinks[0].save())
    courier.refresh([], frozenset())
    sinks.append(Notifying(0, site, courier, Ended()))
    await sinks[0].progress()
    values = [event(1).to_json(), b"\x00no event", event(2).to_json()]
    records = [LogRecord(offset, value, lambda: None) for offset, value in enumerate(values)]
    assert await sinks[0].apply(records, 0) == 2
    assert (meter.events, meter.errors) == (2, 1)
    [outgoing] = delivered
    reject = msgspec.json.decode(outgoing.value, type=RejectRecord)
    assert (outgoing.topic, reject.reason, reject.raw) == (REJECTS.name, "analytic", "\x00no event")
    assert reject.detail.startswith("events/0/1 is no event: ")
    found = await store.progress(0)
    assert found is not None
    assert found.next == 3
