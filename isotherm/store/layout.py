"""What lies where in Redis.

Every key of a partition carries the hash tag ``{p}``, so that the partition is one Redis Cluster slot and one script can
write it atomically.

    | key                                     | type   | content                                             |
    |-----------------------------------------|--------|-----------------------------------------------------|
    | ``iso:{p}:raw:SERIES:CHUNK``            | string | points, in order of arrival, not rolled up yet      |
    | ``iso:{p}:TIER:SERIES:CHUNK``           | string | slots, ascending, none empty                        |
    | ``iso:{p}:sealed:TIER:SERIES:CHUNK``    | string | what was in a chunk when it was sealed, compressed  |
    | ``iso:{p}:open``                        | set    | ``TIER:CHUNK``: of some series it is not sealed     |
    | ``iso:{p}:sweeping``                    | set    | those that are being sealed                         |
    | ``iso:{p}:late``                        | set    | ``TIER:CHUNK:SERIES``: got data after that          |
    | ``iso:{p}:latest``                      | hash   | series → newest point and when it was received      |
    | ``iso:{p}:units``                       | hash   | series → unit (RFC 8428 §12.1)                      |
    | ``iso:{p}:attributes``                  | hash   | ``device/attribute`` → newest text and its time     |
    | ``iso:{p}:windows``                     | hash   | series → sequence numbers seen, see ``windows``     |
    | ``iso:{p}:stored``                      | hash   | connector → readings stored: the ledger's far end   |
    | ``iso:{p}:duplicates``                  | hash   | connector → repetitions, which were not             |
    | ``iso:{p}:progress:AGENT:LOG``          | hash   | ``next``: offset of the first record not applied;   |
    |                                         |        | ``mark``: time and CRC-32 of the one before it      |
    | ``iso:{p}:agent:NAME``                  | hash   | an analytic's progress and outbox, see ``analytic`` |
    | ``iso:{p}:agent:NAME:state``            | hash   | key → row of its state                              |
    | ``iso:{p}:agent:NAME:numbers``          | hash   | derived series → the next reading's number          |
    | ``iso:{p}:alarms:marks``                | hash   | what people did to alarms, see ``isotherm.alarms``  |
    | ``iso:{p}:events``                      | stream | the newest events, JSON                             |
    | ``iso:{p}:live``                        | channel| a message after each commit                         |
    | ``iso:connector:PROTOCOL/INSTANCE``     | hash   | the ledger's near end, see ``isotherm.ledger``      |
    | ``iso:{registry}:…``                    |        | devices and tokens, see ``isotherm.registry``       |
    | ``iso:replayed:LOG``                    | set    | ids of the rejects that were taken in after all     |

CHUNK is the number of the chunk since the epoch: time div chunk length. LOG is the identity of the Kafka log, so that a
log which begins anew begins with no progress. A chunk expires as a whole, its tier's retention after its end; one of
points that is open does not, it is sealed first.

Readings are appended to the points of their hour, and nothing else is done with them at first: a commit costs one append a
series. When the hour is over they are rolled up and sealed, in one step (``sealer``). What is older than points are kept is
rolled up at once.

A point is 16 bytes, a latest value 24, a slot 44, all little-endian:

    attr     time:i64 µs │ UTF-8 text
    point    time:i64 µs │ value:f64
    latest   time:i64 µs │ value:f64 │ received_at:i64 µs
    slot     index:u32 │ count:u32 │ last_at:u32 µs │ sum:f64 │ min:f64 │ max:f64 │ last:f64

A slot's index counts from its chunk's begin; last_at is the time of ``last`` from the slot's begin. Slots are stored one
after another instead of in an array addressed by index: the common case is still an append or an overwrite of the tail,
and a device that reports once an hour pays for one slot of 44 bytes, not for a chunk of empty ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from isotherm.limits import DAY, HOUR, MINUTE, SECOND

POINT = np.dtype([("time", "<i8"), ("value", "<f8")])
LATEST = np.dtype([("time", "<i8"), ("value", "<f8"), ("received_at", "<i8")])
SLOT = np.dtype(
    [
        ("index", "<u4"),
        ("count", "<u4"),
        ("last_at", "<u4"),
        ("sum", "<f8"),
        ("min", "<f8"),
        ("max", "<f8"),
        ("last", "<f8"),
    ]
)


@dataclass(frozen=True, slots=True)
class Tier:
    """One resolution of every series.

    Attributes:
        name: Its part of the key.
        step: Slot width, µs; 0 for raw points.
        chunk: Length of time in one key, µs.
        retention: How long a chunk outlives its end, µs.
    """

    name: str
    step: int
    chunk: int
    retention: int


RAW = Tier("raw", 0, 1 * HOUR, 2 * HOUR)
ROLLUPS = (
    Tier("10s", 10 * SECOND, 1 * HOUR, 1 * DAY),
    Tier("1m", 1 * MINUTE, 1 * DAY, 14 * DAY),
    Tier("1h", 1 * HOUR, 30 * DAY, 365 * DAY),
)
TIERS = (RAW, *ROLLUPS)

LATENESS = 10 * MINUTE
"""How long after its end a chunk awaits readings in its open form, µs."""


def chunk_key(partition: int, tier: Tier, series: str, chunk: int) -> str:
    """Return the key of a chunk."""
    return f"iso:{{{partition}}}:{tier.name}:{series}:{chunk}"


def expires_at_ms(tier: Tier, chunk: int) -> int:
    """Return when a chunk expires, ms since the epoch."""
    return ((chunk + 1) * tier.chunk + tier.retention) // 1000


def first_kept(tier: Tier, now: int) -> int:
    """Return the number of the first chunk that has not expired."""
    return (now - tier.retention) // tier.chunk


def open_member(tier: Tier, chunk: int) -> str:
    """Return what a chunk of any series is called among those that are not sealed."""
    return f"{tier.name}:{chunk}"


def open_chunks(tier: Tier, members: Iterable[bytes]) -> set[int]:
    """Return the numbers of a tier's chunks from what :func:`open_member` has called them."""
    found = (member.decode().split(":") for member in members)
    return {int(number) for name, number in found if name == tier.name}


