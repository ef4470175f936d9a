"""Alarms in the store as the analytic ``alarms`` leaves them: its engine over readings, its rows and events written."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from agents.alarms.directory import Directory
from agents.alarms.engine import AlarmEngine
from isotherm.alarms.row import ENGINE
from isotherm.clock import now_us
from isotherm.pack import Pack
from isotherm.rules import Rule, Rules
from isotherm.settings import Settings
from isotherm.store import client, layout
from isotherm.store.events import EventLog
from isotherm.topics import partition_of

HOT = Rule(id="hot", kind="threshold", metric="temperature", above=30.0, severity="major")


@dataclass
class Alarming:
    """The analytic, as far as pages see it."""

    settings: Settings
    rules: list[Rule] = field(default_factory=lambda: [HOT])

    def __post_init__(self) -> None:
        self._engine = AlarmEngine(Directory(self.rules))

    async def keep_rules(self) -> None:
        """Put the rules into the store."""
        async with client.connected(self.settings) as redis:
            for rule in self.rules:
                await Rules(redis).add(rule)

    async def say(self, series: str, value: float, *, time: int | None = None, unit: str = "") -> None:
        """Let a device send a reading."""
        at = now_us() if time is None else time
        pack = Pack(
            names=[series],
            series=np.zeros(1, dtype=np.int32),
            time=np.array([at]),
            value=np.array([value]),
            connector="test/1",
            received_at=at,
            units={series: unit} if unit else {},
        )
        events = self._engine.run([pack]).events
        changes = self._engine.changes()
        device = series.partition("/")[0]
        async with client.connected(self.settings) as redis:
            key = layout.state_key(partition_of(device, self.settings.partitions), ENGINE)
            if changes.rows:
                async with redis.pipeline(transaction=True) as commit:
                    commit.hset(key, mapping=dict(changes.rows))
                    await commit.execute()
            for event in events:
                await EventLog(redis, self.settings.partitions).append(event)
