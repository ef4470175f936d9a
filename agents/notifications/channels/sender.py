"""What a sender is: one attempt to have the far end take a delivery."""

from __future__ import annotations

from typing import Protocol

from agents.notifications.message import Delivery


class Unreached(Exception):
    """The far end did not take it this time, and may the next.

    Attributes:
        after: How long it asks to be left alone, s; 0 when it does not.
    """

    def __init__(self, text: str, after: float = 0.0) -> None:
        super().__init__(text)
        self.after = after


class Refused(Exception):
    """The far end will never take it: trying again is of no use."""


class Sender(Protocol):
    """Sends to one channel. It is given one delivery at a time."""

    async def send(self, delivery: Delivery) -> str:
        """Send a delivery and return what the far end answered.

        It does not bound the time that it takes: whoever calls does, by cancelling it.

        Raises:
            Unreached, Refused: it was not taken; the text says what the far end answered.
        """
        ...

    async def close(self) -> None:
        """End its connections."""
        ...
