"""Rules as a form of text fields: what a person has typed becomes a rule, or a message at each field that is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import msgspec

from isotherm.clock import duration_us
from isotherm.errors import BadField, SettingsError
from isotherm.rules import Rule
from isotherm.rules.wording import about, condition, span

NUMBERS = ("above", "below", "clear_above", "clear_below", "hysteresis")
SPANS = ("window", "silence", "hold", "clear_after")
TEXTS = ("id", "kind", "name", "metric", "devices", "label", "type", "severity", "per", "expression", "message")

_OF_KIND = {
    "threshold": ("above", "below", "clear_above", "clear_below", "hysteresis", "hold", "clear_after", "metric"),
    "rate": ("above", "below", "clear_above", "clear_below", "hysteresis", "hold", "clear_after", "metric", "window", "per"),
    "silence": ("silence", "metric"),
    "expression": ("expression", "hold", "clear_after"),
}
"""What the form shows of each kind; of what it hides, nothing counts that was typed before."""

_OF_ALL = ("id", "kind", "name", "devices", "label", "type", "severity", "message", "enabled")


class WrongFields(SettingsError):
    """A form that is no rule.

    Attributes:
        fields: Field → what is wrong with it; the empty field's is about several of them.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {text}" for name, text in fields.items()))
        self.fields = fields


def rule_of(form: Mapping[str, Any]) -> Rule:
    """Return the rule that a form describes.

    Args:
        form: Field → text; ``enabled`` is a bool.

    Raises:
        WrongFields: it is none.
    """
    kind = str(form.get("kind", ""))
    shown = (*_OF_ALL, *_OF_KIND.get(kind, ()))
    typed = {name: str(form.get(name, "")).strip() for name in (*TEXTS, *NUMBERS, *SPANS) if name in shown}
    given: dict[str, Any] = {name: text for name, text in typed.items() if name in TEXTS and text}
    wrong: dict[str, str] = {}
    for names, read in ((NUMBERS, _number), (SPANS, duration_us)):
        for name in names:
            if typed.get(name):
                _put(given, wrong, name, typed[name], read)
    if kind == "silence" and not typed["silence"]:
        wrong["silence"] = "expected how long nothing comes before the alarm is raised, such as 10m"
    if wrong:
        raise WrongFields(wrong)
    try:
        return Rule(**{"id": "", "kind": kind, **given, "enabled": form.get("enabled", True) is not False})
    except BadField as error:
        raise WrongFields({error.field: error.expected}) from error


def _put(given: dict[str, Any], wrong: dict[str, str], name: str, text: str, read: Callable[[str], Any]) -> None:
    try:
        given[name] = read(text)
    except ValueError as error:
        wrong[name] = str(error)


def _number(text: str) -> float:
    try:
        value = float(text.replace(",", ".").replace("−", "-"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r}, expected a number such as 21.5")
    return value


def form_of(rule: Rule) -> dict[str, Any]:
    """Return the form that describes a rule, and what lists say of it (``about``, ``condition``)."""
    form: dict[str, Any] = {}
    for name in get_type_hints(Rule):
        value = getattr(rule, name)
        if name in SPANS:
            form[name] = span(value) if value else ""
        elif name in NUMBERS:
            form[name] = "" if value is None else f"{value:.15g}"
        else:
            form[name] = "" if value is None else value
    # What was there when somebody began to change it: a change of somebody else's in between is noticed.
    return {**form, "about": about(rule), "condition": condition(rule), "base": msgspec.json.encode(rule).decode()}
