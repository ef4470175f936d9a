"""A rule: what has to be so for an alarm to be raised, of which devices, and how bad that is.

kind        raised when                                            cleared when
----------  -----------------------------------------------------  ------------------------------------------------------
threshold   a reading is above ``above`` or below ``below``        one is neither beyond ``clear_above`` nor ``clear_below``
rate        the same, of the change ``per`` unit over ``window``   the same
silence     nothing came of the metric for ``silence``             anything comes
expression  the expression over a device's metrics is true         it is not

Every rule that exists has been checked: making an impossible one raises. Lengths of time are µs.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import msgspec

from isotherm.errors import SettingsError
from isotherm.events import SEVERITIES, Severity
from isotherm.limits import HOUR, MINUTE, SECOND
from isotherm.rules import check

Kind = Literal["threshold", "rate", "silence", "expression"]
Per = Literal["second", "minute", "hour"]

KINDS: tuple[Kind, ...] = get_args(Kind)
PER: dict[Per, int] = {"second": SECOND, "minute": MINUTE, "hour": HOUR}
"""Unit of time of a rate → µs."""

DEFAULT_WINDOW = 1 * MINUTE
"""Over which a change is measured."""

_OF_KIND: dict[str, tuple[Kind, ...]] = {
    "above": ("threshold", "rate"),
    "below": ("threshold", "rate"),
    "clear_above": ("threshold", "rate"),
    "clear_below": ("threshold", "rate"),
    "hysteresis": ("threshold", "rate"),
    "window": ("rate",),
    "per": ("rate",),
    "silence": ("silence",),
    "hold": ("threshold", "rate", "expression"),
    "clear_after": ("threshold", "rate", "expression"),
    "expression": ("expression",),
    "metric": ("threshold", "rate", "silence"),
}
"""Fields that only some kinds have."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A rule that can be kept.

    Attributes:
        id: What it is known by: lower-case letters, digits and - . _, the first a letter or digit.
        kind: See the table above.
        name: What people call it.
        metric: Metric, or a pattern of a shell over metrics (``*`` also matches slashes). Of silence it may be empty:
            then it is the device that is silent.
        devices: Device, or a pattern over devices.
        label: Only devices with this label: a word, a key, or ``key=value``; empty for any.
        type: Only devices of this type; empty for any.
        severity: One of isotherm.events.SEVERITIES.
        above, below: The alarm is raised beyond these; with both, the value belongs between them.
        clear_above, clear_below: The alarm is cleared when the value is not beyond these; by default above and below.
        hysteresis: Both at once: so far inside of ``above`` and ``below``, ≥ 0.
        window: Over which a rate is measured, µs, ≥ 1 s.
        per: Unit of time of a rate's limits.
        silence: How long nothing came, µs, ≥ 1 s.
        expression: See isotherm.expression.
        hold: How long the condition holds before the alarm is raised, µs.
        clear_after: How long it does not hold before the alarm is cleared, µs.
        message: What is said when the alarm is raised, with {device}, {metric}, {value}, {threshold} and {unit}; empty for a
            plain sentence.
        enabled: Whether it is evaluated.

    Raises:
        SettingsError: it is impossible; the text names the field, what it is, and what was expected.
    """

    id: str
    kind: Kind
    name: str = ""
    metric: str = ""
    devices: str = "*"
    label: str = ""
    type: str = ""
    severity: Severity = "warning"
    above: float | None = None
    below: float | None = None
    clear_above: float | None = None
    clear_below: float | None = None
    hysteresis: float | None = None
    window: int = 0
    per: Per | None = None
    silence: int = 0
    expression: str = ""
    hold: int = 0
    clear_after: int = 0
    message: str = ""
    enabled: bool = True

    def __post_init__(self) -> None:
        """Refuse what is impossible."""
        check.identifier(self.id)
        if self.kind not in KINDS:
            raise check.refused("kind", self.kind, f"expected one of {', '.join(KINDS)}")
        for field, kinds in _OF_KIND.items():
            if self.kind not in kinds and (value := getattr(self, field)) not in (None, 0, ""):
                raise check.refused(field, value, f"a rule of kind {self.kind} has none, only {' and '.join(kinds)}")
        if self.severity not in SEVERITIES:
            raise check.refused("severity", self.severity, f"expected one of {', '.join(SEVERITIES)}")
        check.targets(self.devices, self.metric, self.label, self.type, needs_metric=self.kind in ("threshold", "rate"))
        check.text("name", self.name)
        check.template(self.message)
        check.duration("hold", self.hold)
        check.duration("clear_after", self.clear_after)
        if self.kind in ("threshold", "rate"):
            check.limits(self.above, self.below, self.clear_above, self.clear_below, self.hysteresis)
        if self.kind == "rate":
            check.duration("window", self.window or DEFAULT_WINDOW, least=SECOND)
            if self.per is not None and self.per not in PER:
                raise check.refused("per", self.per, f"expected one of {', '.join(PER)}")
        elif self.kind == "silence":
            check.duration("silence", self.silence, least=SECOND)
        elif self.kind == "expression":
            check.expression(self.expression)

    @property
    def limits(self) -> Limits:
        """The limits of a threshold or a rate."""
        margin = self.hysteresis or 0.0
        above = math.inf if self.above is None else self.above
        below = -math.inf if self.below is None else self.below
        return Limits(
            above,
            below,
            above - margin if self.clear_above is None else self.clear_above,
            below + margin if self.clear_below is None else self.clear_below,
        )

    @property
    def per_us(self) -> int:
        """Unit of time of a rate, µs."""
        return PER[self.per or "second"]

    @property
    def window_us(self) -> int:
        """Over which a rate is measured, µs."""
        return self.window or DEFAULT_WINDOW

    def to_json(self) -> bytes:
        """Encode; what is as by default is left out."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes | str) -> Rule:
        """Decode and check.

        Raises:
            SettingsError: it is no rule, has a field that rules have not, or is impossible.
        """
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError as error:
            raise SettingsError(f"this is no rule: {error}") from error


class Limits(msgspec.Struct, frozen=True):
    """Limits of a value: ``above`` and ``below`` are ±inf where there is none.

    It is beyond them when it is > above or < below; within, when it is <= clear_above and >= clear_below.
    """

    above: float
    below: float
    clear_above: float
    clear_below: float
