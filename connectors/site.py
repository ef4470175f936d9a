"""What a connector stands on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from connectors.decoders import Decoders
from connectors.dispatch import Dispatcher
from connectors.formats.catalogue import Catalogue
from connectors.identity import Doorkeeper
from connectors.intake import Intake
from isotherm.firmware import Firmware
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


Listening = Callable[[Site], AbstractAsyncContextManager[str]]
"""A connector: listens for the length of the block and yields where; at its end, what was received is answered."""
