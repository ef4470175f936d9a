"""How an answer is written: JSON in Prometheus' envelope, a series at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import compress
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from dashboards.prometheus.evaluation import Labels, Value, Vector
from isotherm.limits import MILLISECOND

_encode = msgspec.json.encode


def success(data: Any, warnings: Sequence[str] = ()) -> bytes:
    """Return an answer."""
    return _encode({"status": "success", "data": data} | ({"warnings": warnings} if warnings else {}))


async def matrix(value: Value, times: Sequence[int]) -> AsyncIterator[bytes]:
    """Yield the answer of a range query.

    Args:
        value: The result at each step.
        times: Of the steps, µs since the epoch UTC.
    """
    seconds = [_seconds(time) for time in times]
    yield b'{"status":"success","data":{"resultType":"matrix","result":['
    if not isinstance(value, Vector):
        yield _series({}, seconds, value)
    else:
        is_first = True
        for labels, values, there in zip(value.labels, value.values, value.there, strict=True):
            if there.any():
                yield b"" if is_first else b","
                yield _series(labels, list(compress(seconds, there.tolist())), values[there])
                is_first = False
    yield b"]}}"


def instant(value: Value, time: int) -> bytes:
    """Return the answer of a query at one time, µs since the epoch UTC."""
    at = _seconds(time)
    if not isinstance(value, Vector):
        return success({"resultType": "scalar", "result": [at, _texts(value)[0]]})
    there = value.there[:, 0]
    texts = _texts(value.values[there, 0])
    labels = compress(value.labels, there.tolist())
    result = [{"metric": one, "value": [at, text]} for one, text in zip(labels, texts, strict=True)]
    return success({"resultType": "vector", "result": result})


def readings(found: Sequence[tuple[Labels, NDArray[np.int64], NDArray[np.float64]]]) -> bytes:
    """Return the answer of a range selector: series with the times and values of their readings."""
    parts = [_series(labels, [_seconds(at) for at in times.tolist()], values) for labels, times, values in found]
    return b'{"status":"success","data":{"resultType":"matrix","result":[' + b",".join(parts) + b"]}}"


def _series(labels: Labels, seconds: Sequence[float], values: NDArray[np.float64]) -> bytes:
    return _encode({"metric": labels, "values": list(zip(seconds, _texts(values), strict=True))})


def _texts(values: NDArray[np.float64]) -> list[str]:
    """Return numbers as Prometheus writes them.

    >>> _texts(np.array([20.0, 0.5, np.inf, -np.inf, np.nan]))
    ['20', '0.5', '+Inf', '-Inf', 'NaN']
    """
    texts = [repr(value).removesuffix(".0") for value in values.tolist()]
    for place in np.flatnonzero(~np.isfinite(values)).tolist():
        texts[place] = {"inf": "+Inf", "-inf": "-Inf"}.get(texts[place], "NaN")
    return texts


def _seconds(time: int) -> float:
    return time // MILLISECOND / 1000
