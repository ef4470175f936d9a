"""Devices, their labels, their tokens, and what they have reported."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from isotherm.client.errors import PreconditionFailed
from isotherm.client.exchange import Listing, Request, Steps, decoded, deleted, got, put, segment, tagged
from isotherm.client.model import Attribute, Attributes, Device, Presence

LABELLING_ATTEMPTS = 5
"""How often labels are changed anew because somebody else changed the device meanwhile."""


class _Token(msgspec.Struct):
    token: str


def devices(name: str = "", *, label: str = "", type: str = "", gateway: str = "") -> Listing[Device]:
    """Go through devices, ascending by name.

    Args:
        name: A pattern of a shell over names: ``room-*``.
        label: A word, a key, or ``key=value``.
        type: Of this type only.
        gateway: For which this gateway speaks.
    """
    return Listing("/devices", Device, name=name, label=label, type=type, gateway=gateway)


def device(name: str) -> Steps[Device]:
    """Return a device, with its ETag.

    Raises:
        NotFound: there is none.
    """
    return tagged((yield got(_path(name))), Device)


def create_device(
    name: str, *, type: str = "", is_gateway: bool = False, gateway: str = "", labels: Iterable[str] = ()
) -> Steps[Device]:
    """Register a device that is not there yet.

    Raises:
        PreconditionFailed: it is.
        Invalid: a field is wrong.
    """
    form = {"type": type, "is_gateway": is_gateway, "gateway": gateway, "labels": sorted(set(labels))}
    return tagged((yield put(_path(name), form, is_new=True)), Device)


def update_device(
    device: Device,
    *,
    type: str | None = None,
    is_gateway: bool | None = None,
    gateway: str | None = None,
    labels: Iterable[str] | None = None,
) -> Steps[Device]:
    """Change a device as it was seen; what is left out stays.

    Raises:
        ValueError: it was not read by itself, and has no ETag.
        PreconditionFailed: it has changed since.
    """
    if not device.etag:
        raise ValueError(f"{device.name} comes from a list, where it has no ETag: read it with device({device.name!r})")
    form = {
        "type": device.type if type is None else type,
        "is_gateway": device.is_gateway if is_gateway is None else is_gateway,
        "gateway": device.gateway if gateway is None else gateway,
        "labels": sorted(device.labels if labels is None else set(labels)),
    }
    return tagged((yield put(_path(device.name), form, etag=device.etag)), Device)


def label_device(name: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> Steps[Device]:
    """Give a device labels, and take others away; ``key=value`` takes the place of another value of the key.

    Args:
        name: Of the device.
        add: Words, and ``key=value``.
        remove: Words, keys, and ``key=value``; what it has not is not missed.

    Raises:
        PreconditionFailed: others change it all the time.
    """
    new, old = list(add), set(remove)
    keys = {label.partition("=")[0] for label in new if "=" in label}
    for attempt in range(LABELLING_ATTEMPTS):
        seen = yield from device(name)
        kept = {one for one in seen.labels if one not in old and _key(one) not in old | keys}
        try:
            return (yield from update_device(seen, labels=kept | set(new)))
        except PreconditionFailed:
            if attempt == LABELLING_ATTEMPTS - 1:
                raise
    raise AssertionError


def delete_device(name: str, *, etag: str = "") -> Steps[None]:
    """Forget a device with its tokens and labels; its history stays until it expires.

    Args:
        name: Of the device.
        etag: Of the device as it was seen; by default whatever it is now.
    """
    yield deleted(_path(name), etag)


def create_device_token(name: str) -> Steps[str]:
    """Give a device a new token, which is never shown again; of its older ones the newest stays valid."""
    answer = yield Request(method="POST", path=_path(name) + "/tokens")
    return decoded(answer.body, _Token).token


def revoke_device_tokens(name: str) -> Steps[None]:
    """Make all tokens of a device invalid; connectors notice within 10 s."""
    yield deleted(_path(name) + "/tokens")


def presence() -> Listing[Presence]:
    """Go through the devices of which it is known whether they are there, ascending by name."""
    return Listing("/presence", Presence)


def attributes(name: str) -> Steps[list[Attribute]]:
    """Return the texts that a device has reported, ascending by name."""
    return decoded((yield got(_path(name) + "/attributes")).body, Attributes).reported


def _path(name: str) -> str:
    return f"/devices/{segment(name)}"


def _key(label: str) -> str:
    """Return the key of ``key=value``; of a word nothing."""
    key, equals, _ = label.partition("=")
    return key if equals else ""
