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
format          comes in a format that its connector does not take
auth            comes from a peer that did not show who it is
unavailable     comes from a peer that cannot be asked about: the registry is away
no_device       names no device
name            has a name of other characters, or too long a one
identity        names another device than the channel does
no_value        has no value
too_many        is of a new metric of a device that has MAX_DEVICE_METRICS
seq             has a sequence number out of range
attribute       has a string value that is too long
command         replies to a command that its device was not given
not_finite      is infinite or not a number
time            lies too far in the past or the future
poison          is a record on `readings` that is no pack
analytic        made an analytic fail: it is stored, and lacks in what the analytic makes
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from isotherm.limits import MAX_REJECT_RAW_BYTES

MAX_DETAIL_CHARS = 2_000
"""Of why something was refused: what an analytic or a decoder of the user's raises may say anything."""


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
        at: Which line or record of its input it is, from 1; 0 when it is the input as a whole.
    """

    reason: str
    detail: str
    raw: bytes
    device: str | None = None
    size: int | None = None
    at: int = 0


class RejectRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of a record on ``rejects``: JSON with these fields.

    Attributes:
        reason, detail: Why; of several inputs, the detail of the first.
        protocol, peer: How it came.
        received_at: µs since the epoch UTC.
        size: Bytes of the original; greater than what is kept when they were cut at MAX_REJECT_RAW_BYTES.
        count: Inputs in it.
        form: Name of the format that it was read as.
        device: Whose it is, as far as it is known; bare names in it are metrics of this device.
        raw: The original bytes, several inputs each in a line, as text when they are UTF-8, else ``raw_base64`` has them.
    """

    reason: str
    detail: str
    protocol: str
    peer: str
    received_at: int
    size: int
    count: int = 1
    form: str = ""
    device: str | None = None
    raw: str | None = None
    raw_base64: str | None = None

    @classmethod
    def of(
        cls,
        rejects: Sequence[Rejected],
        *,
        protocol: str,
        peer: str,
        received_at: int,
        form: str = "",
        device: str | None = None,
    ) -> RejectRecord:
        """Describe rejected inputs that have a reason and a device in common."""
        first = rejects[0]
        original = first.raw if len(rejects) == 1 else b"\n".join(one.raw for one in rejects)
        kept = original[:MAX_REJECT_RAW_BYTES]
        try:
            text, binary = kept.decode(), None
        except UnicodeDecodeError:
            text, binary = None, base64.b64encode(kept).decode("ascii")
        return cls(
            reason=first.reason,
            detail=first.detail[:MAX_DETAIL_CHARS],
            protocol=protocol,
            peer=peer,
            received_at=received_at,
            size=len(original) if first.size is None else first.size,
            count=len(rejects),
            form=form,
            device=first.device or device,
            raw=text,
            raw_base64=binary,
        )

    @property
    def is_strangers(self) -> bool:
        """Whether its sender did not show for whom it may speak, or spoke for another."""
        return self.device is None or self.reason == "identity"

    @property
    def original(self) -> bytes:
        """The bytes that are kept."""
        return base64.b64decode(self.raw_base64 or "") if self.raw is None else self.raw.encode()

    @property
    def is_whole(self) -> bool:
        """Whether all bytes are kept."""
        return len(self.original) == self.size

    def shown(self, limit: int) -> str:
        """Return the first ``limit`` bytes as a person can read them: text as it is, all else as a hex dump.

        It is a stranger's text, and may have characters that control a terminal.
        """
        if self.raw is not None and "\0" not in self.raw:
            return self.raw.encode()[:limit].decode(errors="ignore")
        return hex_dump(self.original[:limit])

    def to_json(self) -> bytes:
        """Encode for the topic."""
        return msgspec.json.encode(self)


def hex_dump(data: bytes) -> str:
    r"""Write bytes in hexadecimal and as text, 16 to a line.

    >>> hex_dump(b"T=21.5\x00")
    '00000000  54 3d 32 31 2e 35 00                             T=21.5.'
    """
    lines = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:08x}  {row.hex(' '):47}  {text}")
    return "\n".join(lines)
