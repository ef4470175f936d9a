"""How units are written for people: RFC 8428 §12.1 and RFC 8798 on the wire, customary symbols on screen."""

from __future__ import annotations

_SYMBOLS = {
    "Cel": "°C",
    "%RH": "% RH",
    "%EL": "% battery",
    "EL": "s battery",
    "/": "",
    "count": "",
    "1/s": "/s",
    "1/min": "/min",
    "beat/min": "bpm",
    "Ohm": "Ω",
    "deg": "°",
    "lat": "° N",
    "lon": "° E",
    "m2": "m²",
    "m3": "m³",
    "m/s2": "m/s²",
    "m3/s": "m³/s",
    "W/m2": "W/m²",
    "cd/m2": "cd/m²",
    "kg/m3": "kg/m³",
    "ug/m3": "µg/m³",
    "uS/cm": "µS/cm",
    "S/m": "S/m",
}


def symbol(unit: str) -> str:
    """Return what to write after a value; a unit without a customary symbol is its own.

    The result is as untrusted as ``unit`` is.

    >>> symbol("Cel"), symbol("lx"), symbol("/")
    ('°C', 'lx', '')
    """
    return _SYMBOLS.get(unit, unit)


def axis_label(metric: str, unit: str) -> str:
    """Return the label of a value axis.

    >>> axis_label("temperature", "Cel"), axis_label("door", "")
    ('temperature, °C', 'door')
    """
    text = symbol(unit)
    return f"{metric}, {text}" if text else metric
