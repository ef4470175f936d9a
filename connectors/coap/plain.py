"""The fast path: requests whose payload is a SenML JSON array of plain records, put together into one piece.

What numpy costs, it costs a call and not a reading: 256 requests with a reading each are taken in together for little more
than one alone. That needs names that say their device, because a piece has one identity; so whether a peer may speak for the
devices it names is seen to here.
"""

from __future__ import annotations

import msgspec
import numpy as np

from connectors.formats.decoded import Decoded
from connectors.formats.records import senml_us
from connectors.identity import Identity
from isotherm.limits import MAX_PACK_READINGS


class PlainRecord(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What nearly every record is: no base fields, a number for a value."""

    n: str
    v: float
    t: float = 0.0
    u: str = ""


_records = msgspec.json.Decoder(list[PlainRecord])


def plain_records(payload: bytes, identity: Identity) -> list[PlainRecord] | None:
    """Decode a payload, its names complete; None when it is not plain, or names what its peer may not.

    >>> plain_records(b'[{"n":"temperature","v":21.5}]', Identity("room-1"))
    [PlainRecord(n='room-1/temperature', v=21.5, t=0.0, u='')]
    """
    try:
        records = _records.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not 0 < len(records) <= MAX_PACK_READINGS:
        return None
    for record in records:
        device, slash, _ = record.n.partition("/")
        if not slash or ":" in device:
            if identity.device is None or ":" in device:  # names of URNs are split elsewhere
                return None
            record.n = f"{identity.device}/{record.n}"
        elif identity.others is not None and not identity.may_name(device):
            return None
    return records


def merged(records: list[PlainRecord], now: int) -> Decoded:
    """Put records into columns.

    Args:
        records: Of any number of payloads.
        now: µs since the epoch UTC; relative times count from here.
    """
    return Decoded(
        [record.n for record in records],
        senml_us(np.array([record.t for record in records], dtype=np.float64), now),
        np.array([record.v for record in records], dtype=np.float64),
        lambda i: (0, msgspec.json.encode(records[i])),
        {record.n: record.u for record in records if record.u},
    )
