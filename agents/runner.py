"""One analytic in a process of its own: loaded, fed by its consumer group, and watched."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents import faust_mend, loader
from agents.analysing import Meter, Suspicion
from agents.analytic import Analytic
from agents.plan import EnginePlan, Plan, Site
from agents.worker import Worker
from isotherm import kafka, ledger
from isotherm.analytics import FRESH_US, Analytics, Status
from isotherm.clock import now_us
from isotherm.errors import SettingsError, Unavailable
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.analytic import AnalyticStore, Outgoing
from isotherm.store.client import Client
from isotherm.topics import READINGS, TOPICS

REPORT_SECONDS = 1.0

FETCH_WAIT_MS = 200
FETCH_WAIT_BYTES = 2**20
"""How long a broker may hold back a fetch of an analytic, or until when."""

REST_SECONDS = 0.2
"""How long a partition rests at least. An analytic need not be as quick as what stores, and the more comes together the less
it costs."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a process is to run.

    Attributes:
        name: Of the analytic: its consumer group and its state.
        path: Its file.
        parameters: Those that are not as declared.
        careful, poison: Of records that it may hang on, see `Suspicion`.
    """

    name: str
    path: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    careful: Mapping[int, int] = field(default_factory=dict)
    poison: Mapping[int, frozenset[int]] = field(default_factory=dict)


Beat = Callable[[Status], None]
"""Is told every second how it goes."""


async def run(settings: Settings, job: Job, stop: asyncio.Event, beat: Beat, at: MutableSequence[int]) -> None:
    """Run an analytic until ``stop`` is set.

    Args:
        settings: All of them.
        job: What to run.
        stop: Ends it.
        beat: Is told how it goes.
        at: Partition → offset of the record that it is busy with, see `Suspicion`.

    Raises:
        AnalyticFailed: it cannot be loaded, or fails on everything.
        SettingsError: its parameters are impossible, or there are as many workers as partitions already.
        LogConflict: the store and the log contradict each other.
        Unavailable: a server did not answer at the start.
    """
    analytic = loader.load(job.path)
    parameters = analytic.parameters({**settings.analytics.get(job.name, {}), **job.parameters})
    faust_mend.let_fetches_wait(FETCH_WAIT_MS, FETCH_WAIT_BYTES)
    async with client.connected(settings) as redis:
        await _refuse_one_too_many(redis, job.name, settings.partitions)
        producer = kafka.Producer(settings, f"isotherm-{job.name}")
        await producer.start()
        try:
            await kafka.ensure_topics(settings)
            log_id = await kafka.cluster_id(settings)
            runner = Runner(
                settings, job, analytic, parameters, redis, producer, log_id, Suspicion(at, job.careful, job.poison)
            )
            await runner.run(stop, beat)
        finally:
            await producer.stop()


async def _refuse_one_too_many(redis: Client, name: str, partitions: int) -> None:
    """See that there is a partition left for one more worker.

    Raises:
        SettingsError: there is none.
    """
    for wait in (FRESH_US / 1e6, 0):
        others = [status for status in await Analytics(redis).running() if status.name == name and status.state == "running"]
        if len(others) < partitions:
            return
        await asyncio.sleep(wait)  # one of them may have been killed a moment ago
    raise SettingsError(
        f"{len(others)} workers run {name} already, one for each of the {partitions} partitions: another would have nothing "
        "to do. Run fewer, or create topics and store anew with more partitions (ISOTHERM_PARTITIONS)"
    )


class Runner:
    """An analytic at work."""

    def __init__(
        self,
        settings: Settings,
        job: Job,
        analytic: Analytic,
        parameters: Any,
        redis: Client,
        producer: kafka.Producer,
        log_id: str,
        suspicion: Suspicion,
    ) -> None:
        self._settings = settings
        self._job = job
        self._redis = redis
        self._producer = producer
        self._log_id = log_id
        self._instance = ledger.instance_of(f"agent/{job.name}")
        self._account = ledger.Account()
        self._makes_readings = bool(analytic.outputs(parameters))
        self._meter = Meter()
        self._store = AnalyticStore(redis, job.name, log_id)
        site = Site(
            job.name,
            self._instance,
            parameters,
            settings,
            redis,
            self._store,
            self._deliver,
            self._meter,
            suspicion,
        )
        self._plan: Plan = analytic.plan(site) if analytic.plan else EnginePlan(analytic, site)

    async def run(self, stop: asyncio.Event, beat: Beat) -> None:
        """Work until ``stop`` is set."""
        await self._plan.begin()
        worker = Worker(
            self._settings, self._job.name, self._plan.topic, self._plan.open, self._store.progress, REST_SECONDS
        )
        async with self._in_the_ledger():
            try:
                await worker.run(stop, self._keep_reporting(worker, beat), *self._plan.beside())
            finally:
                with contextlib.suppress(Unavailable):
                    await Analytics(self._redis).retract(self._status(worker, 1.0, self._meter))

    def _in_the_ledger(self) -> AbstractAsyncContextManager[None]:
        """Keep a line of the ledger, if there are derived readings to count."""
        if not self._makes_readings:
            return contextlib.nullcontext()
        return ledger.reported(self._redis, self._instance, self._log_id, self._account)

    async def _deliver(self, partition: int, outgoing: Sequence[Outgoing]) -> None:
        for topic, key, value, readings in outgoing:
            where = partition if topic == READINGS.name else None  # derived readings are of the same devices
            await self._producer.deliver(TOPICS[topic], value, partition=where, key=key)
            self._account.accepted += readings

    async def _keep_reporting(self, worker: Worker, beat: Beat) -> None:
        since, before = time.monotonic(), Meter()
        while True:
            seconds = time.monotonic() - since
            status = self._status(worker, seconds, before)
            since, before = time.monotonic(), Meter(self._meter.packs, self._meter.readings, seconds=self._meter.seconds)
            beat(status)
            with contextlib.suppress(Unavailable):  # of no use while the store is away
                await Analytics(self._redis).report(status)
            await asyncio.sleep(REPORT_SECONDS)

    def _status(self, worker: Worker, seconds: float, before: Meter) -> Status:
        meter = self._meter
        partitions = tuple(worker.partitions())
        readings = meter.readings - before.readings
        return Status(
            name=self._job.name,
            instance=self._instance.rpartition("/")[2],
            state="running" if worker.is_located() else "starting",
            at=now_us(),
            pid=os.getpid(),
            topic=self._plan.topic.name,
            partitions=partitions,
            lag=sum(worker.lag.values()),
            packs=(meter.packs - before.packs) / max(seconds, 1e-3),
            readings=readings / max(seconds, 1e-3),
            us_per_reading=1e6 * (meter.seconds - before.seconds) / readings if readings else 0.0,
            made=meter.made,
            events=meter.events,
            errors=meter.errors,
            problem=meter.problem,
        )
