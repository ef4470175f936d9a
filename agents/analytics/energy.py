"""Energy from power."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agents import Readings, Seconds, per_batch

JOULES = {"J": 1.0, "Wh": 3.6e3, "kWh": 3.6e6}

MAX_WATTS = 1e18
"""More than the sun gives the earth (1.7e17 W): a meter that says so has an error."""


@per_batch("*/power", output="energy", state={"watts": 0.0, "joules": 0.0})
def energy(readings: Readings, *, unit: Literal["J", "Wh", "kWh"] = "kWh", max_gap: Seconds = 900.0) -> NDArray[np.float64]:
    """Energy that has flown since the first reading, of a power in W: what a meter would show.

    The trapezoidal rule: between two readings the power is taken to go straight from one to the other,

        E += (P₁ + P₂) / 2 · (t₂ − t₁)

    Where nothing came for longer than ``max_gap`` (s) nothing is known and nothing is added. Readings must come in order:
    a late one is left out. ``unit`` is that of the energy. The total goes on over restarts. (Press et al., Numerical
    Recipes, 3rd ed. 2007, §4.1.)
    """
    begin = readings.state
    time = readings.before(readings.time, np.maximum(begin["newest"], 0))
    watts = readings.before(readings.value, begin["watts"])
    gap = (readings.time - time) / 1e6
    is_known = (gap <= max_gap) & (np.abs(watts) <= MAX_WATTS) & (np.abs(readings.value) <= MAX_WATTS)
    is_known &= readings.before(np.ones(len(readings), dtype=np.bool_), begin["newest"] >= 0)
    with np.errstate(all="ignore"):  # of what is not known
        added = np.where(is_known, (watts + readings.value) / 2 * gap, 0.0)
    joules = readings.running_sum(begin["joules"], added)
    last = readings.starts[1:] - 1
    begin["watts"], begin["joules"] = readings.value[last], joules[last]
    return joules / JOULES[unit]
