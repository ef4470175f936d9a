"""A fleet of simulated rooms that send over a real protocol and obey commands, and an account of what became of it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

from simulator.firmware import Load
from simulator.publishers import Controlled, NotAcknowledged, Publisher, Reading, first_number
from simulator.room import Room
from simulator.thermostat import Thermostat

METRIC = "temperature"
UNIT = "Cel"
TICK_SECONDS = 0.05
"""Readings that are due within so long go in one pack."""

MAX_PACK = 500
MAX_BACKLOG = 100_000
"""Readings one device keeps while the server is away; then the oldest are dropped, and counted."""

GIVE_UP_SECONDS = 10.0
"""How long a device that has measured everything goes on trying to send it."""

RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(slots=True)
class Account:
    """What a fleet did, in readings.

    Attributes:
        sent: Measured and to be sent.
        acknowledged: The server said that it has them.
        refused: The server said that it will not have them.
        resent: Sent again because the first answer did not come.
        dropped: Given up because the server was away for too long.
        value_sum: Σ of all sent values: with integers, exact.
    """

    protocol: str
    devices: int
    sent: int = 0
    acknowledged: int = 0
    refused: int = 0
    resent: int = 0
    dropped: int = 0
    value_sum: float = 0.0
    seconds: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the account as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Plan:
    """What each device of a fleet does.

    Attributes:
        rate_hz: Readings a second.
        seconds: For how long; None until stopped.
        integers: Send 0, 1, 2, … instead of temperatures, so that sums are exact.
    """

    rate_hz: float
    seconds: float | None = None
    integers: bool = False

    @property
    def count(self) -> int | None:
        """Readings of one device in all."""
        return None if self.seconds is None else max(1, round(self.seconds * self.rate_hz))


async def run(
    rooms: Sequence[Room],
    plan: Plan,
    protocol: str,
    publisher_for: Callable[[str, Controlled | None], Publisher],
    stop: asyncio.Event,
    account: Account | None = None,
    load: Load | None = None,
) -> Account:
    """Let every room send until its plan is fulfilled or ``stop`` is set; returns what became of it.

    Args:
        rooms: Where the devices are.
        plan: What each does.
        protocol: What the account says it is.
        publisher_for: Returns the way of a device, from its name and what is told to it.
        stop: Ends it.
        account: Where it is counted meanwhile.
        load: How devices load firmware, if they do.
    """
    account = account or Account(protocol, len(rooms))
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for room in rooms:
            thermostat = Thermostat(load)
            publisher = publisher_for(room.device, None if plan.integers else thermostat)
            device = _Device(room, plan, publisher, account, stop, thermostat)
            tasks.create_task(device.run(), name=room.device)
    account.seconds = round(time.monotonic() - began, 3)
    return account


class _Device:
    def __init__(
        self,
        room: Room,
        plan: Plan,
        publisher: Publisher,
        account: Account,
        stop: asyncio.Event,
        thermostat: Thermostat,
    ) -> None:
        self._thermostat = thermostat
        self._room = room
        self._plan = plan
        self._publisher = publisher
        self._account = account
        self._stop = stop
        self._backlog: list[Reading] = []
        self._measured = 0
        self._waiting: asyncio.Timeout | None = None
        thermostat.changed = self._wake
        self._interval = 1 / plan.rate_hz
        self._begin = 0.0
        self._paced_from = 0  # the reading from which on the interval is what it is
        self._first_number = first_number()

    async def run(self) -> None:
        """Measure on time and send what is due; what is measured while the server is away is sent when it is back."""
        phase = Random(f"phase/{self._room.seed}/{self._room.number}").random() * min(self._interval, 1.0)
        self._begin = time.time() + phase
        patience = None if self._plan.seconds is None else self._plan.seconds + phase + GIVE_UP_SECONDS
        try:
            async with asyncio.timeout(patience):
                while not self._stop.is_set() and not (self._is_done() and not self._backlog):
                    if not self._is_done():
                        self._keep_pace()
                        await self._wait(self._time_of(self._measured) - time.time())
                    if not self._stop.is_set():
                        self._measure()
                        await self._send()
        except TimeoutError:
            self._measure()  # what is not acknowledged by now shows in the account
        finally:
            await self._thermostat.close()
            await self._publisher.close()

    def _is_done(self) -> bool:
        """Whether everything planned is measured."""
        return self._plan.count is not None and self._measured >= self._plan.count

    def _time_of(self, number: int) -> float:
        """Return when a reading is due, s since the epoch."""
        return round(self._begin + (number - self._paced_from) * self._interval, 6)

    def _keep_pace(self) -> None:
        """Measure as often as the device is configured to from now on."""
        interval = self._thermostat.interval or 1 / self._plan.rate_hz
        if interval != self._interval and self._measured:
            last = self._time_of(self._measured - 1)
            self._begin, self._paced_from, self._interval = max(last + interval, time.time()), self._measured, interval

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())

    def _measure(self) -> None:
        """Take every reading that is due."""
        due = self._paced_from + math.floor((time.time() + TICK_SECONDS - self._begin) / self._interval) + 1
        due = max(due, self._measured)
        if self._plan.count is not None:
            due = min(due, self._plan.count)
        for number in range(self._measured, due):
            at = self._time_of(number)
            value = float(number) if self._plan.integers else self._temperature(at)
            self._backlog.append(Reading(METRIC, at, value, UNIT, self._first_number + number))
            self._account.value_sum += value
        self._account.sent += due - self._measured
        self._measured = due
        if len(self._backlog) > MAX_BACKLOG:
            self._account.dropped += len(self._backlog) - MAX_BACKLOG
            del self._backlog[:-MAX_BACKLOG]

    def _temperature(self, at: float) -> float:
        return round(self._room.temperature(at) + self._thermostat.offset + self._thermostat.calibration, 2)

    async def _send(self) -> None:
        """Send the oldest pack of the backlog, again and again until it is acknowledged or we are stopped."""
        pack = self._backlog[:MAX_PACK]
        failures = 0
        while pack:
            try:
                refused = await self._publisher.publish(pack)
            except NotAcknowledged as error:
                text = str(error)[:120]
                self._account.errors[text] = self._account.errors.get(text, 0) + 1
                if self._stop.is_set():
                    return
                await self._wait(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1
                self._account.resent += len(pack)
            else:
                self._account.refused += refused
                self._account.acknowledged += len(pack) - refused
                del self._backlog[: len(pack)]
                return

    async def _wait(self, seconds: float) -> None:
        """Sleep, but no longer than until the stop, or until the device is configured."""
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds) as self._waiting:
                    await self._stop.wait()
            except TimeoutError:
                return
            finally:
                self._waiting = None
