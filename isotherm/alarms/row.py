"""A row of the table of alarms: what the engine knows of one rule on one series or device.

The engine keeps it under ``iso:{p}:agent:alarms:state``, as msgpack, in the field ``RULE/DEVICE/METRIC``; of a whole device
``RULE/DEVICE``. Beside it are rows of what it has seen of series, whose fields have a colon where that has the rule
(agents/alarms/memory.py).

An alarm is *raised* at ``since`` and *cleared* at ``cleared``; both together with the key name one occurrence. A row is
there before its first occurrence while a condition holds that has to be held.
"""

from __future__ import annotations

import msgspec

from isotherm.events import Severity

ENGINE = "alarms"
"""Name of the analytic."""


class AlarmRow(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One alarm.

    Attributes:
        rule, kind, device, metric: What it is of; metric is empty where it is of a whole device.
        severity: Of the rule, when it was raised last.
        since: When it was raised last, µs since the epoch UTC; 0 while it never was.
        cleared: When it was cleared; 0 while it is not.
        times: How often it was raised since the row is there.
        message: What was said when it was raised last; from then on also why it was cleared, if not by a reading.
        value, unit: Of the reading that raised it, or the rate.
        waiting: Since when the condition to raise, or to clear, holds without having held for long enough; 0 when none does.
    """

    rule: str
    kind: str
    device: str
    metric: str = ""
    severity: Severity = "warning"
    since: int = 0
    cleared: int = 0
    times: int = 0
    message: str = ""
    value: float | None = None
    unit: str = ""
    waiting: int = 0

    @property
    def key(self) -> str:
        """What the alarm is known by."""
        return alarm_key(self.rule, self.device, self.metric)

    @property
    def is_active(self) -> bool:
        """Whether it is raised and not cleared."""
        return self.since > 0 and self.cleared == 0


def alarm_key(rule: str, device: str, metric: str) -> str:
    """Return what an alarm is known by."""
    return f"{rule}/{device}/{metric}" if metric else f"{rule}/{device}"


def is_alarm_key(field: str) -> bool:
    """Tell whether a field of the engine's state is an alarm: no id of a rule has a colon.

    >>> is_alarm_key("too-hot/boiler/temperature"), is_alarm_key("newest:boiler/temperature")
    (True, False)
    """
    return ":" not in field.partition("/")[0]


def device_of(key: str) -> str:
    """Return the device of an alarm; empty when the text is no key of one."""
    return key.partition("/")[2].partition("/")[0]
