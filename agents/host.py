"""All analytics of this machine: a process each, kept running, and exchanged when its file or its parameters change.

    file or entry changes ──► trial in a process of its own ──► passes: the old process drains and ends, a new one goes on
                                                            └─► does not: the old one goes on, the status says why

Each process is its own consumer group, so one that is slow, hangs or dies does not concern the others. They are forked from
a server that has imported the libraries, so that they share most of their memory and start at once. The host runs no code of
an analytic's. It hears from each process every second; one that is silent hangs, and is killed. The records that it was busy
with are remembered: it gets them one by one then, and one that it hangs on again goes to ``rejects``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from prometheus_client.core import REGISTRY, GaugeMetricFamily
from prometheus_client.registry import Collector

from agents import child, loader, trial
from agents.runner import Job
from agents.shard import MAX_BATCH_RECORDS
from isotherm import health
from isotherm.analytics import Analytics, Entry, State, Status
from isotherm.clock import now_us
from isotherm.errors import SettingsError, Unavailable
from isotherm.logs import Throttle
from isotherm.process import end_fork_server, stop_signal
from isotherm.settings import Settings
from isotherm.store import client

LOOK_SECONDS = 1.0
"""How often files, entries and processes are looked at."""

STOP_SHARE = 1 / 20
"""How long a process may take to end, as a share of the time that its group would wait for it if it were killed."""

BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""How long a process that ended waits for its next start, by how often it has ended."""

STEADY_SECONDS = 60.0
"""A process that ran for so long begins with the least of them."""

log = logging.getLogger(__name__)

_context = multiprocessing.get_context("forkserver")


async def run(settings: Settings, only: Sequence[str] = ()) -> None:
    """Run analytics until SIGTERM or SIGINT.

    Args:
        settings: All of them.
        only: Names of those to run; all that are enabled without.

    Raises:
        SettingsError: one that was named is not there, or cannot be started.
        Unavailable: the store does not answer at the start.
    """
    stop = stop_signal()
    _context.set_forkserver_preload(["agents.child", "agents.trial", "isotherm.__main__"])
    async with client.connected(settings) as redis:
        host = Host(settings, Analytics(redis), only)
        REGISTRY.register(host)
        try:
            async with health.served(settings, host.waiting_for):
                await host.run(stop)
        finally:
            REGISTRY.unregister(host)


@dataclass(frozen=True, slots=True)
class Version:
    """What a process runs, and whether it is the same as another's."""

    entry: Entry
    path: Path
    digest: str


@dataclass(slots=True)
class Process:
    """A process of an analytic, over all its restarts."""

    version: Version
    running: ForkServerProcess | None = None
    pipe: Connection | None = None
    status: Status | None = None
    at: MutableSequence[int] = field(default_factory=list)
    heard_at: float = 0.0
    started_at: float = 0.0
    start_at: float = 0.0
    ended: int = 0
    problem: str = ""
    careful: dict[int, int] = field(default_factory=dict)
    poison: dict[int, set[int]] = field(default_factory=dict)


