"""How much memory the store takes: the formula behind ``isotherm capacity``.

    memory = server + series × (newest value + unit + Σ over tiers: chunks × chunk) + devices × device
    open chunk   = key + its overhead + records × bytes of a record × slack of a string that grows
    sealed chunk = key + its overhead + a fixed part + records × bytes of a compressed record

    | term      | from                                                                                               |
    |-----------|----------------------------------------------------------------------------------------------------|
    | chunks    | retention / chunk length, rounded up, and the one that is being written: the most there are         |
    | open      | of these the one that is over and not sealed yet, and what has come since: LATENESS; not of 10 s,   |
    |           | which are sealed as soon as the hour is rolled up                                                   |
    | records   | raw: readings in a chunk's time; else slots in it, but no more than readings                        |
    | slack     | a string that is appended to is given twice the room it needs when it runs out (sds.c, up to 1 MiB):|
    |           | 3·2ᵏ − 2 records, the least that holds them; sealed chunks are written once and have none           |

A compressed record is that of a thermometer with a resolution of 0.01. Values with all their digits take six times as much.

The overheads were measured on the embedded Valkey 9 (x86-64). Redis 7 takes some 70 bytes more for each key, and its strings
grow in other steps: it took up to 1.7 times as much in the same test. Not in it: what the operating system adds, clients'
buffers, and the copies of pages while the append-only file is rewritten, which can double it for some time under load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from isotherm.limits import SECOND
from isotherm.store import layout
from isotherm.store.layout import LATENESS, LATEST, POINT, RAW, SLOT, TIERS, Tier


@dataclass(frozen=True, slots=True)
class RecordBytes:
    """Bytes of points or slots.

    Attributes:
        open: Of one in a chunk that is written to.
        compressed: Of one in a sealed chunk.
        fixed: Of a sealed chunk besides.
    """

    open: int
    compressed: float
    fixed: int

    def sealed(self, records: float) -> float:
        """Return what a sealed chunk takes; few records are not compressed."""
        return min(self.fixed / 8 + records * self.open, self.fixed + records * self.compressed)


POINT_BYTES = RecordBytes(open=POINT.itemsize, compressed=1.0, fixed=110)
SLOT_BYTES = RecordBytes(open=SLOT.itemsize, compressed=5.0, fixed=310)

SERVER_BYTES = 1_200_000
"""An empty server with a client."""

KEY_OVERHEAD_BYTES = 60
"""A key that expires, beside its name and value: object, entries of both tables, header."""

FIELD_OVERHEAD_BYTES = 28
"""A field of a large hash, beside its name and value."""

DEVICE_OVERHEAD_BYTES = 67
"""A device in the registry, beside its name; without tokens."""

NAME_CHARS = 24
"""A usual series' name, such as sensor-00001/temperature."""

UNIT_CHARS = 3

GREEDY_BYTES = 1024 * 1024
"""Up to this length a string that grows is given twice the room, above it so much more (SDS_MAX_PREALLOC)."""


@dataclass(frozen=True, slots=True)
class Term:
    """A part of the memory.

    Attributes:
        name: A tier, or what it is else.
        keys: Chunks, fields or devices.
        records: Points or slots in them.
        bytes: What all that takes.
    """

    name: str
    keys: int
    records: int
    bytes: int


def capacity(series: int, rate_hz: float, devices: int, tiers: Sequence[Tier] = TIERS) -> list[Term]:
    """Return what a deployment takes once its longest retention has passed.

    Args:
        series: Number of series.
        rate_hz: Readings of each, 1/s, at regular times, > 0.
        devices: Number of devices.
        tiers: What is kept.

    >>> [hour] = [term for term in capacity(1, 1.0, 1) if term.name == "1h"]
    >>> hour.keys, hour.records
    (14, 10080)
    """
    return [
        *(_tier(tier, series, rate_hz) for tier in tiers),
        Term("newest values", series, series, series * (NAME_CHARS + LATEST.itemsize + FIELD_OVERHEAD_BYTES)),
        Term("units", series, series, series * (NAME_CHARS + UNIT_CHARS + FIELD_OVERHEAD_BYTES)),
        Term("devices", devices, devices, devices * (NAME_CHARS // 2 + DEVICE_OVERHEAD_BYTES)),
        Term("server", 0, 0, SERVER_BYTES),
    ]


def _tier(tier: Tier, series: int, rate_hz: float) -> Term:
    size = POINT_BYTES if tier is RAW or tier.step == 0 else SLOT_BYTES
    readings = rate_hz * tier.chunk / SECOND
    records = readings if tier.step == 0 else min(readings, tier.chunk / tier.step)
    chunks = math.ceil(tier.retention / tier.chunk) + 1
    if records < 1:  # most chunks' times pass without a reading, and have no key
        chunks, records = max(1, math.ceil(chunks * records)), 1.0
    open_ = 0 if tier.step > 0 and tier.chunk <= RAW.chunk else 1
    sealed = max(0, chunks - 2)
    since = math.ceil(records * LATENESS / tier.chunk) if open_ else 0
    key = KEY_OVERHEAD_BYTES + len(layout.chunk_key(0, tier, "x" * NAME_CHARS, 10**15 // tier.chunk))
    each = chunks * key + sealed * size.sealed(records)
    each += open_ * grown(math.ceil(records), size.open) + (grown(since, size.open) if since else 0)
    return Term(tier.name, series * chunks, round(series * chunks * records), round(series * each))


def grown(records: int, size: int) -> int:
    """Return the room that a string is given to which records are appended one by one, bytes.

    >>> [grown(n, 1) for n in (1, 2, 4, 5, 10, 11)]
    [1, 4, 4, 10, 10, 22]
    """
    room = 1
    while room < records:
        room = 2 * (room + 1)
        if room * size > 2 * GREEDY_BYTES:
            return records * size + GREEDY_BYTES
    return room * size
