"""Plain messages: readings of the topic's device and nothing else, which many messages share one piece for.

A message costs 2 µs this way and some 100 µs alone: what is done in columns hardly depends on how many rows they have.
"""

from __future__ import annotations

import re

import numpy as np

from connectors.formats.decoded import Decoded
from connectors.formats.records import senml_us
from connectors.formats.senml import plain_records
from connectors.mqtt.connection import Publish
from connectors.mqtt.topics import Route

_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?")


class Plain:
    """Gathers readings of plain messages."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._times: list[float] = []
        self._values: list[float] = []
        self._units: dict[str, str] = {}

    def add(self, route: Route, publish: Publish) -> bool:
        """Take a message, if it is plain; else nothing is done."""
        device, payload = route.device, publish.payload
        if device is None or route.error or route.is_passed_over or publish.properties or device.startswith("urn:"):
            return False
        if route.metric:
            if _NUMBER.fullmatch(payload) is None:
                return False
            self._names.append(f"{device}/{route.metric}")
            self._times.append(0.0)
            self._values.append(float(payload))
            return True
        if route.form is not None or (records := plain_records(payload)) is None:
            return False
        if any("/" in record.n or ":" in record.n for record in records):
            return False  # a full name, which may be another device's
        for record in records:
            self._names.append(name := f"{device}/{record.n}")
            self._times.append(record.t)
            self._values.append(record.v)
            if record.u:
                self._units[name] = record.u
        return True

    def decoded(self, now: int) -> Decoded:
        """Return everything as one piece; relative and missing times count from ``now``, µs since the epoch UTC."""
        return Decoded(
            self._names,
            senml_us(np.array(self._times, dtype=np.float64), now),
            np.array(self._values, dtype=np.float64),
            lambda i: (0, b""),  # what is refused is not taken in this way
            self._units,
        )
