"""Keeps the processes of a local stack running: starts them in the order of their needs, restarts those that die, stops
all of them in stages and leaves none behind.

Each part has one task, which is its whole life:

    waiting ─► starting ─► ready ─► (dies) ─► backing off ─► waiting …      a task that ends well is done
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO

import psutil

from isotherm.local.forked import Forked, Forks
from isotherm.local.parts import Part
from isotherm.process import die_with_parent, end

START_SECONDS = 180.0
"""A small board takes a minute to import what the pages need; killed then, it would never come to an end."""
PROBE_SECONDS = 0.05
BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
ABANDON_SECONDS = 2.0
"""How long a part may take to end when what it depends on is gone: there is nobody left to deliver to."""

RENEW_SECONDS = 10.0
"""How long a part may take to deliver what it has when another is about to start anew."""

HEALTHY_SECONDS = 30.0
"""A part that was ready for so long starts with a short back-off again."""

LAST_WORDS_BYTES = 4096
"""How much of a log's end is looked at for the last thing that a part said."""


Process = asyncio.subprocess.Process | Forked


class State(StrEnum):
    """Where a part is in its life."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing off"
    DONE = "done"
    STOPPED = "stopped"


@dataclass(slots=True)
class Status:
    """What is known of a part at this moment.

    Attributes:
        note: The last thing worth telling, such as why it was restarted.
        cpu_percent: Of one core, since the last look.
        memory_bytes: Resident.
    """

    part: Part
    state: State = State.WAITING
    pid: int | None = None
    restarts: int = 0
    note: str = ""
    ready_since: float | None = None
    cpu_percent: float = 0.0
    memory_bytes: int = 0


@dataclass(slots=True)
class _Child:
    """A part's process and what others need to wait for."""

    status: Status
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    renewing: bool = False
    process: Process | None = None
    meter: psutil.Process | None = None
    said_from: int = 0


