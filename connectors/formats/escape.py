"""Names of other formats, written in the characters that SenML names may have (RFC 8428 §4.5.1).

Text is handled as ``str`` in which a byte that is not UTF-8 is a lone surrogate (PEP 383): nothing is lost on the way in,
and what is refused goes out as it came.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from isotherm.errors import InvalidReading
from isotherm.limits import MAX_NAME_CHARS

MAX_CACHED_NAMES = 100_000
"""Names that a decoder remembers; then it begins again."""

MAX_SERIES_CHARS = 2 * MAX_NAME_CHARS + 1
"""A device, a slash and a metric. Intake refuses what is longer: it is not remembered."""

_NO_METRIC_CHAR = re.compile(r"[^A-Za-z0-9\-:._/]")
_NO_DEVICE_CHAR = re.compile(r"[^A-Za-z0-9\-:._]")
_NO_BARE_CHAR = re.compile(r"[^A-Za-z0-9\-._]")


def as_text(data: bytes) -> str:
    """Decode bytes that may not be UTF-8."""
    return data.decode("utf-8", "surrogateescape")


def as_sent(text: str) -> bytes:
    """Return the bytes that :func:`as_text` decoded."""
    return text.encode("utf-8", "surrogateescape")


def check_utf8(text: str) -> None:
    """Make sure that text from :func:`as_text` was UTF-8.

    Raises:
        InvalidReading: it was not.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidReading("malformed", f"byte {ord(text[error.start]) - 0xDC00:#04x}, expected UTF-8") from None


def escape_metric(text: str) -> str:
    """Write every character that a metric's name may not have as ``_HH``, the hex digits of its UTF-8 bytes.

    Names that differ stay different in practice: only one that holds ``_`` and two such digits already can meet another.

    >>> escape_metric("used percent/C°")
    'used_20percent/C_C2_B0'
    """
    return _NO_METRIC_CHAR.sub(_hex, text)


def escape_device(text: str) -> str:
    """Do the same for a device's name, in which a slash would begin the metric.

    >>> escape_device("hall 2/door")
    'hall_202_2Fdoor'
    """
    return _NO_DEVICE_CHAR.sub(_hex, text)


def escape_bare_metric(text: str) -> str:
    """Do the same for a metric that stands alone, in which a slash or a colon would end the name of a device.

    >>> escape_bare_metric("power:L1/W")
    'power_3AL1_2FW'
    """
    return _NO_BARE_CHAR.sub(_hex, text)


def _hex(match: re.Match[str]) -> str:
    return "".join(f"_{byte:02X}" for byte in match[0].encode())


class NameCache(dict[str, str]):
    """What a format calls a series → its SenML name, made on first use."""

    def __init__(self, make: Callable[[str], str]) -> None:
        """Prepare.

        Args:
            make: Turns the one into the other; what it raises comes out of the look-up.
        """
        super().__init__()
        self._make = make

    def __missing__(self, key: str) -> str:
        name = self._make(key)
        if len(name) <= MAX_SERIES_CHARS:
            if len(self) >= MAX_CACHED_NAMES:
                self.clear()
            self[key] = name
        return name
