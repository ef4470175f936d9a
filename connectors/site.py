"""What a connector stands on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from connectors.answers import Answer, error
from connectors.decoders import Decoders
from connectors.dispatch import Dispatcher, not_kept
from connectors.formats.catalogue import Catalogue
from connectors.formats.decoded import Decoded
from connectors.identity import Doorkeeper, Identity
from connectors.intake import Intake
from isotherm.errors import InvalidReading, Unavailable
from isotherm.firmware import Firmware
from isotherm.limits import MAX_REJECT_RAW_BYTES
from isotherm.rejects import Rejected
from isotherm.settings import Settings


@dataclass(frozen=True, slots=True)
class Site:
    """What a connector is given.

    Attributes:
        settings: All of them.
        intake: Takes in what was decoded.
        doorkeeper: Tells who a peer is.
        catalogue: The decoders.
        dispatcher: Brings commands to devices, and takes what they say of them.
        firmware: What devices may load.
        decoders: Which of them are the user's own, and for what.
    """

    settings: Settings
    intake: Intake
    doorkeeper: Doorkeeper
    catalogue: Catalogue
    dispatcher: Dispatcher
    firmware: Firmware
    decoders: Decoders = field(default_factory=Decoders)

    async def refuse(self, refused: InvalidReading, data: bytes, *, peer: str, identity: Identity) -> Answer:
        """Keep a reply that was refused as a reject; returns what its sender is told: it is none of their readings."""
        rejected = Rejected(refused.reason, refused.detail, data[:MAX_REJECT_RAW_BYTES], identity.device, size=len(data))
        try:
            await self.intake.store([Decoded.nothing(rejected)], peer=peer, identity=identity)
        except Unavailable as away:
            return not_kept(away)
        return error(refused.reason, refused.detail)


Listening = Callable[[Site], AbstractAsyncContextManager[str]]
"""A connector: listens for the length of the block and yields where; at its end, what was received is answered."""