class Host(Collector):
    """Starts, watches and exchanges the processes."""

    def __init__(self, settings: Settings, analytics: Analytics, only: Sequence[str]) -> None:
        self._settings = settings
        self._analytics = analytics
        self._only = only
        self._processes: dict[str, Process] = {}
        self._refused: dict[str, tuple[Version, str]] = {}
        self._idle: dict[str, str] = {}  # name → what it waits for
        self._name = f"{socket.gethostname()}-{os.getpid()}"
        self._looked = False
        self._throttle = Throttle()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set."""
        try:
            while not stop.is_set():
                try:
                    await self._look()
                except Unavailable as error:
                    if self._throttle("away") is not None:
                        log.warning("%s; the analytics that run go on", error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
        finally:
            await asyncio.gather(*(self._end(process) for process in self._processes.values()))
            end_fork_server()

    def waiting_for(self) -> str | None:
        """Return None when it is known what is to run: how that is doing, `isotherm agent status` tells."""
        return None if self._looked else "waiting for the store"

    def collect(self) -> list[GaugeMetricFamily]:
        """Return what the processes have told, for Prometheus."""
        found = []
        for name, text in _METRICS.items():
            family = GaugeMetricFamily(f"isotherm_analytic_{name}", text, labels=["analytic"])
            for process in self._processes.values():
                if process.status is not None:
                    family.add_metric([process.status.name], float(getattr(process.status, name)))
            found.append(family)
        return found

    async def _look(self) -> None:
        wanted = await self._wanted()
        for name in self._processes.keys() - wanted.keys():
            log.info("%s is disabled", name)
            await self._end(self._processes.pop(name))
        for name in self._refused.keys() - wanted.keys():
            del self._refused[name]
        for name, version in wanted.items():
            await self._follow(name, version)
        for process in self._processes.values():
            await self._watch(process)
        await self._report()
        self._looked = True

    async def _wanted(self) -> dict[str, Version]:
        """Return name → what is to run of it."""
        entries = await self._analytics.entries()
        for name in self._only:
            if name not in entries:
                raise SettingsError(f"there is no analytic {name!r} to run: enable it, or choose of {', '.join(entries)}")
        chosen = [entry for name, entry in entries.items() if (name in self._only if self._only else entry.is_enabled)]
        idle = await self._analytics.idle()
        self._idle = {
            entry.name: idle[entry.analytic]
            for entry in chosen
            if entry.analytic in idle and entry.name not in self._processes
        }
        files = loader.find(self._settings)
        found = {}
        for entry in chosen:
            if entry.name in self._idle:
                continue
            path = files.get(entry.analytic)
            if path is None:
                if entry.name not in self._processes and self._throttle(entry.name) is not None:
                    log.error("%s is enabled, and there is no file %s.py", entry.name, entry.analytic)
                elif entry.name in self._processes:
                    found[entry.name] = self._processes[entry.name].version  # it goes on without its file
                continue
            try:
                found[entry.name] = Version(entry, path, hashlib.sha256(path.read_bytes()).hexdigest())
            except OSError as error:
                log.error("%s cannot be read: %s", path, error)
        return found

    async def _follow(self, name: str, version: Version) -> None:
        """See that what runs under a name is a version, if that passes the trial."""
        process = self._processes.get(name)
        if process is not None and process.version == version:
            self._refused.pop(name, None)  # it was changed back
            return
        if name in self._refused and self._refused[name][0] == version:
            return
        problem = await self._tried(version)
        if problem:
            self._refused[name] = (version, problem)
            log.error("%s is refused%s:\n%s", name, "; the old version goes on" if process else "", problem)
            return
        self._refused.pop(name, None)
        if process is not None:
            log.info("%s has changed: a new process goes on", name)
            await self._end(process)
        self._processes[name] = Process(version)

    async def _tried(self, version: Version) -> str:
        """Return what is wrong with a version, or nothing."""
        if version.path.parent == loader.BUILT_IN and not version.entry.parameters:
            return ""
        return await asyncio.to_thread(trial.check, _job(version), self._settings, _context)

    async def _watch(self, process: Process) -> None:
        """Start a process that does not run, and hear what one that does has to tell."""
        now = time.monotonic()
        if process.running is None:
            if now >= process.start_at:
                self._start(process)
            return
        self._hear(process)
        name = process.version.entry.name
        if process.running.exitcode is not None:
            if now - process.started_at > STEADY_SECONDS:
                process.ended = 0
            wait = BACK_OFF_SECONDS[min(process.ended, len(BACK_OFF_SECONDS) - 1)]
            code = process.running.exitcode
            process.problem = process.problem or f"it ended with {_exit_text(code)}"
            log.error("%s: %s; again in %g s", name, process.problem.splitlines()[-1], wait)
            self._suspect(process)
            self._forget(process)
            process.ended, process.start_at = process.ended + 1, now + wait
        elif now - process.heard_at > self._settings.hang_seconds:
            process.problem = f"it hung: nothing was heard of it for {self._settings.hang_seconds:g} s"
            log.error("%s: %s; it is killed", name, process.problem)
            process.running.kill()

    def _suspect(self, process: Process) -> None:
        """Remember what a process was busy with when it ended. What it ended on when it had it alone is poison."""
        for partition, offset in enumerate(process.at):
            if offset < 0:
                continue
            if offset <= process.careful.get(partition, -1):
                process.poison.setdefault(partition, set()).add(offset)
                log.error("%s: the record at %d/%d goes to rejects", process.version.entry.name, partition, offset)
            else:
                process.careful[partition] = offset + MAX_BATCH_RECORDS

    def _start(self, process: Process) -> None:
        ours, theirs = _context.Pipe(duplex=False)
        job = _job(process.version, process.careful, process.poison)
        process.at = _context.RawArray("q", [-1] * self._settings.partitions)
        arguments = (job, self._settings, theirs, process.at)
        running = _context.Process(target=child.main, args=arguments, name=job.name, daemon=True)
        running.start()
        theirs.close()
        process.running, process.pipe = running, ours
        process.started_at = process.heard_at = time.monotonic()
        process.problem = ""

    def _hear(self, process: Process) -> None:
        try:
            while process.pipe is not None and process.pipe.poll():
                told = process.pipe.recv()
                process.heard_at = time.monotonic()
                if isinstance(told, Status):
                    process.status = told
                elif told is not None:
                    process.problem = str(told)
        except EOFError:
            return  # it ends

    def _forget(self, process: Process) -> None:
        if process.running is not None:
            process.running.close()
        if process.pipe is not None:
            process.pipe.close()
        process.running = process.pipe = process.status = None

    async def _end(self, process: Process) -> None:
        """Let a process drain, and end."""
        if process.running is None:
            return
        if process.running.pid is not None and process.running.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.running.pid, signal.SIGTERM)
            await asyncio.to_thread(process.running.join, STOP_SHARE * self._settings.group_session_seconds)
            if process.running.exitcode is None:
                process.running.kill()
                await asyncio.to_thread(process.running.join)
        self._forget(process)

    async def _report(self) -> None:
        """Tell of those that do not run, which cannot tell it themselves."""
        await self._analytics.look(self._name)
        told: dict[str, tuple[State, str]] = {name: ("idle", why) for name, why in self._idle.items()}
        told |= {name: ("refused", problem) for name, (_, problem) in self._refused.items()}
        told |= {
            name: ("failing", process.problem)
            for name, process in self._processes.items()
            if process.running is None and process.problem
        }
        for name, (state, problem) in told.items():
            await self._analytics.report(Status(name=name, instance=self._name, at=now_us(), state=state, problem=problem))


_METRICS = {
    "lag": "Records on the topic that the analytic has not taken in",
    "packs": "Packs taken in each second",
    "readings": "Readings taken in each second",
    "us_per_reading": "CPU time of the analytic's code a reading, µs",
    "made": "Derived readings so far",
    "events": "Events so far",
    "errors": "Packs and readings that went to rejects so far",
}


def _job(version: Version, careful: Mapping[int, int] | None = None, poison: Mapping[int, set[int]] | None = None) -> Job:
    kept = {partition: frozenset(offsets) for partition, offsets in (poison or {}).items()}
    return Job(version.entry.name, version.path, dict(version.entry.parameters), dict(careful or {}), kept)


def _exit_text(code: int) -> str:
    return f"code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
