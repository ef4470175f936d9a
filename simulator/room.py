"""The temperature of a room, as a function of its number, a seed and the time: the same arguments give the same value.

    T(t) = base + daily·sin(2π(t/day + φ)) + heating·tri(t/period) + drift·(t mod week) + noise(t)

A slow swing over the day, a thermostat that heats up quickly and lets cool slowly, a sensor that drifts by some hundredths
of a degree a week, and white noise. Rounded to 0.01 °C.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

_DAY_S = 86_400.0
_WEEK_S = 7 * _DAY_S
_HEATING_SHARE = 0.3
"""Part of a heating period in which the heating is on."""


@dataclass(frozen=True, slots=True)
class Room:
    """One room's character.

    Attributes:
        number: Of the device; names and noise come from it.
        seed: Of the fleet.
        base, daily, heating, noise: °C.
        drift: °C a week.
        period: Of the thermostat, s.
        phase: Of both cycles, 0 to 1.
    """

    number: int
    seed: int
    base: float
    daily: float
    heating: float
    noise: float
    drift: float
    period: float
    phase: float

    @classmethod
    def numbered(cls, number: int, seed: int) -> Room:
        """Return the room that has this number in the fleet of this seed."""
        draw = random.Random(f"{seed}/{number}")
        return cls(
            number=number,
            seed=seed,
            base=draw.uniform(18.5, 22.5),
            daily=draw.uniform(0.8, 2.0),
            heating=draw.uniform(0.4, 0.9),
            noise=draw.uniform(0.02, 0.06),
            drift=draw.uniform(-0.05, 0.05),
            period=draw.uniform(90.0, 240.0),
            phase=draw.random(),
        )

    @property
    def device(self) -> str:
        """The device's name."""
        return f"room-{self.number + 1:03d}"

    def temperature(self, time: float) -> float:
        """Return the reading at ``time``, s since the epoch, in °C."""
        swing = self.daily * math.sin(2 * math.pi * (time / _DAY_S + self.phase))
        cycle = (time / self.period + self.phase) % 1.0
        warmth = cycle / _HEATING_SHARE if cycle < _HEATING_SHARE else (1 - cycle) / (1 - _HEATING_SHARE)
        noise = random.Random(f"{self.seed}/{self.number}/{time:.6f}").gauss(0.0, self.noise)
        drift = self.drift * (time % _WEEK_S) / _WEEK_S
        return round(self.base + swing + self.heating * warmth + drift + noise, 2)
