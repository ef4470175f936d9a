"""Keeps the table of commands in step with their log, and does what time brings about: expiry, claims that lapse, and the
next wave of a rollout of configuration, and devices that come to one.

Who writes a fact to the log enters it into the table as well; so most of what is read here is known. What is not is what a
server that was started anew has lost, or what could not be entered because it was away. Every worker does this, and facts
may be noted as often as one likes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import msgspec

from agents.shard import until_available
from isotherm import kafka
from isotherm.commands.fact import Fact
from isotherm.commands.table import Table
from isotherm.configuration import Newcomers, Rollouts
from isotherm.errors import Unavailable
from isotherm.kafka import Reader, Record
from isotherm.logs import Throttle
from isotherm.settings import Settings
from isotherm.store.client import Client
from isotherm.topics import COMMANDS, REPLIES, Topic

SWEEP_SECONDS = 1.0
"""How late an expiry may be told."""

log = logging.getLogger(__name__)

_AWAY = (Unavailable, *kafka.AWAY)


class _Behind(Exception):
    """The store lacks what is in the log."""


async def keep_commands(settings: Settings, redis: Client) -> None:
    """Do it for ever."""
    follower = Follower(
        settings,
        Table(redis, settings.partitions),
        Rollouts(redis, settings.partitions),
        Newcomers(redis, settings.partitions),
    )
    throttle = Throttle()
    while True:
        try:
            await follower.run()
        except* _Behind:
            log.info("the store was started anew: reading the log of commands again")
        except* _AWAY as group:
            if throttle("away") is not None:
                log.warning("commands: %r; trying again", group.exceptions[0])
            await asyncio.sleep(SWEEP_SECONDS)


class Follower:
    """Reads the log of commands from its begin on, and then what comes."""

    def __init__(self, settings: Settings, table: Table, rollouts: Rollouts, newcomers: Newcomers) -> None:
        self._settings = settings
        self._rollouts = rollouts
        self._newcomers = newcomers
        self._table = table

    async def run(self) -> None:
        """Follow until the store lacks what is in the log, or a server is away."""
        runs = await self._sweep({})
        ends: dict[Topic, dict[int, int]] = {}
        async with Reader(self._settings) as commands, Reader(self._settings) as replies:
            for topic, reader in ((COMMANDS, commands), (REPLIES, replies)):
                ends[topic] = {partition: start for partition, (start, _) in (await reader.ends(topic)).items()}
                async for record in reader.follow(topic, begin=ends[topic], stop=True):
                    await self._note(record)
                    ends[topic][record.partition] = record.offset + 1
            await self._sweep(runs)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(commands, COMMANDS, ends[COMMANDS]), name="follow-commands")
                group.create_task(self._follow(replies, REPLIES, ends[REPLIES]), name="follow-replies")
                group.create_task(self._keep_sweeping(), name="sweep-commands")

    async def _follow(self, reader: Reader, topic: Topic, begin: Mapping[int, int]) -> None:
        async for record in reader.follow(topic, begin=begin):
            await self._note(record)

    async def _note(self, record: Record) -> None:
        try:
            fact = Fact.from_json(record.value)
        except msgspec.DecodeError as error:
            log.error("the record at %s/%d/%d is no fact: %s", record.topic, record.partition, record.offset, error)
            return
        await until_available(lambda: self._table.note(fact))

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for partition in range(self._settings.partitions):
                if not (await self._table.sweep(partition)).is_whole:
                    raise _Behind
            await self._newcomers.welcome()
            await self._rollouts.advance_all()

    async def _sweep(self, read_under: Mapping[int, str]) -> dict[int, str]:
        """Return partition → the server's run; those that were read under a run are said to be whole."""
        partitions = range(self._settings.partitions)
        return {one: (await self._table.sweep(one, read_under=read_under.get(one, ""))).run for one in partitions}
