"""How rules are told to people: what a rule is about, and when it raises its alarm."""

from __future__ import annotations

from isotherm.limits import DAY, HOUR, MINUTE, SECOND
from isotherm.rules.rule import Rule


def condition(rule: Rule) -> str:
    """Return in words when a rule raises its alarm.

    >>> condition(Rule(id="hot", kind="threshold", metric="temperature", above=30.0, hold=5 * MINUTE))
    'temperature above 30 for 5m'
    """
    if rule.kind == "expression":
        said = rule.expression
    elif rule.kind == "silence":
        said = f"{rule.metric or 'device'} silent for {span(rule.silence)}"
    else:
        sides = (("above", rule.above), ("below", rule.below))
        said = f"{rule.metric} " + " or ".join(f"{side} {limit:g}" for side, limit in sides if limit is not None)
    if rule.kind == "rate":
        said += f" per {rule.per or 'second'}, over {span(rule.window_us)}"
    return said + f" for {span(rule.hold)}" * bool(rule.hold)


def about(rule: Rule) -> str:
    """Return in words which devices a rule is about.

    >>> about(Rule(id="hot", kind="threshold", metric="temperature", above=30.0, devices="room-*", label="floor=2"))
    'room-* floor=2'
    """
    words = [rule.devices] * (rule.devices != "*") + [rule.label] * bool(rule.label) + [rule.type] * bool(rule.type)
    return " ".join(words) or "all"


def span(us: int) -> str:
    """Return a length of time, µs, as `isotherm.clock.duration_us` understands it.

    >>> span(90_000_000), span(5 * MINUTE), span(1_500_000)
    ('90s', '5m', '1.5s')
    """
    for size, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m")):
        if us and us % size == 0:
            return f"{us // size}{unit}"
    return f"{us / SECOND:g}s"
