"""How units are written for people: the names of RFC 8428 §12.1, RFC 8798 and RFC 9100 (secondary units), and others that
devices use all the same, and what is customary on screen.
"""

from __future__ import annotations

_SYMBOLS = {
    # Temperature, air, weather
    "Cel": "°C",
    "degC": "°C",
    "Fah": "°F",
    "degF": "°F",
    "%RH": "% RH",
    "W/m2": "W/m²",
    "kg/m3": "kg/m³",
    "ug/m3": "µg/m³",
    "l/m2": "l/m²",
    # Batteries, levels, signals
    "%EL": "% battery",
    "EL": "s battery",
    # Numbers without a dimension
    "/": "",
    "1": "",
    "count": "",
    "/100": "%",
    "/1000": "‰",
    # Times and rates
    "1/s": "/s",
    "1/min": "/min",
    "1/h": "/h",
    "beat/min": "bpm",
    # Electricity and light
    "Ohm": "Ω",
    "kOhm": "kΩ",
    "uV": "µV",
    "uA": "µA",
    "uS/cm": "µS/cm",
    "cd/m2": "cd/m²",
    # Lengths, places, motion
    "deg": "°",
    "lat": "° N",
    "lon": "° E",
    "um": "µm",
    "m2": "m²",
    "m3": "m³",
    "m/s2": "m/s²",
    "m3/s": "m³/s",
    "m3/h": "m³/h",
    "kg/m2": "kg/m²",
    "N/m2": "N/m²",
    "ug": "µg",
    "us": "µs",
}

_TIMES = ("s", "min", "h")
"""What a change is measured per; a rate of a unit is written after its symbol."""


def symbol(unit: str) -> str:
    """Return what to write after a value; a unit without a customary symbol is its own: km/h, hPa, kWh.

    The result is as untrusted as ``unit`` is.

    >>> symbol("Cel"), symbol("Fah"), symbol("hPa"), symbol("/")
    ('°C', '°F', 'hPa', '')
    >>> symbol("Cel/min"), symbol("l/min")
    ('°C/min', 'l/min')
    """
    base, _, time = unit.rpartition("/")
    if unit not in _SYMBOLS and base in _SYMBOLS and time in _TIMES:
        return f"{_SYMBOLS[base]}/{time}"
    return _SYMBOLS.get(unit, unit)
