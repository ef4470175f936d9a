"""What a simulated device can be asked to do, and how it is configured.

command               what it does, and its answer
--------------------  ---------------------------------------------------------------------------------------------
ping                  nothing; the time by its clock, s since the epoch
offset celsius=2.5    its room gets so much warmer, or colder; the offset that it has then

setting               meaning
--------------------  ---------------------------------------------------------------------------------------------
interval              s between readings
calibration           °C that its sensor says more than it measures
firmware              what it runs: an image that it loads, checks and starts
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from simulator.firmware import Load, loaded

MAX_REMEMBERED = 64
"""Commands whose replies are kept: one that comes again is answered again, and not done again."""

MAX_OFFSET = 30.0
LIMITS = {"interval": (0.05, 3600.0), "calibration": (-MAX_OFFSET, MAX_OFFSET)}
"""Setting → least and greatest value."""

FIRST_FIRMWARE = "1.0.0"

Say = Callable[[Mapping[str, Any]], None]
"""Sends a reply; there may be several to one command."""


class Thermostat:
    """One device's.

    Attributes:
        offset: °C that its room is warmer than it would be.
        interval: s between readings; None for what the fleet's plan says.
        calibration: °C that is added to what it measures.
        firmware: The version that it runs.
        changed: Is called when it is configured.
    """

    def __init__(self, load: Load | None = None) -> None:
        """Prepare; without ``load`` it refuses firmware."""
        self.offset = 0.0
        self.interval: float | None = None
        self.calibration = 0.0
        self.firmware = FIRST_FIRMWARE
        self._version = 0
        self.changed: Callable[[], None] = lambda: None
        self._load = load
        self._updating: asyncio.Task[None] | None = None
        self._replies: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def obey(self, command: Mapping[str, Any], say: Say) -> None:
        """Do what a command says, once, and reply to it."""
        id, about = str(command["id"]), {"id": command["id"], "device": command["device"]}
        if command["name"] == "configure":
            self._configure(about, command["parameters"], say)
            return
        if id not in self._replies:
            try:
                self._replies[id] = {**about, "result": self._do(command["name"], command["parameters"])}
            except ValueError as error:
                self._replies[id] = {**about, "error": str(error)}
            if len(self._replies) > MAX_REMEMBERED:
                self._replies.popitem(last=False)
        say(self._replies[id])

    async def close(self) -> None:
        """Give up an update."""
        if self._updating is not None:
            self._updating.cancel()
            await asyncio.gather(self._updating, return_exceptions=True)

    def settings(self) -> dict[str, Any]:
        """Return what it reports."""
        found: dict[str, Any] = {"calibration": self.calibration, "firmware": self.firmware}
        return found if self.interval is None else found | {"interval": self.interval}

    def report(self) -> Mapping[str, Any]:
        """Return what it says when it comes: a simulated device that was started anew has forgotten all settings."""
        return {"id": f"configuration-{self._version}", "result": self.settings()}

    def _configure(self, about: Mapping[str, Any], parameters: Mapping[str, Any], say: Say) -> None:
        """Take over all settings, or none."""
        values = parameters["values"]
        for name, value in values.items():
            if name == "firmware":
                continue
            if name not in LIMITS:
                say({**about, "error": f"{name!r} is no setting of this device: it has {', '.join(LIMITS)}"})
                return
            least, most = LIMITS[name]
            if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
                say({**about, "error": f"{name} is {value!r}, expected a number from {least:g} to {most:g}"})
                return
        self._version = parameters["version"]
        self.interval = values.get("interval")
        self.calibration = values.get("calibration", 0.0)
        self.changed()
        told = values.get("firmware")
        if told is None or told["version"] == self.firmware:
            say({**about, "result": self.settings()})
        elif self._updating is None or self._updating.done():
            self._updating = asyncio.create_task(self._update(about, told, say), name="update")

    async def _update(self, about: Mapping[str, Any], told: Mapping[str, Any], say: Say) -> None:
        try:
            if self._load is None:
                raise ValueError("this device has no way to load firmware")
            await loaded(self._load, told, lambda percent: say({**about, "progress": percent}))
        except (OSError, ValueError) as error:
            say({**about, "error": f"firmware {told['version']}: {error}"})
            return
        self.firmware = told["version"]
        say({**about, "result": self.settings()})

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
