"""Dew point."""

import numpy as np
from numpy.typing import NDArray

from agents import formula


@formula(temperature="*/temperature", humidity="*/humidity", output="dew_point", unit="Cel", vectorized=True)
def dew_point(
    temperature: NDArray[np.float64], humidity: NDArray[np.float64], *, b: float = 17.625, c: float = 243.04
) -> NDArray[np.float64]:
    """Dew point by the Magnus–Tetens formula, °C, of a temperature in °C and a relative humidity in %.

        γ = ln(RH / 100) + b·T / (c + T)        dew point = c·γ / (b − γ)

    Coefficients b and c (°C) of Alduchov and Eskridge 1996 (J. Appl. Meteor. 35, 601), within 0.4 K from −40 to 50 °C. Where
    the humidity is not above 0 there is no dew point.
    """
    with np.errstate(all="ignore"):
        gamma = np.log(np.where(humidity > 0, humidity, np.nan) / 100) + b * temperature / (c + temperature)
        return c * gamma / (b - gamma)
