"""What makes a rule impossible. Each check raises BadField: the field, what it is, and what was expected."""

from __future__ import annotations

import math
import re
from string import Formatter
from typing import Any

from isotherm.errors import BadField, SettingsError
from isotherm.expression import Expression
from isotherm.limits import DAY, MAX_NAME_CHARS, SECOND
from isotherm.names import is_device_name, is_label

MAX_DURATION = 365 * DAY
MAX_TEXT_CHARS = 500
"""A name, and a message."""

PLACEHOLDERS = ("device", "metric", "value", "threshold", "unit")
"""What a message may have in braces."""

_ID = re.compile(r"[a-z0-9][a-z0-9\-._]{0,63}")
_GLOB = re.compile(rf"[A-Za-z0-9\-:._/*?\[\]!]{{1,{MAX_NAME_CHARS}}}")
_SET = re.compile(r"\[!?[^\[\]!]+\]")
_WILD = re.compile(r"[*?\[]")


def is_glob(pattern: str) -> bool:
    """Tell whether a pattern is more than a name."""
    return _WILD.search(pattern) is not None


def refused(field: str, value: Any, expected: str) -> BadField:
    """Return the error of a field."""
    return BadField(field, f"{field} is {value!r}: {expected}", expected)


def identifier(id: str) -> None:
    """Check what a rule is known by."""
    if not _ID.fullmatch(id):
        raise refused("id", id, "expected 1–64 lower-case letters, digits and - . _, the first a letter or digit")


def text(field: str, value: str) -> None:
    """Check what people say of a rule."""
    if len(value) > MAX_TEXT_CHARS or not value.isprintable():
        raise refused(field, value[:MAX_TEXT_CHARS], f"expected at most {MAX_TEXT_CHARS} printable characters")


def targets(devices: str, metric: str, label: str, type: str, *, needs_metric: bool) -> None:
    """Check what a rule is about."""
    if needs_metric and not metric:
        raise refused("metric", metric, "expected a metric such as temperature, or a pattern such as bme280/*")
    for field, pattern in (("devices", devices), ("metric", metric)):
        if pattern or field == "devices":
            glob(field, pattern)
    if "/" in devices:
        raise refused(
            "devices", devices, "expected a device or a pattern; a device has no slash, the metric is a field of its own"
        )
    if label and not is_label(label):
        raise refused("label", label, "expected a word or key=value, of letters, digits and - . _")
    if type and not is_device_name(type):
        raise refused("type", type, "expected letters, digits and - : . _")


def glob(field: str, pattern: str) -> None:
    """Check a pattern of a shell over names."""
    if not _GLOB.fullmatch(pattern):
        raise refused(field, pattern, f"expected 1–{MAX_NAME_CHARS} of the characters of names, with * ? [ab] [!ab]")
    if set("[]!") & set(_SET.sub("", pattern)):
        raise refused(field, pattern, "a [ needs its ], with characters between them; ! may stand after [ only")


def template(message: str) -> None:
    """Check what is said when an alarm is raised."""
    text("message", message)
    try:
        parts = list(Formatter().parse(message))
    except ValueError as error:
        raise refused(
            "message", message, f"a brace has no second one, {{{{ and }}}} stand for plain ones ({error})"
        ) from error
    for _, name, spec, conversion in parts:
        if name is not None and (name not in PLACEHOLDERS or spec or conversion):
            expected = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
            raise refused("message", message, f"{{{name}}} is none of {expected}")


def duration(field: str, value: int, least: int = 0) -> None:
    """Check a length of time, µs."""
    if not least <= value <= MAX_DURATION:
        at_least = f"{least // SECOND} s" if least else "0"
        raise refused(field, value, f"expected µs, at least {at_least} and at most {MAX_DURATION // DAY} days")


def expression(value: str) -> None:
    """Check an expression over metrics."""
    try:
        made = Expression.parse(value)
    except SettingsError as error:
        raise refused("expression", value, str(error)) from error
    if not made.variables:
        raise refused("expression", value, "there is no metric in it, so it never changes")


def limits(
    above: float | None, below: float | None, clear_above: float | None, clear_below: float | None, hysteresis: float | None
) -> None:
    """Check that there is a limit, that a value can be within both, and that each is cleared on its inner side."""
    given = {
        "above": above,
        "below": below,
        "clear_above": clear_above,
        "clear_below": clear_below,
        "hysteresis": hysteresis,
    }
    for field, value in given.items():
        if value is not None and not math.isfinite(value):
            raise refused(field, value, "expected a finite number")
    if above is None and below is None:
        raise refused("above", None, "expected a number for above, for below, or for both")
    if above is not None and below is not None and above <= below:
        raise refused("above", above, f"every value would be above it or below {below!r}; expected above > below")
    _inside("above", above, clear_above, hysteresis)
    _inside("below", below, clear_below, hysteresis)
    if hysteresis is not None and hysteresis < 0:
        raise refused("hysteresis", hysteresis, "expected how far inside of the limit an alarm is cleared, 0 or more")
    margin = hysteresis or 0.0
    if above is not None and below is not None:
        upper = above - margin if clear_above is None else clear_above
        lower = below + margin if clear_below is None else clear_below
        if upper < lower:
            never = (
                f"an alarm would never be cleared: no value is both at most {upper!r} (clear_above) and at least {lower!r} "
                "(clear_below)"
            )
            raise BadField("", never, never)


def _inside(field: str, limit: float | None, clear: float | None, hysteresis: float | None) -> None:
    if clear is None:
        return
    if limit is None:
        raise refused(f"clear_{field}", clear, f"there is no {field} that it belongs to")
    if hysteresis is not None:
        raise refused("hysteresis", hysteresis, f"clear_{field} says the same already; expected one of them")
    if clear > limit if field == "above" else clear < limit:
        side = "at most" if field == "above" else "at least"
        raise refused(f"clear_{field}", clear, f"it is on the wrong side; expected {side} {field}, {limit!r}")
