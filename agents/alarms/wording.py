"""What an alarm says."""

from __future__ import annotations

from isotherm.limits import DAY, HOUR, MINUTE, SECOND
from isotherm.rules import Rule
from isotherm.units import symbol

_SIGNS = {"second": "s", "minute": "min", "hour": "h"}


def raised(rule: Rule, device: str, metric: str, value: float | None, unit: str, inputs: str) -> str:
    """Return what is said when an alarm is raised.

    Args:
        rule: Its rule.
        device, metric: What it is of.
        value: Of the reading, or the rate.
        unit: Of the value.
        inputs: Of an expression: its metrics with their values.
    """
    threshold = _threshold(rule, value)
    if rule.message:
        shown = inputs if value is None else number(value)
        return rule.message.format(device=device, metric=metric, value=shown, threshold=threshold, unit=symbol(unit))
    if rule.kind == "silence":
        return f"nothing came of {device} {metric}".rstrip() + f" for {threshold}"
    if rule.kind == "expression":
        return f"{device}: {threshold} ({inputs})"
    assert value is not None
    side = "above" if value > rule.limits.above else "below"
    verb = "changes by" if rule.kind == "rate" else "is"
    return f"{device} {metric} {verb} {measured(value, unit)}, {side} {threshold}"


def cleared(rule: Rule, device: str, metric: str, value: float | None, unit: str, inputs: str) -> str:
    """Return what is said when an alarm is cleared by a reading."""
    if rule.kind == "silence":
        return f"{device} {metric}".rstrip() + " is heard of again"
    if rule.kind == "expression":
        return f"{device}: no longer {rule.expression} ({inputs})"
    assert value is not None
    return f"{device} {metric} {'changes by' if rule.kind == 'rate' else 'is'} {measured(value, unit)} again"


def ended(rule_id: str, rule: Rule | None, device: str, is_gone: bool) -> str:
    """Return why an alarm is cleared without a reading."""
    if is_gone:
        return f"{device} was removed from the registry"
    if rule is None:
        return f"the rule {rule_id} was removed"
    if not rule.enabled:
        return f"the rule {rule_id} was disabled"
    return f"the rule {rule_id} was changed, and this is no longer its business"


def unit_of_rate(rule: Rule, unit: str) -> str:
    """Return the unit of a rate, such as ``Cel/min``."""
    return f"{unit or '1'}/{_SIGNS[rule.per or 'second']}"


def number(value: float) -> str:
    """Return a value as people read it."""
    return f"{value:.6g}"


def measured(value: float, unit: str) -> str:
    """Return a value with its unit, as people write it."""
    return f"{number(value)} {symbol(unit)}".rstrip()


def span(us: int) -> str:
    """Return a length of time as people say it.

    >>> span(90 * SECOND), span(2 * HOUR)
    ('90 s', '2 h')
    """
    for size, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if us >= size and us % size == 0:
            return f"{us // size} {unit}"
    return f"{number(us / SECOND)} s"


def _threshold(rule: Rule, value: float | None) -> str:
    if rule.kind == "silence":
        return span(rule.silence)
    if rule.kind == "expression":
        return rule.expression
    limits = rule.limits
    return number(limits.above if value is not None and value > limits.above else limits.below)
