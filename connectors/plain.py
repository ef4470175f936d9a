"""The fast path of small messages: those whose payload is plain SenML JSON are put together into one piece.

What numpy costs, it costs a call and not a reading: 256 messages with a reading each are taken in together for little more
than one alone. That needs names that say their device, because a piece has one identity; so whether a peer may speak for the
devices it names is seen to here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec
import numpy as np

from connectors.formats.decoded import Decoded
from connectors.formats.records import senml_us, seq_column
from connectors.identity import Identity
from connectors.intake import Intake
from connectors.receipt import Receipt
from isotherm.clock import now_us
from isotherm.errors import InvalidReading
from isotherm.limits import MAX_PACK_READINGS, MAX_SEQ
from isotherm.names import series_name


class PlainRecord(msgspec.Struct, forbid_unknown_fields=True, gc=False, omit_defaults=True):
    """What nearly every record is: no base fields, a number for a value."""

    n: str
    v: float
    t: float = 0.0
    u: str = ""
    seq: int | None = None


_Message = TypeVar("_Message")

_record = msgspec.json.Decoder(PlainRecord)
_records = msgspec.json.Decoder(list[PlainRecord])


def plain_records(payload: bytes, identity: Identity) -> list[PlainRecord] | None:
    """Decode an array or a record, names complete; None when it is not plain, or names what its peer may not.

    >>> plain_records(b'[{"n":"temperature","v":21.5}]', Identity("room-1"))
    [PlainRecord(n='room-1/temperature', v=21.5, t=0.0, u='', seq=None)]
    """
    try:
        records = [_record.decode(payload)] if payload[:1] == b"{" else _records.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not 0 < len(records) <= MAX_PACK_READINGS:
        return None
    for record in records:
        name = _complete(record.n, identity)
        if name is None or (record.seq is not None and not 0 <= record.seq <= MAX_SEQ):
            return None
        record.n = name
    return records


def _complete(name: str, identity: Identity) -> str | None:
    """Return a name that says its device by itself; None if it cannot, or if its peer may not name the device."""
    device, slash, _ = name.partition("/")
    if not slash or ":" in device:
        try:
            name = series_name(name, identity.device)
            if series_name(name) != name:  # of a device that is called urn:dev:ow:1_2, which reads as a metric of another
                return None
        except InvalidReading:
            return None
        device = name.partition("/")[0]
    return name if identity.may_name(device) else None


def merged(records: list[PlainRecord], now: int) -> Decoded:
    """Put records into columns.

    Args:
        records: Of any number of payloads.
        now: µs since the epoch UTC; relative times count from here.
    """
    seconds = [record.t for record in records]
    return Decoded(
        [record.n for record in records],
        senml_us(np.array(seconds, dtype=np.float64), now),
        np.array([record.v for record in records], dtype=np.float64),
        lambda i: (0, msgspec.json.encode(records[i])),
        {record.n: record.u for record in records if record.u},
        seq_column([record.seq for record in records], seconds),
    )


def take(
    intake: Intake, messages: Sequence[tuple[_Message, list[PlainRecord]]]
) -> Iterator[tuple[Receipt | None, list[_Message]]]:
    """Take in messages as one piece, or halves of them until what is not good is alone, in their order.

    Args:
        intake: Takes them.
        messages: Each with its records.

    Yields:
        The messages that went in together with their receipt; with None, those that have to go alone.
    """
    receipt = Receipt()
    if not intake.room.is_full and intake.take_clean(
        merged([one for _, records in messages for one in records], now_us()), receipt
    ):
        yield receipt, [message for message, _ in messages]
    elif len(messages) == 1 or intake.room.is_full or intake.is_away:
        yield None, [message for message, _ in messages]
    else:
        middle = len(messages) // 2
        yield from take(intake, messages[:middle])
        yield from take(intake, messages[middle:])
