"""Rejects: what could not be accepted, kept on the topic ``rejects`` with its reason and its original bytes.

reason          the input
--------------  ------------------------------------------------------------------
malformed       is not what its format says
type            has a field of another type
line_too_long   is over MAX_LINE_BYTES; its head is kept
too_large       is over MAX_PACK_BYTES or MAX_PACK_READINGS
version         is of a SenML version we do not know
unknown_field   has a field that must be understood (RFC 8428 §4.4) and is not
base            follows a bad record that may have changed the base fields
no_device       names no device
name            has a name of other characters, or too long a one
identity        names another device than the channel does
no_value        has no value
not_numeric     has a value that is no number
not_finite      is infinite or not a number
time            lies too far in the past or the future
poison          is a record on `readings` that is no pack
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import msgspec

from isotherm.limits import MAX_REJECT_RAW_BYTES


@dataclass(frozen=True, slots=True)
class Rejected:
    """One input that a decoder or intake refused.

    Attributes:
        reason: See the table above.
        detail: What was got and what was expected.
        raw: The original bytes; of a record in an array, the record with its base fields resolved (RFC 8428 §4.6),
            so that it can be sent again by itself.
        device: Whose it is, as far as it is known.
        size: Length of the original when ``raw`` is only its head.
    """

    reason: str
    detail: str
    raw: bytes
    device: str | None = None
    size: int | None = None


class RejectRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of a record on ``rejects``: JSON with these fields.

    Attributes:
        raw: The original bytes as text when they are UTF-8, else ``raw_base64`` has them.
        size: Their number; greater than what is kept when they were cut at MAX_REJECT_RAW_BYTES.
        protocol, peer: How it came.
        received_at: µs since the epoch UTC.
    """

    reason: str
    detail: str
    protocol: str
    peer: str
    received_at: int
    size: int
    device: str | None = None
    raw: str | None = None
    raw_base64: str | None = None

    @classmethod
    def of(cls, rejected: Rejected, *, protocol: str, peer: str, received_at: int) -> RejectRecord:
        """Describe a rejected input."""
        kept = rejected.raw[:MAX_REJECT_RAW_BYTES]
        try:
            text, binary = kept.decode(), None
        except UnicodeDecodeError:
            text, binary = None, base64.b64encode(kept).decode("ascii")
        return cls(
            reason=rejected.reason,
            detail=rejected.detail,
            protocol=protocol,
            peer=peer,
            received_at=received_at,
            size=len(rejected.raw) if rejected.size is None else rejected.size,
            device=rejected.device,
            raw=text,
            raw_base64=binary,
        )

    def to_json(self) -> bytes:
        """Encode for the topic."""
        return msgspec.json.encode(self)
