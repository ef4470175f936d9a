"""A payload that is one number, as many sensors publish on a topic of their own: ``21.5``, ``-3``, ``1e3``, ``ON``.

The channel says which metric it is. It is a part of the format's name, ``number:temperature``, so that an input that was
refused can be decoded again by that name alone.

Words for a switch's two states are taken too, in any case: Tasmota, ESPHome and Zigbee2MQTT publish ``ON`` and ``OFF``,
Shelly and Home Assistant ``on`` and ``off``, Homie and Shelly (``online``) ``true`` and ``false``. Words beyond these four
(``open``, ``home``, ``unavailable``) mean other things to other devices and are refused, as are numbers with a unit or with
a decimal comma: a decoder of one's own can say what they mean.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from connectors.formats.decoded import Decoded
from connectors.formats.escape import as_text, check_utf8, escape_bare_metric, escape_metric
from isotherm.errors import InvalidReading
from isotherm.rejects import Rejected

MAX_NUMBER_BYTES = 128
"""A number, without the blanks around it; a float's digits are 17."""

_WORDS = {"on": 1.0, "true": 1.0, "off": 0.0, "false": 0.0}

# float() takes more than devices mean: underscores, digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|nan|inf|infinity)", re.IGNORECASE)
_BLANKS = " \t\r\n\0"  # clients in C send the string's end with it


class NumberDecoder:
    """Turns a number into a reading of one metric, at the time when it came."""

    def __init__(self, metric: str) -> None:
        """Prepare.

        Args:
            metric: What the channel calls it, ``temperature``: a metric of the peer's own device. ``room-1/temperature``
                names the device too. Characters that a name may not have are written as ``_HH``
                (connectors/formats/escape.py).
        """
        device, slash, rest = metric.partition("/")
        self.name = f"{device}/{escape_metric(rest)}" if slash else escape_bare_metric(metric)

    def __call__(self, data: bytes, now: int) -> Iterator[Decoded]:
        """Decode a payload.

        Args:
            data: The number, with or without blanks around it.
            now: µs since the epoch UTC: the reading's time.
        """
        try:
            value = _value(as_text(data).strip(_BLANKS))
        except InvalidReading as error:
            yield Decoded.nothing(Rejected(error.reason, error.detail, data))
        else:
            yield Decoded([self.name], np.array([now], dtype=np.int64), np.array([value]), lambda i: (0, data))


def _value(text: str) -> float:
    """Return what a text says.

    Raises:
        InvalidReading: it is no number, or no finite one.
    """
    if len(text) > MAX_NUMBER_BYTES:
        raise InvalidReading("malformed", f"{len(text)} characters, expected a number")
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if not _NUMBER.fullmatch(text):
        check_utf8(text)
        raise InvalidReading("malformed", f"{text[:80]!r}, expected a number, on, off, true or false")
    value = float(text)
    if not math.isfinite(value):
        raise InvalidReading("not_finite", f"value {text[:80]!r}, expected a finite number")
    return value
