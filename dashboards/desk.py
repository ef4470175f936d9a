"""What visitors do to alarms, rules and devices: who may, what comes of it, and that it is recorded and told.

Every method raises NotAllowed for who may not, SettingsError for what cannot be done, and Unavailable while the store does
not answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from dashboards.alarms import AlarmSource
from dashboards.preview import Previews
from dashboards.rules import WrongFields, rule_of
from dashboards.visitor import NotAllowed, Visitor
from isotherm.accounts.audit import Audit
from isotherm.accounts.role import Role
from isotherm.alarms import Alarms
from isotherm.alarms.delivery import deliver
from isotherm.clock import now_us
from isotherm.commands import Command, Control
from isotherm.configuration import Configuration, Rollout, Rollouts
from isotherm.configuration.rollout import Targets
from isotherm.errors import Changed, IsothermError, SettingsError, Unavailable
from isotherm.events import Event
from isotherm.firmware import Image
from isotherm.kafka import Producer
from isotherm.registry import Registry
from isotherm.rules import Rule, Rules
from isotherm.rules.targets import unknown
from isotherm.settings import Settings
from isotherm.store.client import Client
from isotherm.store.events import EventLog
from isotherm.store.reader import Reader

MAX_DELIVERIES = 100
"""Things done whose events wait for Kafka; beyond, no more is done until it answers."""

log = logging.getLogger(__name__)


class Unmatched(WrongFields):
    """Nothing that is stored matches a rule; it may be meant for what is yet to come."""


class Desk:
    """Where all sessions of this process do it."""

    def __init__(self, redis: Client, settings: Settings, reader: Reader, source: AlarmSource) -> None:
        self._settings = settings
        self._reader = reader
        self._source = source
        self._alarms = Alarms(redis, settings.partitions)
        self._events = EventLog(redis, settings.partitions)
        self._rollouts = Rollouts(redis, settings.partitions)
        self._rules = Rules(redis)
        self._registry = Registry(redis)
        self._audit = Audit(redis)
        self._previews = Previews(settings)
        self._control = Control(redis, settings.partitions, Producer(settings, "isotherm-web"))
        self._deliveries: set[asyncio.Task[None]] = set()
        self._delivering = asyncio.Lock()

    async def acknowledge(self, visitor: Visitor, seen: Sequence[tuple[str, int]], note: str) -> str:
        """Say that a visitor has seen occurrences, each a key and when it was raised; returns what became of them.

        Raises:
            SettingsError: none of them could be acknowledged.
        """
        events: list[Event] = []
        problems: list[str] = []
        for key, since in seen:
            async with self._deed(visitor, "acknowledge alarm", key):
                try:
                    events.append(await self._alarms.acknowledge(key, since, visitor.name, note))
                except SettingsError as error:
                    problems.append(str(error))
        await self._tell(events)
        if not events:
            raise SettingsError("; ".join(problems[:3]) or "no alarm was named")
        said = f"{len(events)} alarms acknowledged" if len(events) > 1 else f"{events[0].alarm} acknowledged"
        return said + (f"; {len(problems)} not: {problems[0]}" if problems else "")

    async def shelve(self, visitor: Visitor, key: str, seconds: int) -> str:
        """Not hear of an alarm, or of all alarms of a rule, for a while."""
        async with self._deed(visitor, "shelve alarm", key):
            event = await self._alarms.shelve(key, now_us() + seconds * 1_000_000, visitor.name)
        await self._tell([event])
        return f"{key} is shelved"

    async def unshelve(self, visitor: Visitor, key: str) -> str:
        """Hear of it again."""
        async with self._deed(visitor, "unshelve alarm", key):
            event = await self._alarms.unshelve(key, visitor.name)
        await self._tell([event])
        return f"{key} is heard of again"

    async def save(self, visitor: Visitor, form: Mapping[str, Any], *, base: str, anyway: bool) -> str:
        """Keep a rule.

        Args:
            visitor: Who does it.
            form: What they typed.
            base: The rule as it was when they began to change it; empty for a new one.
            anyway: Also when nothing that is stored matches it.

        Raises:
            WrongFields: it is no rule.
            Unmatched: nothing that is stored matches it.
        """
        async with self._deed(visitor, "change rule" if base else "add rule", str(form.get("id", ""))[:100]):
            rule = rule_of(form)
            if not anyway and (why := await self._unmatched(rule)):
                raise Unmatched({"devices": why})
            if not base:
                await self._add(rule)
            else:
                before = await self._rules.get(rule.id)
                try:
                    if before.to_json() != base.encode():
                        raise Changed(rule.id)
                    await self._rules.replace(rule, seen=before)
                except Changed as error:
                    said = f"somebody has changed {rule.id} meanwhile; close this, and look at it again"
                    raise SettingsError(said) from error
        self._source.hurry()
        return f"rule {rule.id} is kept"

    async def keep(self, visitor: Visitor, rule: Rule, *, is_new: bool, seen: Rule | None = None) -> None:
        """Keep a rule that a program has made, in the place of the one with its id unless it is new; see `Rules.replace`."""
        async with self._deed(visitor, "add rule" if is_new else "change rule", rule.id):
            await (self._rules.add(rule) if is_new else self._rules.replace(rule, seen=seen))
        self._source.hurry()

    async def enable(self, visitor: Visitor, id: str, enabled: bool) -> str:
        """Have a rule evaluated, or not."""
        async with self._deed(visitor, "enable rule" if enabled else "disable rule", id):
            await self._rules.enable(id, enabled)
        self._source.hurry()
        return f"rule {id} is evaluated" if enabled else f"rule {id} is not evaluated any more; its alarms are cleared"

    async def remove(self, visitor: Visitor, id: str, *, seen: Rule | None = None) -> str:
        """Forget a rule; see `Rules.remove`."""
        async with self._deed(visitor, "remove rule", id):
            await self._rules.remove(id, seen=seen)
        self._source.hurry()
        return f"rule {id} is removed; its alarms are cleared"

    async def send(self, visitor: Visitor, command: Command) -> None:
        """Have a device do something."""
        async with self._deed(visitor, "send command", f"{command.device} {command.name}"):
            await self._control.send(command)

    async def cancel(self, visitor: Visitor, command: Command) -> bool:
        """Let a command end that was never given to its device; tells whether it could."""
        async with self._deed(visitor, "cancel command", f"{command.device} {command.name}"):
            return await self._control.cancel(command, visitor.name)

    async def configure(
        self, visitor: Visitor, device: str, values: Mapping[str, Any], version: int | None = None
    ) -> Configuration:
        """Change what a device should have; only from a version on, if one is given."""
        async with self._deed(visitor, "configure", device):
            return await self._rollouts.configurations.change(device, values, visitor.name, version=version)

    async def push(self, visitor: Visitor, device: str) -> Configuration:
        """Give a device what it should have once more."""
        async with self._deed(visitor, "push configuration", device):
            return await self._rollouts.configurations.push(device, visitor.name)

    async def roll_out(
        self, visitor: Visitor, targets: Targets, values: Mapping[str, Any], image: Image | None = None, **options: Any
    ) -> Rollout:
        """Begin to change what many devices should have; see `Rollouts.begin`."""
        async with self._deed(visitor, "update firmware" if image else "roll out configuration", str(targets)[:200]):
            return await self._rollouts.begin(targets, values, visitor.name, image=image, **options)

    async def steer(self, visitor: Visitor, rollout: Rollout, action: Literal["halt", "resume", "retry"]) -> None:
        """Hold a rollout, have it go on, or give it again to who failed."""
        async with self._deed(visitor, f"{action} rollout", rollout.id):
            match action:
                case "halt":
                    await self._rollouts.halt(rollout.id, f"halted by {visitor.name}")
                case "resume":
                    await self._rollouts.resume(rollout.id)
                case "retry":
                    await self._rollouts.retry(rollout.id)

    async def roll_back(self, visitor: Visitor, rollout: Rollout, *, id: str = "") -> Rollout:
        """Begin to make desired what was so before a rollout; see `Rollouts.roll_back`."""
        async with self._deed(visitor, "roll back", rollout.id):
            return await self._rollouts.roll_back(rollout, visitor.name, id=id)

    async def preview(self, visitor: Visitor, form: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a rule would have done; see `Previews`."""
        visitor.must(Role.OPERATOR, "try rules")
        return await self._previews.preview(rule_of({**form, "id": form.get("id") or "trial"}))

    async def end(self) -> None:
        """Let go of what waits for Kafka: it is done, and in the store."""
        for task in self._deliveries:
            task.cancel()
        await asyncio.gather(*self._deliveries, return_exceptions=True)
        await self._control.close()

    @asynccontextmanager
    async def _deed(self, visitor: Visitor, action: str, subject: str) -> AsyncIterator[None]:
        """See that a visitor may do something, and record whether it was done."""
        try:
            visitor.must(Role.OPERATOR, "change alarms and rules, configure devices, or send commands")
            if len(self._deliveries) >= MAX_DELIVERIES:
                raise Unavailable("Kafka does not take events; try again when it does")
            yield
        except IsothermError as error:
            if isinstance(error, NotAllowed):
                said = str(error)
                await self._audit.refuse(visitor.name, action, subject, address=visitor.address, detail=said, is_shown=True)
            raise
        await self._audit.write(visitor.name, action, subject, address=visitor.address)

    async def _unmatched(self, rule: Rule) -> str:
        registered = {device.name: device for device in await self._registry.all()}
        return unknown(rule, await self._reader.series(), registered)

    async def _add(self, rule: Rule) -> None:
        try:
            await self._rules.add(rule)
        except SettingsError as error:
            if "already" in str(error):
                raise WrongFields({"id": f"there is a rule {rule.id} already; choose another id"}) from error
            raise

    async def _tell(self, events: Sequence[Event]) -> None:
        """Let everybody know: sessions through the store, notifications through Kafka, which may take a while."""
        for event in events:
            await self._events.append(event)
        self._source.hurry()
        if events:
            task = asyncio.create_task(self._deliver(events), name="deliver-events")
            self._deliveries.add(task)
            task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, events: Sequence[Event]) -> None:
        async with self._delivering:
            try:
                await deliver(self._settings, events)
            except Unavailable as error:
                log.warning("%d events of people: %s", len(events), error)
