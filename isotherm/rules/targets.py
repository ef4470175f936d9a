"""What a rule is about: which devices, which series; and what was perhaps meant when that is nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from fnmatch import translate
from functools import lru_cache

from isotherm.expression import Expression
from isotherm.registry import Device
from isotherm.rules.rule import Rule

MAX_SUGGESTIONS = 5


@lru_cache(maxsize=20_000)
def matcher(pattern: str) -> Callable[[str], object]:
    """Return a function that tells whether a name matches a pattern of a shell, upper and lower case being different."""
    return re.compile(translate(pattern)).match


def matches(pattern: str, name: str) -> bool:
    """Tell whether a name matches a pattern of a shell."""
    return pattern in ("*", name) or matcher(pattern)(name) is not None


def is_for(rule: Rule, device: Device) -> bool:
    """Tell whether a rule is about a device, as far as that is registered."""
    return (
        matches(rule.devices, device.name)
        and (not rule.type or rule.type == device.type)
        and (not rule.label or device.has_label(rule.label))
    )


def metrics_of(rule: Rule) -> tuple[str, ...]:
    """Return the metrics, or patterns, whose readings a rule looks at."""
    return Expression.parse(rule.expression).variables if rule.kind == "expression" else (rule.metric or "*",)


def unknown(rule: Rule, series: Iterable[str], devices: Mapping[str, Device]) -> str:
    """Return why a rule would never look at anything, and what was perhaps meant; empty when it would.

    Args:
        rule: The rule.
        series: All series that are stored, ``device/metric``.
        devices: The registered devices by name.
    """
    by_device: dict[str, set[str]] = {}
    for name in series:
        device, _, metric = name.partition("/")
        by_device.setdefault(device, set()).add(metric)
    about = {name for name in by_device if is_for(rule, devices.get(name) or Device(name, 0))}
    if not about:
        said = (
            [f"devices {rule.devices}"]
            + [f"label {rule.label}"] * bool(rule.label)
            + [f"type {rule.type}"] * bool(rule.type)
        )
        return f"no device that has sent anything matches {', '.join(said)}" + _meant(rule.devices, by_device)
    sent = set().union(*(by_device[name] for name in about))
    for pattern in metrics_of(rule):
        if not any(matches(pattern, metric) for metric in sent):
            where = "no device" if rule.devices == "*" else f"no device that matches {rule.devices}"
            return f"{where} has sent a metric {pattern}" + _meant(pattern, sent)
    return ""


def _meant(text: str, known: Iterable[str]) -> str:
    """Return the known names that are near to a text."""
    names = sorted(known)
    near = get_close_matches(text, names, MAX_SUGGESTIONS, cutoff=0.5)
    near += [name for name in names if text.strip("*") and text.strip("*") in name and name not in near]
    if near:
        return f"; did you mean {', '.join(near[:MAX_SUGGESTIONS])}?"
    shown = ", ".join(names[:MAX_SUGGESTIONS]) + (", …" if len(names) > MAX_SUGGESTIONS else "")
    return f"; there are {shown}" if names else "; nothing is stored yet"
