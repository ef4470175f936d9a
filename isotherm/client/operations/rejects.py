"""Rejects: what was refused, why, its original bytes, and how it is taken in after all."""

from __future__ import annotations

import re
import uuid

from isotherm.client.exchange import Listing, Steps, decoded, got, posted
from isotherm.client.model import Outcome, Reject

_ID = re.compile(r"\d+/\d+", re.ASCII)


def rejects(*, reason: str = "", device: str = "", protocol: str = "", since: str = "") -> Listing[Reject]:
    """Go through rejects, newest first.

    Args:
        reason: Only those with this reason, such as ``malformed``.
        device: Only those of this device.
        protocol: Only those that came over this protocol.
        since: Only those that were received not before this time: ISO 8601.
    """
    return Listing("/rejects", Reject, reason=reason, device=device, protocol=protocol, since=since)


def reject(id: str) -> Steps[Reject]:
    """Return a reject with its bytes.

    Raises:
        NotFound: there is none, or no longer.
    """
    return decoded((yield got(_path(id))).body, Reject)


def original(id: str) -> Steps[bytes]:
    """Return the bytes of a reject that are kept, as they came.

    Raises:
        NotFound: there is none, or no longer.
    """
    return (yield got(_path(id) + "/original")).body


def replay_reject(id: str, *, format: str = "", device: str = "", again: bool = False) -> Steps[Outcome]:
    """Take a reject in once more, as if it had just come when it came.

    Args:
        id: Of the reject.
        format: As another format: ``senml-json``, ``influx``, ``number:METRIC``, ``decoder:NAME``.
        device: Whose it is, where it names no device.
        again: Also when it was replayed before.

    Raises:
        NotFound: there is none, or no longer.
        Conflict: it was replayed before, not all of it was kept, or it is stored.
        Invalid: there is no such format.
    """
    body = {"format": format, "device": device, "again": again}
    return decoded((yield posted(_path(id) + "/replay", body, uuid.uuid4().hex)).body, Outcome)


def _path(id: str) -> str:
    if not _ID.fullmatch(id):
        raise ValueError(f"{id!r} is no id of a reject, expected PARTITION/OFFSET")
    return f"/rejects/{id}"
