"""How fast the engine is: many rules, many series, readings as fleets send them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np

from agents.alarms.directory import Directory
from agents.alarms.engine import AlarmEngine
from isotherm.limits import MINUTE, SECOND
from isotherm.pack import Pack
from isotherm.registry import Device
from isotherm.rules import Rule

DEVICES = 2_000
METRICS = ("temperature", "humidity", "pressure", "voltage", "current")
PER_SECOND = 50_000
PER_PACK = 1_000
SECONDS = 10
BEGIN = 1_800_000_000 * SECOND


def measure(*, mixed: bool, noisy: float = 0.0, seconds: int = SECONDS) -> dict[str, float]:
    """Run one rule a series, 10,000 in all, over readings at 50,000 a second.

    Values are within the limits, and a thousandth of the series crosses them each second.

    Args:
        mixed: Of ten rules seven are thresholds, and one each a rate, an expression and silence; else all are thresholds.
        noisy: Share of the series that is beyond its limit, so that its alarm is active throughout.
        seconds: How long the readings take, of which the first is not measured.

    Returns:
        CPU µs a reading, of `run` and `changes`, and a `tick` a second; ms of a refresh after a rule has changed.
    """
    devices = {f"device-{number}": Device(f"device-{number}", 0) for number in range(DEVICES)}
    rules = _rules(mixed)
    engine = AlarmEngine(Directory(rules, devices))
    engine.load({})
    spent, readings, events = 0.0, 0, 0
    for second, packs in enumerate(_packs(seconds, noisy)):
        began = time.process_time()
        for pack in packs:
            events += len(engine.run([pack]).events)
            engine.changes()
        events += len(engine.tick(packs[-1].received_at).events)
        engine.changes()
        if second:
            spent += time.process_time() - began
            readings += sum(len(pack.value) for pack in packs)
    began = time.process_time()
    engine.refresh(Directory(rules[1:], devices))
    refreshed = time.process_time() - began
    return {
        "rules": len(rules),
        "readings": readings,
        "us_per_reading": round(spent / readings * 1e6, 3),
        "refresh_ms": round(refreshed * 1e3, 1),
        "events": events,
    }


def _rules(mixed: bool) -> list[Rule]:
    """Return one rule a series."""
    rules = []
    for number in range(DEVICES * len(METRICS)):
        device, metric = f"device-{number // len(METRICS)}", METRICS[number % len(METRICS)]
        id, kind = f"rule-{number}", number // len(METRICS) % 10 if mixed else 0
        if kind == 7:
            rules.append(Rule(id=id, kind="rate", devices=device, metric=metric, above=1e6, window=10 * SECOND))
        elif kind == 8:
            rules.append(Rule(id=id, kind="expression", devices=device, expression=f"{metric} > 50 and voltage > 50"))
        elif kind == 9:
            rules.append(Rule(id=id, kind="silence", devices=device, metric=metric, silence=MINUTE))
        else:
            rules.append(
                Rule(id=id, kind="threshold", devices=device, metric=metric, above=50.0, below=-50.0, hysteresis=5.0)
            )
    return rules


def _packs(seconds: int, noisy: float) -> Iterator[Sequence[Pack]]:
    """Yield the packs of each second; each series comes as often as every other."""
    random = np.random.default_rng(1)
    names = [f"device-{device}/{metric}" for device in range(DEVICES) for metric in METRICS]
    loud = random.random(len(names)) < noisy
    for second in range(seconds):
        packs = []
        crossing = random.random(len(names)) < 0.001
        for number in range(PER_SECOND // PER_PACK):
            at = BEGIN + second * SECOND + number * (SECOND * PER_PACK // PER_SECOND)
            first = number * PER_PACK % len(names)
            some = np.arange(first, first + PER_PACK)
            value = 20.0 + random.normal(size=PER_PACK)
            value[loud[some]] += 40.0
            if number * PER_PACK < len(names):
                value[crossing[some]] += 40.0
            packs.append(
                Pack(
                    [names[one] for one in some],
                    np.arange(PER_PACK, dtype=np.int32),
                    np.full(PER_PACK, at, dtype=np.int64),
                    value,
                    "bench/1",
                    at,
                )
            )
        yield packs
