"""Heat index."""

import numpy as np
from numpy.typing import NDArray

from agents import formula

Column = NDArray[np.float64]


@formula(temperature="*/temperature", humidity="*/humidity", output="heat_index", unit="Cel", vectorized=True)
def heat_index(temperature: Column, humidity: Column) -> Column:
    """Heat index of the US National Weather Service, °C, of a temperature in °C and a relative humidity in %.

    Rothfusz's regression (NWS Technical Attachment SR 90-23, 1990), in °F, with the adjustments that the NWS gives for dry
    and for very humid air; where Steadman's simple formula stays below 80 °F, that one:

        0.5·(T + 61 + 1.2·(T − 68) + 0.094·RH)

    See https://www.wpc.ncep.noaa.gov/html/heatindex_equation.shtml. Where the humidity is not within 0–100 % there is none.
    """
    with np.errstate(all="ignore"):
        t = temperature * 1.8 + 32
        rh = np.where((humidity >= 0) & (humidity <= 100), humidity, np.nan)
        simple = 0.5 * (t + 61 + 1.2 * (t - 68) + 0.094 * rh)
        return (np.where(simple < 80, simple, _regression(t, rh) + _adjustment(t, rh)) - 32) / 1.8


def _regression(t: Column, rh: Column) -> Column:
    """Return Rothfusz's regression, °F."""
    constant = -42.379 + 2.04901523 * t - 6.83783e-3 * t * t
    linear = 10.14333127 - 0.22475541 * t + 1.22874e-3 * t * t
    square = -5.481717e-2 + 8.5282e-4 * t - 1.99e-6 * t * t
    return constant + linear * rh + square * rh * rh


def _adjustment(t: Column, rh: Column) -> Column:
    """Return what the NWS takes off for dry air and adds for very humid air, °F."""
    dry = (rh < 13) & (t >= 80) & (t <= 112)
    humid = (rh > 85) & (t >= 80) & (t <= 87)
    less = (13 - rh) / 4 * np.sqrt((17 - np.abs(t - 95)) / 17)
    more = (rh - 85) / 10 * (87 - t) / 5
    return np.select([dry, humid], [-less, more], 0.0)
