"""The way of a command: each fact goes to the log, and when Kafka has it into the table.

send          a person or a program asks for it
claim         a connector is about to give it to the device
note          what comes of it
cancel        somebody does not want it any more
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from isotherm.clock import now_us
from isotherm.commands.command import MAX_QUEUED, Command
from isotherm.commands.fact import Fact, Kind, fact_of
from isotherm.commands.table import Table
from isotherm.errors import SettingsError, Unavailable
from isotherm.kafka import Producer
from isotherm.store.client import Client

DELIVER_SECONDS = 5.0
"""How long Kafka may take to acknowledge a fact."""

log = logging.getLogger(__name__)


class Control:
    """Commands, for whoever asks for them and for connectors."""

    def __init__(self, redis: Client, partitions: int, producer: Producer) -> None:
        self.table = Table(redis, partitions)
        self._producer = producer

    async def close(self) -> None:
        """Let go of Kafka."""
        await self._producer.stop()

    async def send(self, command: Command) -> None:
        """Accept a command: it is kept, and given to the device when that is there.

        Raises:
            SettingsError: too many wait for this device.
            Unavailable: Kafka or the store does not answer; the command may be kept all the same.
        """
        waiting = await self.table.waiting(command.device)
        if waiting >= MAX_QUEUED:
            raise SettingsError(f"{waiting} commands wait for {command.device}, expected fewer than {MAX_QUEUED}")
        await self._keep(Fact(kind="queued", id=command.id, device=command.device, time=command.created, command=command))

    async def cancel(self, command: Command, by: str) -> bool:
        """Let a command end that was never given to its device; tells whether it could.

        Raises:
            Unavailable: Kafka or the store does not answer.
        """
        if not await self.table.cancel(command, by):
            return False
        await self._keep(fact_of(command, "cancelled", now_us(), error=f"cancelled by {by}"))
        return True

    async def claim(self, device: str, via: str) -> Command | None:
        """Take up the first command that waits for a device; None when none does.

        It must be given to the device at once, and noted whether it was.

        Raises:
            Unavailable: Kafka or the store does not answer; nothing is taken up.
        """
        command = await self.table.claim(device, via)
        if command is None:
            return None
        try:
            await self._keep(fact_of(command, "claimed", now_us(), via=via))
        except Unavailable:
            await self.table.note(fact_of(command, "returned", now_us(), via=via))
            raise
        return command

    async def note(self, command: Command, kind: Kind, **fields: Any) -> None:
        """Say what has come of a command.

        Raises:
            Unavailable: Kafka does not answer.
        """
        await self._keep(fact_of(command, kind, now_us(), **fields))

    async def _keep(self, fact: Fact) -> None:
        try:
            async with asyncio.timeout(DELIVER_SECONDS):
                await self._producer.start()
                await self._producer.deliver(fact.topic, fact.to_json(), key=fact.device)
        except TimeoutError:
            raise Unavailable(f"Kafka has not taken the command within {DELIVER_SECONDS:g} s") from None
        try:
            await self.table.note(fact)
        except Unavailable as error:  # whoever follows the log enters it when the store is back
            log.warning("%s; what has come of command %s is in the log", error, fact.id)
