"""Who a peer is, and for which devices it may speak.

With ISOTHERM_AUTH=open everybody may speak for every device; that is refused on any address but loopback. With ``token`` a
peer shows a device's token, or a client certificate in whose subject alternative name (RFC 5280 §4.2.1.6) the device stands.
It may then speak for that device and, if it is a gateway, for the gateway's children.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from isotherm.errors import Unauthorized, Unavailable
from isotherm.names import is_device_name
from isotherm.registry import Device, Registry, hash_of
from isotherm.settings import Settings

HELLO_SECONDS = 10.0
"""How long a peer that must show a token may take to do so."""

RECHECK_SECONDS = 60.0
"""How often an open connection's identity is asked for anew: a revoked token works on it for so long."""

KNOWN_SECONDS = 10.0
"""How long an answer of the registry is used again: a revoked token works for so long."""

MAX_KNOWN = 100_000
"""Answers that are remembered; beyond that they are asked for anew."""


@dataclass(frozen=True, slots=True)
class Identity:
    """For whom a peer may speak.

    Attributes:
        device: Whose metrics bare names are, or None.
        others: The further devices whose readings it may send; None for any.
    """

    device: str | None = None
    others: frozenset[str] | None = None

    def may_name(self, device: str) -> bool:
        """Tell whether it may send readings of ``device``."""
        return self.others is None or device == self.device or device in self.others


ANYONE = Identity()


class _Known(NamedTuple):
    """What the registry said of a device."""

    identity: Identity
    type: str
    gateway: str
    children: frozenset[str]


def only(device: str) -> Identity:
    """Return the identity of a channel that belongs to one device, such as an MQTT topic."""
    return Identity(device, frozenset())


class Doorkeeper:
    """Tells who a peer is."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._registry = registry
        self.is_open = settings.auth == "open"
        self._known: dict[str, tuple[float, _Known | None]] = {}

    async def identify(
        self, *, device: str | None = None, token: str | None = None, certified: str | None = None
    ) -> Identity:
        """Return who a peer is.

        Args:
            device: Who it says it is, if it does.
            token: What it shows.
            certified: The device that its client certificate names.

        Raises:
            Unauthorized: it did not show that it is anybody, or is another than it says.
            Unavailable: the registry does not answer.
        """
        if device is not None and not is_device_name(device):
            raise Unauthorized(f"{device[:80]!r} is no device name")
        if self.is_open and certified is None:
            return Identity(device)
        if certified is not None:
            known = await self._ask("device", certified, self._registry.get)
            found = known.identity if known is not None else only(certified)
        elif token:
            known = await self._ask("token", token, self._registry.by_token)
            if known is None:
                raise Unauthorized("the token is not, or is no longer, that of a device")
            found = known.identity
        else:
            raise Unauthorized("a token is needed: `isotherm devices token NAME` makes one")
        if device is None or device == found.device:
            return found
        if not found.may_name(device):
            raise Unauthorized(f"the peer says it is {device!r} and shows that it is {found.device!r}")
        return Identity(device, found.others)

    def known(self, token: str | None) -> Identity | None:
        """Return who a peer is that shows a token, if that needs no asking, else None.

        For connectors that cannot wait with each message.
        """
        if self.is_open:
            return ANYONE
        asked, found = self._known.get(_key("token", token or ""), (-KNOWN_SECONDS, None))
        return found.identity if found is not None and time.monotonic() - asked < KNOWN_SECONDS else None

    async def type_of(self, device: str) -> str:
        """Return what kind of device one is, as the registry says; empty when it says nothing.

        Raises:
            Unavailable: the registry does not answer.
        """
        found = await self._ask("device", device, self._registry.get)
        return "" if found is None else found.type

    async def gateway_of(self, device: str) -> str:
        """Return the gateway that speaks for a device, or empty.

        Raises:
            Unavailable: the registry does not answer.
        """
        found = await self._ask("device", device, self._registry.get)
        return "" if found is None else found.gateway

    async def children_of(self, device: str) -> frozenset[str]:
        """Return the devices that a gateway speaks for.

        Raises:
            Unavailable: the registry does not answer.
        """
        found = await self._ask("device", device, self._registry.get)
        return frozenset() if found is None else found.children

    async def _ask(self, kind: str, what: str, ask: Callable[[str], Awaitable[Device | None]]) -> _Known | None:
        key = _key(kind, what)
        now = time.monotonic()
        asked, found = self._known.get(key, (-KNOWN_SECONDS, None))
        if now - asked < KNOWN_SECONDS:
            return found
        try:
            device = await ask(what)
        except Unavailable:
            if found is None:
                raise
            return found  # who was known before the store went away still is
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        answer = None
        if device is not None:
            identity = Identity(device.name, device.children | {device.name})
            answer = _Known(identity, device.type, device.gateway, device.children)
        self._known[key] = now, answer
        return answer


def _key(kind: str, what: str) -> str:
    return f"{kind}:{hash_of(what)}"
