"""What runs virtual hosts: a protocol of two, podman on this machine and Kubernetes, and which one the settings say."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from isotherm.errors import IsothermError, SettingsError
from isotherm.hosts.host import Host, Spec
from isotherm.settings import Settings

_Answer = TypeVar("_Answer")


class HostsUnusable(SettingsError):
    """Nothing can run virtual hosts here; the text says what is missing."""


class HostsAway(IsothermError):
    """What runs hosts does not answer, or has failed; the same call may succeed later."""


class HostTaken(SettingsError):
    """There is a host of this name already."""


class NoSuchHost(SettingsError):
    """There is no host of this name."""


class Backend(Protocol):
    """What runs hosts. Every method raises HostsUnusable where it cannot, and HostsAway when it does not answer."""

    async def check(self) -> None:
        """See that hosts can be created, before anything is."""
        ...

    async def all(self) -> list[Host]:
        """Return every host, ascending by name."""
        ...

    async def find(self, name: str) -> Host | None:
        """Return a host, or None."""
        ...

    async def create(self, spec: Spec) -> bool:
        """Begin to run a host; whatever happens on the way, also a cancellation, leaves all of it or nothing.

        Returns:
            Whether a volume that was kept of an earlier host of this name and user is its home again.

        Raises:
            HostTaken: there is one of this name, or a volume of another user's.
        """
        ...

    async def delete(self, name: str, *, keep_volume: bool = False) -> None:
        """Have a host, or what there is of one, be gone; Kubernetes takes its time, and `find` says when it is.

        Raises:
            NoSuchHost: there is none.
        """
        ...

    async def keys(self, name: str) -> str:
        """Return the public keys that let in, a line each.

        Raises:
            NoSuchHost: nothing is running, or will be.
        """
        ...

    async def set_keys(self, name: str, keys: Sequence[str]) -> None:
        """Let these keys in from now on, and no others.

        Raises:
            NoSuchHost: nothing is running, or will be.
        """
        ...

    async def host_key(self, name: str) -> str:
        """Return the public key by which clients know the host, or an empty text while it is not known."""
        ...


def backend_of(settings: Settings) -> Backend:
    """Return what runs hosts.

    Raises:
        HostsUnusable: they are off, or a package is missing.
    """
    match settings.hosts:
        case "podman":
            from isotherm.hosts.podman import Podman

            return Podman(settings.hosts_image, settings.hosts_network)
        case "kubernetes":
            from isotherm.hosts.kubernetes import Kubernetes

            return Kubernetes(settings)
        case _:
            raise HostsUnusable(
                "virtual hosts are off: set ISOTHERM_HOSTS to podman (this machine) or kubernetes, see infra/hosts/README.md"
            )


async def to_the_end(work: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Do something to its end, also when we are cancelled meanwhile; only then is that let through."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            cancelled.add_note(str(failure))
        raise cancelled
    return task.result()
