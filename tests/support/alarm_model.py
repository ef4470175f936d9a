"""Alarms, naively: one reading after the other, one rule after the other, no arrays, no index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from isotherm.expression import Expression, is_true
from isotherm.pack import Pack
from isotherm.registry import Device
from isotherm.rules import Rule
from isotherm.rules.targets import is_for, matches

GAP = 30_000_000


class Told(NamedTuple):
    """What is compared of an event."""

    kind: str
    alarm: str
    since: int
    time: int
    value: float | None


@dataclass
class State:
    """An alarm."""

    rule: Rule
    sources: list[str]
    phase: str = "normal"
    waiting: int = 0
    since: int = 0
    cleared: int = 0


class Model:
    """Does what agents.alarms says that the engine does."""

    def __init__(self, rules: Sequence[Rule], devices: Mapping[str, Device]) -> None:
        self.rules = sorted((rule for rule in rules if rule.enabled), key=lambda rule: rule.id)
        self.devices = devices
        self.newest: dict[str, tuple[int, float]] = {}
        self.heard: dict[str, int] = {}
        self.windows: dict[tuple[str, str], list[tuple[int, float]]] = {}
        self.alarms: dict[str, State] = {}
        self.ticked: int | None = None
        self.resumed = 0
        self.received = 0

    def run(self, pack: Pack) -> Iterator[Told]:
        """Take in a pack."""
        self.received = max(self.received, pack.received_at)
        rows = zip(pack.series.tolist(), pack.time.tolist(), pack.value.tolist(), strict=True)
        self.in_pack: set[str] = set()
        for index, time, value in rows:
            yield from self.reading(pack.names[index], time, value, pack.received_at)

    def reading(self, series: str, time: int, value: float, received_at: int) -> Iterator[Told]:
        """Take in a reading."""
        device, _, metric = series.partition("/")
        for name in (series, device):
            self.heard[name] = max(self.heard.get(name, 0), received_at)
        newest = self.newest.get(series, (0, 0.0))[0]
        is_fresh = time > newest or (time == newest and series in self.in_pack)
        if is_fresh:
            self.newest[series] = time, value
            self.in_pack.add(series)
        for rule in self.rules:
            if not is_for(rule, self.devices.get(device, Device(device, 0))):
                continue
            if rule.kind == "silence":
                state = self.alarms.get(f"{rule.id}/{series if rule.metric else device}")
                if state and state.phase == "active" and (not rule.metric or matches(rule.metric, metric)):
                    state.phase, state.cleared = "normal", max(received_at, state.since)
                    yield self.told("cleared", state, received_at, None)
            elif is_fresh:
                yield from self.look(rule, device, metric, time, value)

    def look(self, rule: Rule, device: str, metric: str, time: int, value: float) -> Iterator[Told]:
        """Let a rule look at a reading."""
        limits = rule.limits
        said: float | None = value
        key, sources = f"{rule.id}/{device}/{metric}", [f"{device}/{metric}"]
        if rule.kind == "expression":
            expression = Expression.parse(rule.expression)
            sources = [f"{device}/{one}" for one in expression.variables]
            if metric not in expression.variables or any(source not in self.newest for source in sources):
                return
            is_so = is_true(expression(*(self.newest[source][1] for source in sources)))
            verdict = "beyond" if is_so else "within"
            key, said, time = f"{rule.id}/{device}", None, max(self.newest[source][0] for source in sources)
        elif not matches(rule.metric, metric):
            return
        elif rule.kind == "rate":
            found = self.rate(rule, sources[0], time, value)
            if found is None:
                return
            said = value = found
        if rule.kind != "expression":
            verdict = "beyond" if value > limits.above or value < limits.below else "between"
            if limits.clear_below <= value <= limits.clear_above:
                verdict = "within"
        state = self.alarms.setdefault(key, State(rule, sources))
        yield from self.step(state, verdict, time, said)
        if state.phase == "normal" and not state.since:
            del self.alarms[key]

    def rate(self, rule: Rule, series: str, time: int, value: float) -> float | None:
        """Return the rate at a reading."""
        points = self.windows.setdefault((rule.id, series), [])
        before = [point for point in points if point[0] <= time - rule.window_us]
        if not points or time - points[-1][0] >= rule.window_us // 32:
            points.append((time, value))
        return (value - before[-1][1]) / (time - before[-1][0]) * rule.per_us if before else None

    def step(self, state: State, verdict: str, time: int, value: float | None) -> Iterator[Told]:
        """Move an alarm."""
        if state.phase in ("normal", "pending"):
            if verdict != "beyond":
                state.phase, state.waiting = "normal", 0
                return
            if state.phase == "normal":
                state.waiting = time
            state.phase = "pending"
            if time - state.waiting >= state.rule.hold:
                yield self.raised(state, time, value)
            return
        if verdict != "within":
            state.phase, state.waiting = "active", 0
            return
        if state.phase == "active":
            state.waiting = time
        state.phase = "clearing"
        if time - state.waiting >= state.rule.clear_after:
            yield self.cleared(state, time, value)

    def raised(self, state: State, time: int, value: float | None) -> Told:
        """Raise an alarm."""
        state.phase, state.waiting, state.cleared = "active", 0, 0
        state.since = max(time, state.since + 1)
        return self.told("raised", state, state.since, value)

    def cleared(self, state: State, time: int, value: float | None) -> Told:
        """Clear an alarm."""
        state.phase, state.waiting, state.cleared = "normal", 0, max(time, state.since)
        return self.told("cleared", state, time, value)

    def told(self, what: str, state: State, time: int, value: float | None) -> Told:
        """Return what is said."""
        key = next(key for key, one in self.alarms.items() if one is state)
        return Told(f"alarm.{what}", key, state.since, max(time, state.since), value)

    def tick(self, now: int) -> Iterator[Told]:
        """Let time pass."""
        if self.ticked is None or now - self.ticked > GAP or (self.received and now - self.received > GAP):
            self.resumed = now
        self.ticked, self.received = now, 0
        told = [*self.elapsed(now), *self.silent(now)]
        yield from sorted(told, key=lambda one: one.alarm)

    def elapsed(self, now: int) -> Iterator[Told]:
        """Raise and clear what is held while nothing comes."""
        for state in list(self.alarms.values()):
            if not state.waiting or state.rule.kind == "rate":
                continue
            known = [source for source in state.sources if source in self.newest]
            seen = max(self.newest[source][0] for source in known)
            lasted = seen - state.waiting + now - max(self.resumed, *(self.heard.get(source, 0) for source in known))
            value = None if state.rule.kind == "expression" else self.newest[state.sources[0]][1]
            if state.phase == "pending" and lasted >= state.rule.hold:
                yield self.raised(state, max(state.waiting + state.rule.hold, seen), value)
            elif state.phase == "clearing" and lasted >= state.rule.clear_after:
                yield self.cleared(state, max(state.waiting + state.rule.clear_after, seen), value)

    def silent(self, now: int) -> Iterator[Told]:
        """Raise what is silent."""
        for rule in self.rules:
            for name in self.minded(rule):
                if name not in self.heard:
                    self.heard[name] = now
                state = self.alarms.setdefault(f"{rule.id}/{name}", State(rule, []))
                if state.phase == "normal" and now - max(self.heard[name], self.resumed) >= rule.silence:
                    yield self.raised(state, now, None)
                if not state.since:
                    del self.alarms[f"{rule.id}/{name}"]

    def minded(self, rule: Rule) -> list[str]:
        """Return what a rule minds the silence of."""
        if rule.kind != "silence":
            return []
        about = {name for name, device in self.devices.items() if is_for(rule, device)}
        if not rule.metric:
            return sorted(about)
        known = (name.partition("/") for name in self.heard)
        return [
            f"{device}/{metric}"
            for device, slash, metric in known
            if slash and device in about and matches(rule.metric, metric)
        ]

    def restart(self) -> None:
        """Begin to listen anew: everything that was seen is kept."""
        self.ticked, self.received = None, 0
