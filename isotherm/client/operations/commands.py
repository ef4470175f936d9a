"""Commands: what a device is asked to do, and how far that is."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from isotherm.client.exchange import Listing, Steps, decoded, deleted, got, posted, segment
from isotherm.client.model import Command

MAX_WAIT = 20
"""Seconds that one request waits: less than a client's time-out, and than what the platform allows."""

PAGE = 100


def commands(device: str) -> Listing[Command]:
    """Go through the commands of a device of the last seven days, newest first."""
    return Listing(_path(device), Command, size=PAGE)


def command(device: str, id: str, *, wait: int = 0) -> Steps[Command]:
    """Return a command.

    Args:
        device: Whom it is for.
        id: Of the command.
        wait: Until it has ended, or for so many seconds.

    Raises:
        NotFound: there is none, or it is forgotten.
    """
    while True:
        span = min(wait, MAX_WAIT)
        asked = [("wait", str(span))] if span else []
        found = decoded((yield got(_path(device, id), *asked)).body, Command)
        wait -= span
        if found.has_ended or not wait:
            return found


def send_command(
    device: str,
    name: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    timeout: int = 60,
    idempotent: bool = False,
    wait: int = 0,
) -> Steps[Command]:
    """Have a device do something, now or when it comes; however often the request is sent, once.

    Args:
        device: Whom it is for.
        name: What to do.
        parameters: With what: anything that JSON can say, at most 16 KiB.
        timeout: Seconds by when the answer has to be there.
        idempotent: It does no harm to do it twice: it is given again while no answer comes.
        wait: Return when it has ended, or after so many seconds.

    Raises:
        NotFound: there is no such device.
        Invalid: a field is wrong.
        Conflict: too many commands wait for the device.
    """
    form = {"name": name, "parameters": dict(parameters or {}), "timeout": timeout, "idempotent": idempotent}
    sent = decoded((yield posted(_path(device), form, uuid.uuid4().hex)).body, Command)
    return (yield from command(device, sent.id, wait=wait)) if wait else sent


def cancel_command(device: str, id: str) -> Steps[Command]:
    """Let a command end that was never given to its device.

    Raises:
        NotFound: there is none, or it is forgotten.
        Conflict: it is too late: a connector has taken it up, or it has ended.
    """
    return decoded((yield deleted(_path(device, id))).body, Command)


def _path(device: str, *id: str) -> str:
    return "/".join([f"/devices/{segment(device)}/commands", *map(segment, id)])
