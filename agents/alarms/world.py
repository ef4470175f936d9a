"""What the engines of alarms are told, as the registry has it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from agents.alarms.directory import Directory
from agents.alarms.engine import AlarmEngine
from isotherm.logs import Throttle
from isotherm.registry import Device, Registry
from isotherm.rules import Rule, Rules
from isotherm.settings import Settings
from isotherm.store.client import Client
from isotherm.store.reader import Reader

log = logging.getLogger(__name__)


class RulesAndDevices:
    """Follows rules and devices."""

    def __init__(self, settings: Settings, redis: Client) -> None:
        self._settings = settings
        self._registry = Registry(redis)
        self._rules_store = Rules(redis)
        self._reader = Reader(redis, settings.partitions)
        self._seen: tuple[int, int, int] | None = None
        self._rules: Sequence[Rule] = ()
        self._devices: Sequence[Device] = ()
        self._units: dict[str, str] = {}
        self._throttle = Throttle()

    async def look(self) -> bool:
        """Look whether rules or devices have changed."""
        seen = (await self._rules_store.version(), await self._registry.version(), await self._registry.count())
        if seen == self._seen:
            return False
        self._rules, problems = await self._rules_store.usable()
        for problem in problems:
            if self._throttle(problem) is not None:
                log.error("%s", problem)
        self._devices = await self._registry.all()
        self._units = await self._reader.units()
        self._seen = seen
        return True

    def tell(self, partition: int, engine: AlarmEngine) -> None:
        """Tell an engine of those of its partition."""
        engine.refresh(Directory.of_partition(partition, self._settings.partitions, self._rules, self._devices, self._units))
