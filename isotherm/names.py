"""Names of devices, metrics and series.

A series is ``device/metric``: the text before the first slash names the device, the rest the metric, which may hold
further slashes. Characters are those of RFC 8428 §4.5.1. Names without a slash are split where SenML's customs do it:
``urn:dev:`` names after the identifier (RFC 9039), others at their last colon.
"""

from __future__ import annotations

import re

from isotherm.errors import InvalidReading
from isotherm.limits import MAX_LABEL_CHARS, MAX_NAME_CHARS

_DEVICE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9\-:._]{{0,{MAX_NAME_CHARS - 1}}}")
_METRIC = re.compile(rf"[A-Za-z0-9][A-Za-z0-9\-:._/]{{0,{MAX_NAME_CHARS - 1}}}")
_LABEL = re.compile(rf"[A-Za-z0-9][A-Za-z0-9\-._]{{0,{MAX_LABEL_CHARS - 1}}}(=[A-Za-z0-9\-._]{{1,{MAX_LABEL_CHARS}}})?")
_URN_DEV = re.compile(r"(urn:dev:[a-z]+:[^:_/]+)(?:[:_/](.*))?", re.DOTALL)

DEVICE_PATTERN = f"^{_DEVICE.pattern}$"
"""Of a regular expression, for those who describe what they take."""

DEFAULT_METRIC = "value"
"""The metric of a name that is a device's and nothing more."""


def is_device_name(name: str) -> bool:
    """Tell whether ``name`` may name a device."""
    return _DEVICE.fullmatch(name) is not None


def is_metric_name(name: str) -> bool:
    """Tell whether ``name`` may name a metric."""
    return _METRIC.fullmatch(name) is not None


def is_label(text: str) -> bool:
    """Tell whether ``text`` may be a label of a device: a word, or ``key=value``."""
    return _LABEL.fullmatch(text) is not None


def series_name(name: str, device: str | None = None) -> str:
    """Bring a resolved SenML name into the form ``device/metric``.

    Args:
        name: Base name and name, concatenated.
        device: The device that a bare name is a metric of, if there is one (of an MQTT topic, of a token).

    Raises:
        InvalidReading: reason ``no_device`` or ``name``.

    >>> series_name("room-1/temperature")
    'room-1/temperature'
    >>> series_name("urn:dev:ow:10e2073a01080063:voltage")
    'urn:dev:ow:10e2073a01080063/voltage'
    >>> series_name("temperature", device="room-1")
    'room-1/temperature'
    """
    named, metric = _split(name)
    if named is None:
        named = device
    if named is None:
        raise InvalidReading("no_device", f"{name[:80]!r} names no device; expected 'device/metric'")
    if not is_device_name(named):
        raise InvalidReading("name", f"{named[:80]!r} is no device name: {_ALPHABET}")
    if not is_metric_name(metric):
        raise InvalidReading("name", f"{metric[:80]!r} is no metric name: {_ALPHABET}")
    return f"{named}/{metric}"


_ALPHABET = f"1–{MAX_NAME_CHARS} of A–Z a–z 0–9 - : . _ , the first a letter or digit (RFC 8428 §4.5.1)"


def _split(name: str) -> tuple[str | None, str]:
    if name.startswith("urn:dev:") and (match := _URN_DEV.fullmatch(name)):
        return match[1], match[2] or DEFAULT_METRIC
    device, slash, metric = name.partition("/")
    if slash:
        return device, metric
    device, colon, metric = name.rpartition(":")
    if colon:
        return device, metric
    return None, name