def first_open(tier: Tier, now: int) -> int:
    """Return the number of the first chunk that still awaits readings: the ones before it may be sealed."""
    return (now - LATENESS) // tier.chunk


def late_member(tier: Tier, series: str, chunk: int) -> str:
    """Return what a chunk is called among those that got data late."""
    return f"{tier.name}:{chunk}:{series}"


def latest_key(partition: int) -> str:
    """Return the key of the newest values."""
    return f"iso:{{{partition}}}:latest"


def units_key(partition: int) -> str:
    """Return the key of the units."""
    return f"iso:{{{partition}}}:units"


def attributes_key(partition: int) -> str:
    """Return the key of the devices' string values."""
    return f"iso:{{{partition}}}:attributes"


def stored_key(partition: int) -> str:
    """Return the key of the counts of stored readings."""
    return f"iso:{{{partition}}}:stored"


def windows_key(partition: int) -> str:
    """Return the key of the sequence numbers that were seen."""
    return f"iso:{{{partition}}}:windows"


def duplicates_key(partition: int) -> str:
    """Return the key of the counts of repetitions."""
    return f"iso:{{{partition}}}:duplicates"


def sealed_key(partition: int, tier: Tier, series: str, chunk: int) -> str:
    """Return the key of what a chunk held when it was sealed."""
    return f"iso:{{{partition}}}:sealed:{tier.name}:{series}:{chunk}"


def chunk_keys(partition: int, tier: Tier, series: str, chunk: int) -> tuple[str, str]:
    """Return both keys of a chunk: of what is open of it, and of what is sealed."""
    return chunk_key(partition, tier, series, chunk), sealed_key(partition, tier, series, chunk)


def open_key(partition: int) -> str:
    """Return the key of the chunks that have to be sealed when their time is over."""
    return f"iso:{{{partition}}}:open"


def sweeping_key(partition: int) -> str:
    """Return the key of the chunks that are being sealed."""
    return f"iso:{{{partition}}}:sweeping"


def late_key(partition: int) -> str:
    """Return the key of the chunks that got data after they were sealed."""
    return f"iso:{{{partition}}}:late"


def progress_key(partition: int, agent: str, log_id: str) -> str:
    """Return the key of an agent's progress through a log."""
    return f"iso:{{{partition}}}:progress:{agent}:{log_id}"


def analytic_key(partition: int, name: str) -> str:
    """Return the key of an analytic's progress and outbox."""
    return f"iso:{{{partition}}}:agent:{name}"


def state_key(partition: int, name: str) -> str:
    """Return the key of the rows of an analytic's state."""
    return f"iso:{{{partition}}}:agent:{name}:state"


def numbers_key(partition: int, name: str) -> str:
    """Return the key of the numbers of an analytic's derived readings."""
    return f"iso:{{{partition}}}:agent:{name}:numbers"


def marks_key(partition: int) -> str:
    """Return the key of what people did to alarms."""
    return f"iso:{{{partition}}}:alarms:marks"


def events_key(partition: int) -> str:
    """Return the key of the newest events."""
    return f"iso:{{{partition}}}:events"


def replayed_key(log_id: str) -> str:
    """Return the key of the set of rejects of a log that were taken in after all."""
    return f"iso:replayed:{log_id}"


def live_channel(partition: int) -> str:
    """Return the channel on which commits are announced."""
    return f"iso:{{{partition}}}:live"


STORER = "downsample"
"""The agent that stores readings, by whose progress one knows how far the store is."""

CONNECTOR_PREFIX = "iso:connector:"
PARTITIONS_KEY = "iso:partitions"
