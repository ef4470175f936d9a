"""What metrics and labels are called in Prometheus: as they are called here. No I/O.

Prometheus 3 takes any UTF-8 text for a name; one with other characters than letters, digits, ``_`` and ``:`` stands in
quotes: ``{"bme280/temperature", "floor.no"="3"}``. Where a program knows no quotes, such a name is spelled as Prometheus
itself escapes it: ``U__`` in front, ``__`` for ``_``, and ``_2f_`` for a character by its hexadecimal number.

A series has the labels ``device``, ``unit``, ``type`` and ``gateway`` where these are known, and those of its device:
``floor=3`` is ``floor="3"`` and the word ``wet`` is ``wet="true"``. A device's label that is called like one of the four is
``exported_…``, as Prometheus does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

NAME = "__name__"
"""The label that is the metric's name."""

WORD = "true"
"""The value of a label that is a word."""

_ESCAPED = re.compile(r"(?:[a-zA-Z0-9:]|__|_[0-9a-fA-F]{1,6}_)*")
_ESCAPE = re.compile(r"_([0-9a-fA-F]{0,6})_")
_PREFIX = "U__"
_LAST_CHARACTER = 0x10FFFF


def unescaped(name: str) -> str:
    """Return the name that an escaped one stands for; others are as they were.

    >>> unescaped("U__bme280_2f_temperature"), unescaped("U__wet__bulb"), unescaped("room_2f_1")
    ('bme280/temperature', 'wet_bulb', 'room_2f_1')
    """
    rest = name.removeprefix(_PREFIX)
    if rest == name or not _ESCAPED.fullmatch(rest):
        return name
    codes = [int(code, 16) for code in _ESCAPE.findall(rest) if code]
    if any(code > _LAST_CHARACTER or 0xD800 <= code < 0xE000 for code in codes):
        return name
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else "_", rest)


def labels(own: Mapping[str, str], listed: Iterable[str]) -> dict[str, str]:
    """Return the labels of a series, ascending by name.

    Args:
        own: Those that we give it; an empty one is none.
        listed: What people have sorted its device by: words, and ``key=value``.

    >>> labels({"__name__": "t", "device": "a", "unit": ""}, ["wet", "floor=3", "device=b"])
    {'__name__': 't', 'device': 'a', 'exported_device': 'b', 'floor': '3', 'wet': 'true'}
    """
    found = {name: value for name, value in own.items() if value}
    for one in sorted(listed, key=lambda label: ("=" not in label, label)):
        name, _, value = one.partition("=")
        while name in own:
            name = f"exported_{name}"
        found.setdefault(name, value or WORD)
    return dict(sorted(found.items()))
