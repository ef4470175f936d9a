"""What a simulated device can be asked to do.

ping                  the time by its clock, s since the epoch
offset celsius=2.5    its room gets so much warmer, or colder; the offset that it has then
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

MAX_REMEMBERED = 64
"""Commands whose replies are kept: one that comes again is answered again, and not done again."""

MAX_OFFSET = 30.0


class Thermostat:
    """One device's.

    Attributes:
        offset: °C that its room is warmer than it would be.
    """

    def __init__(self) -> None:
        self.offset = 0.0
        self._replies: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def reply(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Do what a command says, once; returns the reply to it."""
        id = str(command["id"])
        if id not in self._replies:
            about = {"id": id, "device": command["device"]}
            try:
                self._replies[id] = {**about, "result": self._do(command["name"], command["parameters"])}
            except ValueError as error:
                self._replies[id] = {**about, "error": str(error)}
            if len(self._replies) > MAX_REMEMBERED:
                self._replies.popitem(last=False)
        return self._replies[id]

    def _do(self, name: str, parameters: Mapping[str, Any]) -> dict[str, float]:
        match name:
            case "ping":
                return {"time": round(time.time(), 3)}
            case "offset":
                celsius = parameters.get("celsius")
                if not isinstance(celsius, int | float) or not -MAX_OFFSET <= celsius <= MAX_OFFSET:
                    raise ValueError(f"celsius is {celsius!r}, expected a number from {-MAX_OFFSET:g} to {MAX_OFFSET:g}")
                self.offset = float(celsius)
                return {"celsius": self.offset}
        raise ValueError(f"{name!r} is nothing that this device can do: it knows ping and offset")
