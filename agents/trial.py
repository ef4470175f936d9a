"""A trial of an analytic: over stored history, without side effects, in a process that can be ended.

The same packs are taken in three times: as they are, put together otherwise, and with a restart in the middle. What comes of
them must be equal each time: that is what "continues exactly" rests on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from typing import Any

import numpy as np

from agents import loader
from agents.confined import confined
from agents.engine import Engine, Outputs, rows_after
from agents.gather import matcher
from agents.runner import Job
from isotherm.clock import now_us
from isotherm.errors import IsothermError
from isotherm.events import Event
from isotherm.limits import HOUR, MINUTE, SECOND
from isotherm.pack import Pack
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.reader import Reader

PACK_READINGS = 1_000
MAX_READINGS = 1_000_000
SHOWN_SERIES = 10
CHECK_READINGS = 20_000
"""How much of the last hour is enough to check a version."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a trial is over.

    Attributes:
        series: Pattern of series; empty for what the analytic reads.
        start, end: µs since the epoch UTC.
        readings: How many at most.
    """

    series: str
    start: int
    end: int
    readings: int = MAX_READINGS


@dataclass(slots=True)
class Outcome:
    """What came of a trial.

    Attributes:
        inputs_wanted: Patterns of what it reads.
        inputs_missing: Those that no series matches and that it cannot do without.
        series: Those that were read.
        inputs: The first few of them → times (µs) and values.
        readings: How many readings.
        is_made_up: There was no history: the readings were made up.
        derived: Derived series → times (µs) and values.
        units: Derived series → unit.
        events: In order.
        failures: What the function raised, and on what.
        seconds: How long one run took.
        problem: Why it does not pass, or empty.
    """

    inputs_wanted: list[str] = field(default_factory=list)
    inputs_missing: list[str] = field(default_factory=list)
    series: list[str] = field(default_factory=list)
    inputs: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    readings: int = 0
    is_made_up: bool = False
    derived: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Description:
    """What an analytic says of itself: what it reads and makes (metric → unit), its parameters, and what it does."""

    inputs: list[str]
    outputs: dict[str, str]
    parameters: dict[str, Any]
    text: str


def check(job: Job, settings: Settings, context: ForkServerContext) -> str:
    """Return why an analytic may not run, or an empty text."""
    now = now_us()
    return attempt(job, settings, context, Scope("", now - HOUR, now, CHECK_READINGS)).problem


def attempt(job: Job, settings: Settings, context: ForkServerContext, scope: Scope) -> Outcome:
    """Try an analytic in a process of its own."""
    try:
        return confined(context, job.path, _attempt, job, settings, scope)
    except IsothermError as error:
        return Outcome(problem=str(error))


def describe(job: Job, context: ForkServerContext) -> Description:
    """Let an analytic describe itself, in a process of its own unless it comes with Isotherm.

    Raises:
        AnalyticFailed: it cannot be loaded.
        SettingsError: its parameters are impossible.
    """
    if job.path.parent == loader.BUILT_IN:
        return _describe(job)
    return confined(context, job.path, _describe, job)


def _describe(job: Job) -> Description:
    analytic = loader.load(job.path)
    parameters = analytic.parameters(job.parameters)
    return Description(
        list(analytic.inputs(parameters)),
        dict(analytic.outputs(parameters)),
        parameters.model_dump(mode="json"),
        analytic.text,
    )


def _attempt(job: Job, settings: Settings, scope: Scope) -> Outcome:
    outcome = Outcome()
    asyncio.run(_try(job, settings, scope, outcome))
    return outcome


async def _try(job: Job, settings: Settings, scope: Scope, outcome: Outcome) -> None:
    analytic = loader.load(job.path)
    parameters = analytic.parameters({**settings.analytics.get(job.name, {}), **job.parameters})
    inputs = list(analytic.inputs(parameters))
    packs = await history(settings, ",".join(inputs), scope)
    outcome.inputs_wanted, outcome.is_made_up = inputs, not packs
    packs = packs or made_up(inputs, scope.end)
    names = {name for pack in packs for name in pack.names} if not outcome.is_made_up else set()
    outcome.inputs_missing = [pattern for pattern in inputs if not any(map(matcher(pattern), names))]
    if not analytic.needs_all_inputs and len(outcome.inputs_missing) < len(inputs):
        outcome.inputs_missing = []
    outcome.series = sorted({name for pack in packs for name in pack.names})
    outcome.readings = sum(len(pack.time) for pack in packs)
    outcome.inputs = {name: _column(packs, name) for name in outcome.series[:SHOWN_SERIES]}
    began = time.perf_counter()
    first = run_over(analytic.build(job.name, parameters), packs)
    outcome.seconds = time.perf_counter() - began
    _tell(first, outcome)
    if first.failures:
        outcome.problem = f"it raised on {len(first.failures)} of the readings, the first time:\n{outcome.failures[0]}"
        return
    told = _comparable(first)

    def build() -> Engine:
        return analytic.build(job.name, parameters)

    if _comparable(run_over(build(), packs, together=7)) != told:
        outcome.problem = "what it makes depends on which readings come together: keep what it remembers in its state"
    elif _comparable(run_over(build(), packs, after_restart=build)) != told:
        outcome.problem = "what it makes is different after a restart: keep what it remembers in its state"


async def history(settings: Settings, inputs: str, scope: Scope) -> list[Pack]:
    """Return stored readings as packs, in order of time; older ones are the means of their slots."""
    columns: list[tuple[int, Any, Any]] = []
    names: list[str] = []
    left = scope.readings
    matches = matcher(scope.series or "*")
    wanted = matcher(inputs)
    async with client.connected(settings) as redis:
        reader = Reader(redis, settings.partitions)
        names = [name for name in await reader.series() if wanted(name) and matches(name)]
        async for name, rows in reader.stored(names, scope.start, scope.end):
            here = (rows.time >= scope.start) & (rows.time < scope.end)
            columns.append((names.index(name), rows.time[here][:left], rows.mean[here][:left]))
            left -= len(columns[-1][1])
            if left <= 0:
                break
    if not columns or left == scope.readings:
        return []
    series = np.concatenate([np.full(len(time), which, dtype=np.int32) for which, time, _ in columns])
    when, value = (np.concatenate([column[at] for column in columns]) for at in (1, 2))
    order = np.argsort(when, kind="stable")
    return _packs(names, series[order], when[order], value[order])


def made_up(inputs: Sequence[str], end: int) -> list[Pack]:
    """Return readings of a device that has every metric that is asked for: a wave around 20, one a second."""
    names = [f"trial/{pattern.partition('/')[2].translate(_PLAIN) or 'value'}" for pattern in inputs]
    count = 600
    time_ = np.repeat(end - MINUTE * 10 + np.arange(count) * SECOND, len(names))
    value = 20 + 5 * np.sin(np.arange(count * len(names)) / 50)
    return _packs(names, np.tile(np.arange(len(names), dtype=np.int32), count), time_, value)


_PLAIN = str.maketrans(dict.fromkeys("*?[]", "x"))


def _packs(names: Sequence[str], series: Any, when: Any, value: Any) -> list[Pack]:
    return [
        Pack(
            names=names,
            series=series[at : at + PACK_READINGS],
            time=when[at : at + PACK_READINGS],
            value=value[at : at + PACK_READINGS],
            connector="trial",
            received_at=int(when[min(at + PACK_READINGS, len(when)) - 1]),
        )
        for at in range(0, len(when), PACK_READINGS)
    ]


def _column(packs: Sequence[Pack], name: str) -> tuple[Any, Any]:
    """Return the times and values of a series."""
    rows = [(pack, pack.series == list(pack.names).index(name)) for pack in packs if name in pack.names]
    return np.concatenate([pack.time[here] for pack, here in rows]), np.concatenate(
        [pack.value[here] for pack, here in rows]
    )


def run_over(
    engine: Engine, packs: Sequence[Pack], *, together: int = 1, after_restart: Callable[[], Engine] | None = None
) -> Outputs:
    """Return what comes of packs.

    Args:
        engine: A new one.
        packs: In order.
        together: How many are taken in at once.
        after_restart: Makes the engine that goes on in the middle.
    """
    outputs = Outputs()
    rows: dict[str, bytes] = {}
    for at in range(0, len(packs), together):
        if after_restart is not None and at == len(packs) // 2:
            engine = after_restart()
            engine.load(rows)
        outputs.add(engine.run(packs[at : at + together]))
        rows = rows_after(rows, engine.changes())
    return outputs


def _comparable(outputs: Outputs) -> tuple[Any, ...]:
    return sorted(outputs.readings()), sorted(event.to_json() for event in outputs.events), len(outputs.failures)


def _tell(outputs: Outputs, outcome: Outcome) -> None:
    readings: dict[str, list[tuple[int, float]]] = {}
    for name, when, value in outputs.readings():
        readings.setdefault(name, []).append((when, value))
    for name in sorted(readings):
        times, values = zip(*readings[name], strict=True)
        outcome.derived[name] = np.array(times), np.array(values)
    for one in outputs.derived:
        outcome.units |= dict.fromkeys(one.names, one.unit)
    outcome.events = outputs.events
    outcome.failures = [
        f"{type(error).__name__}: {error}, on {', '.join(pack.names[:3])}" for pack, error in outputs.failures[:10]
    ]