class Supervisor:
    """Runs parts until told to stop."""

    def __init__(
        self,
        parts: Sequence[Part],
        environments: Mapping[str, Mapping[str, str]],
        log_dir: Path,
        tell: Callable[[Status], None],
    ) -> None:
        """Prepare.

        Args:
            parts: What to run; each comes after what it needs.
            environments: Part's name → its environment.
            log_dir: Gets one file per part.
            tell: Called after each change of a part's state.
        """
        self._children = {part.name: _Child(Status(part)) for part in parts}
        self._environments = environments
        self._log_dir = log_dir
        self._tell = tell
        self._forks = Forks()
        self._lives: dict[str, asyncio.Task[None]] = {}

    @property
    def statuses(self) -> list[Status]:
        """The parts, in their order."""
        return [child.status for child in self._children.values()]

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin every part's life, as tasks of the group."""
        self._log_dir.mkdir(parents=True, exist_ok=True)
        if any(child.status.part.is_ours for child in self._children.values()):
            self._forks.begin()
        for name, child in self._children.items():
            self._lives[name] = tasks.create_task(self._live(child), name=f"part-{name}")

    async def all_ready(self) -> None:
        """Return when every part is ready for the first time."""
        await asyncio.gather(*(child.ready.wait() for child in self._children.values()))

    async def stop(self, stages: Sequence[int], seconds: float) -> None:
        """Stop the parts of some stages together; what does not end within ``seconds`` is killed."""
        chosen = [child for child in self._children.values() if child.status.part.stage in stages]
        # A life that was starting a process hands it over first.
        await end(self._lives[child.status.part.name] for child in chosen)
        for child in chosen:
            _signal(child, child.status.part.stopped_by)
        for late in await _ended(chosen, seconds):
            late.status.note = f"did not stop within {seconds:.1f} s and was killed"
        for child in chosen:
            self._set(child, State.STOPPED)

    async def end(self) -> None:
        """Leave nothing behind, when all parts are stopped."""
        await self._forks.end()

    async def renew(self, name: str, drained: Callable[[], Awaitable[bool]]) -> bool:
        """Start a part anew without losing what only it remembers.

        First those of its dependents end that bring something in, then what they brought must be through, then the part
        itself ends; the lives of all of them start them again.

        Args:
            name: Of the part.
            drained: Waits, for a bounded time, until nothing depends on the part's memory any more; tells whether it is so.

        Returns:
            Whether it was done; if not, everything goes on as before.
        """
        child = self._children[name]
        dependents = [one for one in self._children.values() if name in one.status.part.restarts_with]
        first = min(one.status.part.stage for one in dependents)
        note = f"ended so that {name} can start anew"
        child.ready.clear()  # they start again when it is ready again
        await _end([one for one in dependents if one.status.part.stage == first], note, RENEW_SECONDS)
        if not await drained():
            child.ready.set()
            return False
        await _end([one for one in dependents if one.status.part.stage > first], note, RENEW_SECONDS)
        await _end([child], f"starts anew at {child.status.memory_bytes / 2**20:.0f} MiB", RENEW_SECONDS)
        return True

    def measure(self) -> None:
        """Update CPU and memory of every part."""
        for child in self._children.values():
            status = child.status
            try:
                status.cpu_percent = child.meter.cpu_percent() if child.meter else 0.0
                status.memory_bytes = child.meter.memory_info().rss if child.meter else 0
            except psutil.NoSuchProcess:
                status.cpu_percent, status.memory_bytes = 0.0, 0

    async def _live(self, child: _Child) -> None:
        failures = 0
        part = child.status.part
        while True:
            self._set(child, State.WAITING)
            await asyncio.gather(*(self._children[name].ready.wait() for name in part.needs))
            code = await self._run_once(child)
            if part.is_task and code == 0:
                self._set(child, State.DONE)
                return
            ready_since, child.status.ready_since = child.status.ready_since, None
            healthy = ready_since is not None and time.monotonic() - ready_since >= HEALTHY_SECONDS
            failures = 1 if healthy else failures + 1
            pause = BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS)) - 1]
            child.status.restarts += 1
            if not child.renewing:
                child.status.note = f"{_ending(code)}; starting again in {pause} s. {self._last_line(child)}"
            child.renewing = False
            self._set(child, State.BACKING_OFF)
            await self._restart_dependents(part)
            await asyncio.sleep(pause)

    async def _run_once(self, child: _Child) -> int:
        """Start a part, wait until it is ready, and then until it ends; returns its exit code."""
        part = child.status.part
        with self._log(part) as log:
            child.said_from = log.tell()
            spawning = asyncio.ensure_future(self._start(part, log))
            try:
                child.process = process = await asyncio.shield(spawning)
            except asyncio.CancelledError:
                child.process = await spawning  # whoever cancels us ends it
                raise
        try:
            child.status.pid = process.pid
            with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended already
                child.meter = psutil.Process(process.pid)
            self._set(child, State.STARTING)
            if await self._becomes_ready(part, process):
                child.status.ready_since = time.monotonic()
                child.ready.set()
                self._set(child, State.READY)
            return await process.wait()
        finally:
            child.ready.clear()
            child.status.pid = child.meter = None

    async def _start(self, part: Part, log: IO[bytes]) -> Process:
        environment = self._environments[part.name]
        if part.is_ours:
            return await self._forks.start(part.name, part.command(), environment, self._log_path(part), part.stopped_by)
        return await asyncio.create_subprocess_exec(
            *part.command(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(environment),
            start_new_session=True,  # a Ctrl-C on the terminal is the supervisor's to handle
            preexec_fn=lambda: die_with_parent(part.stopped_by),
        )

    async def _becomes_ready(self, part: Part, process: Process) -> bool:
        """Probe until the part is ready (True) or has ended (False); one that hangs at the start is killed."""
        deadline = time.monotonic() + START_SECONDS
        while process.returncode is None:
            if await part.ready():
                return True
            if time.monotonic() > deadline:
                process.kill()
                return False
            await asyncio.sleep(PROBE_SECONDS)
        return False

    async def _restart_dependents(self, part: Part) -> None:
        """End the parts that cannot go on without the memory of this one; their lives start them again."""
        dependents = [one for one in self._children.values() if part.name in one.status.part.restarts_with]
        await _end(dependents, f"ended because {part.name} did", ABANDON_SECONDS)

    def _set(self, child: _Child, state: State) -> None:
        if child.status.state is not state:
            child.status.state = state
            self._tell(child.status)

    def _log_path(self, part: Part) -> Path:
        return self._log_dir / f"{part.name}.log"

    @contextlib.contextmanager
    def _log(self, part: Part) -> Iterator[IO[bytes]]:
        with self._log_path(part).open("ab") as file:
            yield file

    def _last_line(self, child: _Child) -> str:
        """Return the last thing that the process which has ended wrote."""
        with contextlib.suppress(OSError), self._log_path(child.status.part).open("rb") as log:
            log.seek(max(child.said_from, log.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
            if lines:
                return f"Its last words: {lines[-1][:300]}"
        return "It said nothing."


async def _end(children: Sequence[_Child], note: str, seconds: float) -> None:
    """End parts on purpose; their lives start them again. What has not ended after ``seconds`` is killed."""
    running = [child for child in children if child.process is not None and child.process.returncode is None]
    for child in running:
        child.renewing = True
        child.status.note = note
        _signal(child, child.status.part.stopped_by)
    await _ended(running, seconds)


async def _ended(children: Sequence[_Child], seconds: float) -> list[_Child]:
    """Wait until the processes of parts have ended; returns those that had not after ``seconds`` and were killed."""
    waits = {asyncio.ensure_future(child.process.wait()): child for child in children if child.process}
    if not waits:
        return []
    _, late = await asyncio.wait(waits, timeout=seconds)
    for wait in late:
        _signal(waits[wait], signal.SIGKILL)
    await asyncio.wait(waits)
    return [waits[wait] for wait in late]


def _signal(child: _Child, number: signal.Signals) -> None:
    if child.process is not None and child.process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.process.send_signal(number)


def _ending(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
