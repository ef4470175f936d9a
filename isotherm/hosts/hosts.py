"""What one may do with virtual hosts, for pages, API and command line: each is checked, done, and kept in the audit log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from isotherm.accounts.accounts import Accounts, Actor
from isotherm.accounts.audit import FAILED
from isotherm.accounts.names import user_name
from isotherm.errors import BadField, IsothermError, SettingsError
from isotherm.hosts.answering import POLL_SECONDS, answers
from isotherm.hosts.backend import Backend, HostsAway, NoSuchHost
from isotherm.hosts.host import Host, Spec, check_name, checked, quantity
from isotherm.hosts.keys import public_keys

_Answer = TypeVar("_Answer")


class Hosts:
    """Hosts of accounts.

    Every method raises Unavailable when the store does not answer, and HostsAway when what runs hosts does not.
    """

    def __init__(self, backend: Backend, accounts: Accounts) -> None:
        self._backend = backend
        self._accounts = accounts

    async def all(self, user: str = "") -> list[Host]:
        """Return the hosts, of one user perhaps, ascending by name."""
        return [one for one in await self._backend.all() if user in ("", one.user)]

    async def get(self, name: str) -> Host:
        """Return a host.

        Raises:
            NoSuchHost: there is none.
        """
        found = await self._backend.find(name) if _is_name(name) else None
        if found is None:
            raise NoSuchHost(f"there is no host {name[:80]!r}; try: isotherm hosts list")
        return found

    async def create(self, spec: Spec, actor: Actor) -> bool:
        """Begin to run a host; returns whether the volume of an earlier one of its name and user is its home again.

        Raises:
            BadField: what is asked for may not be; nothing was done.
            HostTaken: there is one of this name.
        """
        checked(spec)
        try:
            owner = await self._accounts.users.existing(user_name(spec.user))
        except SettingsError as error:
            raise BadField("user", f"{error}; a host belongs to an account: isotherm users add NAME") from error
        meant = msgspec.structs.replace(spec, user=owner.name, keys=public_keys("\n".join(spec.keys)))
        detail = f"{owner.name}, {meant.cpus:g} CPUs, {quantity(meant.memory)}, {quantity(meant.disk)}"
        return await self._act(self._backend.create(meant), "create host", meant.name, actor, detail)

    async def delete(self, name: str, actor: Actor, *, keep_volume: bool = False) -> None:
        """Remove a host, and its volume unless that is to be kept.

        Raises:
            NoSuchHost: there is none.
        """
        host = await self.get(name)
        detail = f"{host.user}{', its volume is kept' if keep_volume else ''}"
        await self._act(self._backend.delete(host.name, keep_volume=keep_volume), "delete host", host.name, actor, detail)

    async def keys(self, name: str) -> tuple[str, ...]:
        """Return the public keys that let into a host.

        Raises:
            NoSuchHost: there is none, or only its volume.
        """
        await self.get(name)
        found = await self._backend.keys(name)
        return public_keys(found) if found.strip() else ()

    async def set_keys(self, name: str, text: str, actor: Actor) -> tuple[str, ...]:
        """Let these public keys in from now on, a line each, and no others; returns them.

        Raises:
            BadField: one is no key; nothing was done.
            NoSuchHost: there is no such host, or only its volume.
        """
        keys = public_keys(text)
        host = await self.get(name)
        detail = f"{host.user}, {len(keys)} keys"
        await self._act(self._backend.set_keys(host.name, keys), "change host keys", host.name, actor, detail)
        return keys

    async def host_key(self, name: str) -> str:
        """Return the public key by which clients know a host, or an empty text while it is not known."""
        return await self._backend.host_key(name)

    async def until_it_answers(self, name: str, seconds: float, look: Callable[[Host], None] = lambda _: None) -> Host:
        """Return a host when its sshd answers from here.

        Args:
            name: Of the host.
            seconds: How long it may take.
            look: Told how it is, again and again.

        Raises:
            HostsAway: it does not in time, or it cannot.
            NoSuchHost: it has gone.
        """
        host = await self.get(name)
        try:
            async with asyncio.timeout(seconds):
                while not (host.state == "running" and await answers(host.address)):
                    if host.state in ("failed", "deleting"):
                        raise HostsAway(f"the host {name} cannot run: {host.detail or host.state}")
                    look(host)
                    await asyncio.sleep(POLL_SECONDS)
                    host = await self.get(name)
        except TimeoutError as error:
            where = f" at {host.address}" if host.address else ""
            why = f"{host.state}{f', {host.detail}' if host.detail else ''}"
            raise HostsAway(f"ssh of the host {name}{where} has not answered within {seconds:.0f} s: {why}") from error
        return host

    async def until_it_is_gone(self, name: str, seconds: float) -> None:
        """Return when nothing of a host is left but its volume.

        Raises:
            HostsAway: it is not so in time.
        """
        try:
            async with asyncio.timeout(seconds):
                while True:
                    host = await self._backend.find(name)
                    if host is None or host.state == "kept":
                        return
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise HostsAway(f"the host {name} is being deleted, and is not gone after {seconds:.0f} s") from error

    async def _act(self, work: Awaitable[_Answer], what: str, name: str, actor: Actor, detail: str) -> _Answer:
        """Do something to a host, and keep that it was done, or tried."""
        try:
            done = await work
        except IsothermError as error:
            await self._accounts.audit.write(
                actor.name, what, name, address=actor.address, outcome=FAILED, detail=f"{detail}: {error}"
            )
            raise
        await self._accounts.audit.write(actor.name, what, name, address=actor.address, detail=detail)
        return done


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except BadField:
        return False
    return True
