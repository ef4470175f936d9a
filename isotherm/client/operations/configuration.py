"""What a device should have, and what it has."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from isotherm.client.exchange import Steps, got, patched, posted, segment, tagged
from isotherm.client.model import Configuration


def configuration(device: str) -> Steps[Configuration]:
    """Return what a device should have, what it has, and how far that is, with its ETag.

    Raises:
        NotFound: there is no such device.
    """
    return tagged((yield got(_path(device))), Configuration)


def configure(device: str, values: Mapping[str, Any], *, etag: str = "") -> Steps[Configuration]:
    """Change what a device should have; it is given to the device now, or when it comes.

    Args:
        device: Whose.
        values: Setting → value; None removes it, and what is not named stays as it is.
        etag: Of the configuration as it was seen; by default whatever it is now.

    Raises:
        NotFound: there is no such device.
        Invalid: a setting cannot be so.
        PreconditionFailed: it has changed since it was seen, be it by the device's report.
    """
    return tagged((yield patched(_path(device), {"values": dict(values)}, etag)), Configuration)


def push_configuration(device: str) -> Steps[Configuration]:
    """Give a device what it should have once more: one that could not, or has something else.

    Raises:
        NotFound: there is no such device.
        Invalid: nothing is desired of it.
    """
    return tagged((yield posted(_path(device) + "/push", None, uuid.uuid4().hex)), Configuration)


def _path(device: str) -> str:
    return f"/devices/{segment(device)}/configuration"
