"""Receipts: what became of an input, and when Kafka has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from isotherm.rejects import Rejected

MAX_TOLD = 20
"""Refusals that a sender is told one by one; the others are counted."""


class Receipt:
    """What became of one input, which may be taken in piece by piece.

    Attributes:
        accepted: Readings and attributes that go to the topic.
        skewed: How many of them have a time ahead of the server's clock.
        rejected: What was refused.
        refusals: The first of it.
    """

    __slots__ = ("_pending", "_then", "accepted", "refusals", "rejected", "skewed")

    def __init__(self) -> None:
        self.accepted = 0
        self.skewed = 0
        self.rejected = 0
        self.refusals: list[Rejected] = []
        self._pending = 0
        self._then: Callable[[], None] | None = None

    @property
    def is_durable(self) -> bool:
        """Whether Kafka has acknowledged everything that was taken in, rejects included."""
        return not self._pending

    def when_settled(self, then: Callable[[], None]) -> None:
        """Have a function called each time the last open part is acknowledged; not when nothing is open now."""
        self._then = then

    async def durable(self) -> None:
        """Return when Kafka has acknowledged everything.

        A caller that stops waiting knows nothing: what was taken in is still delivered when Kafka returns.
        """
        if self._pending:
            done = asyncio.Event()
            self._then = done.set
            await done.wait()

    def refuse(self, rejected: Iterable[Rejected]) -> None:
        """Note what was refused."""
        for one in rejected:
            self.rejected += 1
            if len(self.refusals) < MAX_TOLD:
                self.refusals.append(one)

    def expect(self) -> None:
        """Another part of the input is on its way."""
        self._pending += 1

    def settle(self) -> None:
        """A part of the input is acknowledged."""
        self._pending -= 1
        if not self._pending and self._then is not None:
            self._then()
