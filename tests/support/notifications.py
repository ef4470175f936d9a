"""A process of notifications without Kafka and a store: logs, rows and a clock that tests set, and a crash wherever one is
asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from random import Random

from agents.notifications.channels.sender import Sender
from agents.notifications.courier import Courier
from agents.notifications.message import Delivery
from agents.notifications.router import Router
from isotherm.channels import Channel, Webhook
from isotherm.events import Event, Severity
from isotherm.limits import SECOND

BEGIN = 1_790_000_000 * SECOND
NOWHERE = Webhook(url="http://127.0.0.1:1/")


class Crash(Exception):
    """The process dies here."""


def event(
    number: int,
    kind: str = "raised",
    *,
    device: str = "room-1",
    severity: Severity = "major",
    time: int = BEGIN,
    alarm: str | None = None,
    source: str = "alarms/0/1",
    rule: str = "hot",
    message: str = "",
) -> Event:
    """Return an event of an alarm."""
    alarm = f"{device}/temperature#hot" if alarm is None else alarm
    message = message or f"{device}/temperature above 30 °C"
    return Event(
        kind=f"alarm.{kind}",
        device=device,
        time=time,
        severity=severity,
        alarm=alarm,
        since=BEGIN,
        rule=rule,
        message=message,
        source=source,
        number=number,
    )


class FarEnd:
    """A sender that remembers what it took; ``answer`` may raise instead."""

    def __init__(self, answer: Callable[[Delivery], None] = lambda _: None) -> None:
        self.answer = answer
        self.taken: list[Delivery] = []
        self.attempts: list[Delivery] = []
        self.closed = 0

    async def send(self, delivery: Delivery) -> str:
        self.attempts.append(delivery)
        self.answer(delivery)
        self.taken.append(delivery)
        return "taken"

    async def close(self) -> None:
        self.closed += 1

    def told(self) -> Counter[tuple[str, str]]:
        """Return how often what was told of which subject; a delivery that came again, by its id, counts once."""
        return count({one.id: one for one in self.taken}.values())


def count(deliveries: Iterable[Delivery]) -> Counter[tuple[str, str]]:
    """Return how often deliveries tell what of which subject."""
    found: Counter[tuple[str, str]] = Counter()
    for delivery in deliveries:
        for message in delivery.messages:
            for kind, number in message.counts.items():
                found[message.subject, kind] += number
    return found


class World:
    """Logs of events, rows that survive, and a process that may die and start again."""

    def __init__(self, channels: Sequence[Channel], senders: Callable[[Channel], Sender], partitions: int = 1) -> None:
        self.now = BEGIN
        self.channels = channels
        self.senders = senders
        self.shelved: set[str] = set()
        self.logs: list[list[Event]] = [[] for _ in range(partitions)]
        self.rows: list[dict[str, bytes]] = [{} for _ in range(partitions)]
        self.offsets = [0] * partitions
        self._saved = asyncio.Event()
        self.dies: Callable[[str], bool] = lambda _: False
        self.start()

    def start(self) -> None:
        """Start the process from what was stored."""
        self.courier = Courier(self.save, clock=lambda: self.now, senders=self.senders, dice=Random(0), send_seconds=5.0)
        self.courier.refresh(self.channels, self.shelved)
        self.routers = [Router() for _ in self.logs]
        self.positions = list(self.offsets)
        for partition, router in enumerate(self.routers):
            router.load(self.rows[partition])
            self.courier.attach(partition, router)

    async def save(self, partition: int) -> None:
        """Store a router's changes with its offset, or die before or after."""
        changes = self.routers[partition].changes()
        if self.dies("before"):
            raise Crash
        self.rows[partition].update(changes.rows)
        for key in changes.gone:
            self.rows[partition].pop(key, None)
        self.offsets[partition] = self.positions[partition]
        self._saved.set()
        if self.dies("after"):
            raise Crash

    def read(self) -> None:
        """Give the routers what the logs have."""
        for partition, log in enumerate(self.logs):
            self.routers[partition].take(log[self.positions[partition] :], self.now)
            self.positions[partition] = len(log)

    async def step(self) -> None:
        """Read, send what is due, and wait for it."""
        self.read()
        await self.courier.step()
        await self.courier.idle()
        await self.courier.step()
        await self.courier.idle()

    async def tell(self, *events: Event, after: float = 0.0) -> None:
        """Let time pass, and events come to the first partition."""
        self.now += int(after * SECOND)
        self.logs[0].extend(events)
        await self.step()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that comes about before something is stored."""
        while not holds():
            self._saved.clear()
            await self._saved.wait()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is stored that has still to be told."""
        return not any(key.startswith(("message:", "delivery:")) for rows in self.rows for key in rows)
