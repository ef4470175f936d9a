"""Which devices are there: what the analytic ``presence`` knows of each, and how others read it.

Its state is in ``iso:{p}:agent:presence:state``, see `isotherm.store.layout`: device → row of 156 bytes, little-endian.

    layout:u32 │ seen:i64 µs │ arrived:i64 µs │ arrivals:i64 │ intervals:15 × i64 µs │ status:i64

``seen`` is when the device was last heard of, by the server's clock, and ``arrived`` when that arrival began, of which there
were ``arrivals``; ``intervals`` is a ring of those between the last of them, the n-th at n mod 15: their median is its
cadence. ``layout`` names this layout.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from isotherm.analytics import Analytics
from isotherm.store import layout
from isotherm.store.client import Client
from isotherm.store.reader import answering

NAME = "presence"

INTERVALS = 15

ROW = np.dtype(
    [("seen", "<i8"), ("arrived", "<i8"), ("arrivals", "<i8"), ("intervals", "<i8", (INTERVALS,)), ("status", "<i8")]
)

Status = Literal["online", "late", "offline"]

STATUSES: tuple[Status, ...] = ("online", "late", "offline")
"""A row's ``status`` is an index into these."""

_LAYOUT = zlib.crc32(repr(ROW.descr).encode()).to_bytes(4, "little")


@dataclass(frozen=True, slots=True)
class Presence:
    """What is known of a device.

    Attributes:
        status: Whether it is there.
        seen: When it was last heard of, µs since the epoch UTC.
        cadence: How far apart its arrivals use to be, µs; 0 when it has been heard of only once.
    """

    status: Status
    seen: int
    cadence: int


def cadence_of(arrivals: int, intervals: list[int]) -> int:
    """Return the median of the intervals that there are, µs, or 0 when there are none.

    >>> cadence_of(4, [5_000_000, 9_000_000, 5_100_000] + 12 * [0])
    5100000
    """
    known = sorted(intervals[: max(0, arrivals - 1)])
    return known[(len(known) - 1) // 2] if known else 0


async def read(redis: Client, partitions: int) -> dict[str, Presence]:
    """Return what is known of each device.

    Devices of a partition that ``presence`` does not watch at the moment are left out: nobody knows of them.

    Raises:
        Unavailable: Redis does not answer.
    """
    running = [status for status in await Analytics(redis).running() if status.name == NAME and status.state == "running"]
    found: dict[str, Presence] = {}
    for partition in sorted({partition for status in running for partition in status.partitions if partition < partitions}):
        with answering():
            rows = await redis.hgetall(layout.state_key(partition, NAME))
        found |= _presences({device.decode(): row for device, row in rows.items() if _is_row(row)})
    return found


def _is_row(data: bytes) -> bool:
    return data.startswith(_LAYOUT) and len(data) == len(_LAYOUT) + ROW.itemsize


def _presences(rows: dict[str, bytes]) -> dict[str, Presence]:
    """Decode all rows at once: pages read those of thousands of devices every few seconds."""
    table = np.frombuffer(b"".join(data[len(_LAYOUT) :] for data in rows.values()), dtype=ROW)
    known = np.clip(table["arrivals"] - 1, 0, INTERVALS)
    intervals = np.where(np.arange(INTERVALS) < known[:, None], table["intervals"], np.iinfo(np.int64).max)
    middle = np.sort(intervals, axis=1)[np.arange(len(table)), np.maximum(known - 1, 0) // 2]
    cadences = np.where(known > 0, middle, 0)
    columns = zip(rows, table["status"].tolist(), table["seen"].tolist(), cadences.tolist(), strict=True)
    return {device: Presence(STATUSES[status], seen, cadence) for device, status, seen, cadence in columns}
