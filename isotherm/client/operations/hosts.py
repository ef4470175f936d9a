"""Virtual hosts: an environment for a user, entered by ssh with a key."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from isotherm.client.exchange import Listing, Request, Steps, decoded, got, posted, put, segment, tagged
from isotherm.client.model import Host, HostKeys


def hosts() -> Listing[Host]:
    """Go through hosts, ascending by name: all for an admin, their own for others."""
    return Listing("/hosts", Host)


def host(name: str) -> Steps[Host]:
    """Return a host.

    Raises:
        NotFound: there is none, or it is another's.
    """
    return decoded((yield got(_path(name))).body, Host)


def create_host(
    name: str, user: str, keys: Sequence[str], *, cpus: float = 1.0, memory: str = "1Gi", disk: str = "10Gi"
) -> Steps[Host]:
    """Begin to run a host; it can be entered when its state is ``running``.

    Args:
        name: A letter, then a-z, 0-9 and ``-``.
        user: The account whose it is.
        keys: OpenSSH public keys that let in.
        cpus: How many processors it may use at most.
        memory: How much of it, such as ``512Mi``.
        disk: Size of its volume, such as ``10Gi``.

    Raises:
        Invalid: one of these cannot be; its faults say which.
        Conflict: there is one of this name, or virtual hosts are off.
    """
    form: dict[str, Any] = {"name": name, "user": user, "keys": list(keys), "cpus": cpus, "memory": memory, "disk": disk}
    return decoded((yield posted("/hosts", form, uuid.uuid4().hex)).body, Host)


def delete_host(name: str, *, keep_volume: bool = False) -> Steps[None]:
    """Delete a host and, unless it is to be kept for the next one of its name and user, its volume.

    Raises:
        NotFound: there is none.
    """
    yield Request(method="DELETE", path=_path(name), query=[("keep_volume", "true")] if keep_volume else [])


def host_keys(name: str) -> Steps[HostKeys]:
    """Return the public keys that let into a host, with their ETag.

    Raises:
        NotFound: there is no such host.
    """
    return tagged((yield got(f"{_path(name)}/keys")), HostKeys)


def set_host_keys(name: str, keys: Sequence[str], *, etag: str = "") -> Steps[HostKeys]:
    """Let these public keys in from now on, and no others.

    Args:
        name: Of the host.
        keys: OpenSSH public keys.
        etag: Of the keys as they were seen; by default whatever they are now.

    Raises:
        Invalid: one is no key.
        PreconditionFailed: they have changed since they were read.
    """
    return tagged((yield put(f"{_path(name)}/keys", {"keys": list(keys)}, etag=etag)), HostKeys)


def _path(name: str) -> str:
    return f"/hosts/{segment(name)}"
