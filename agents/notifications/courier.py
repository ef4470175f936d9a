"""The courier: brings what the routers of a process have due to the far ends, and the outcome back. One a process.

A channel has one task at a time, so none waits for another, and what it is told is told in order. While a delivery of a
channel
fails, nothing else is put together for it: what comes meanwhile gathers in the queues, and leaves together when the far end
    is back. Each delivery is stored before it is sent, and its outcome after.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import NamedTuple

from prometheus_client import Counter, Gauge

from agents.notifications.channels import sender_of
from agents.notifications.channels.sender import Refused, Sender, Unreached
from agents.notifications.message import Delivery, Message, delivery_id
from agents.notifications.pace import groups
from agents.notifications.quiet import gets_through, quiet_until
from agents.notifications.router import Bound, Router
from isotherm.channels import Channel
from isotherm.clock import now_us
from isotherm.errors import IsothermError
from isotherm.limits import DAY, MINUTE, SECOND
from isotherm.process import end

STEP_SECONDS = 1.0
SEND_SECONDS = 60.0
"""How long one attempt may take."""

MAX_SENDING = 64
"""Attempts at the same time."""

FIRST_RETRY = 5 * SECOND
LAST_RETRY = 10 * MINUTE
"""How long after a failure it is tried again: at first, and at most, µs; twice as long each time."""

JITTER = 0.25
"""By what part of itself such a time is changed at random, so that channels with one far end do not come together."""

GIVE_UP = 1 * DAY
"""How long a delivery is tried, µs."""

SETTLE = 15 * SECOND
"""How long a delivery awaits the partitions that have part in it after this process was given one, µs."""

STOP_SECONDS = 3.0
"""How long what is on its way may take to arrive when the process ends."""

log = logging.getLogger(__name__)

_sent = Counter("isotherm_notifications_sent", "Deliveries that the far end has taken", ["channel"])
_failed = Counter("isotherm_notifications_failed", "Attempts that failed", ["channel"])
_given_up = Counter("isotherm_notifications_given_up", "Deliveries that were given up", ["channel"])
_queued = Gauge("isotherm_notifications_due", "Messages that await their turn", ["channel"])

Save = Callable[[int], Awaitable[None]]
"""Stores a router's `changes` with the offset after the last event that it was given; returns when the store has them."""


class _Waiting(NamedTuple):
    """A delivery that was put together, of all partitions that are here.

    Attributes:
        bound: As one of them has it, with the latest time of all for a further attempt.
        messages: Those that are here, in their order.
        partitions: Where they are.
    """

    bound: Bound
    messages: Sequence[Message]
    partitions: Sequence[int]

    @property
    def is_whole(self) -> bool:
        """Whether all of its partitions are here."""
        return len(self.messages) == self.bound.size


class Courier:
    """Sends what the attached routers have due; it and they belong to one event loop.

    Per partition the framework calls `attach` with a loaded router, gives that router events and calls `wake`, and `detach`
    when the partition goes elsewhere. `run` does the rest.
    """

    def __init__(
        self,
        save: Save,
        *,
        clock: Callable[[], int] = now_us,
        senders: Callable[[Channel], Sender] = sender_of,
        dice: Random | None = None,
        send_seconds: float = SEND_SECONDS,
    ) -> None:
        """Prepare.

        Args:
            save: After an IsothermError of it what needed it waits, and it is called again; any other error ends `run`.
            clock: µs since the epoch UTC.
            senders: Makes what sends to a channel.
            dice: For the jitter.
            send_seconds: How long one attempt may take.
        """
        self._save = save
        self._clock = clock
        self._make = senders
        self._dice = dice or Random()
        self._send_seconds = send_seconds
        self._routers: dict[int, Router] = {}
        self._channels: dict[str, Channel] | None = None
        self._shelved: Collection[str] = ()
        self._senders: dict[str, Sender] = {}
        self._retired: list[tuple[str, Sender]] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(MAX_SENDING)
        self._written: dict[int, int] = {}  # partition → how often the courier has changed its router
        self._stored: dict[int, int] = {}  # how many of those the store has
        self._settles_at = 0
        self._wake = asyncio.Event()

    def attach(self, partition: int, router: Router) -> None:
        """Take in a router that was loaded, in the place of one of the same partition.

        Raises:
            RuntimeError: `refresh` has not said yet which channels there are: what is queued would be dropped.
        """
        if self._channels is None:
            raise RuntimeError(
                "a courier was given a router before it was told which channels there are: call refresh() first"
            )
        router.refresh(self._channels.values(), self._shelved)
        self._routers[partition] = router
        self._written[partition] = self._stored[partition] = 0
        self._settles_at = self._clock() + SETTLE
        self.wake()

    def detach(self, partition: int) -> None:
        """Let a router go; what is on its way is not recorded, and is sent again under its id where the partition is now."""
        self._routers.pop(partition, None)

    def refresh(self, channels: Iterable[Channel], shelved: Collection[str] = ()) -> None:
        """Take in which channels there are and which alarms are shelved, as keys, for all routers.

        Call it before the first `attach`, and whenever one of both has changed.
        """
        new = {one.id: one for one in channels}
        for name in [name for name in self._senders if new.get(name) != (self._channels or {}).get(name)]:
            self._retired.append((name, self._senders.pop(name)))
        self._channels, self._shelved = new, shelved
        for router in self._routers.values():
            router.refresh(new.values(), shelved)
        self.wake()

    def wake(self) -> None:
        """Look at once for what is due."""
        self._wake.set()

    async def run(self) -> None:
        """Send until this is cancelled."""
        try:
            while True:
                self._wake.clear()
                await self.step()
                with suppress(TimeoutError):
                    async with asyncio.timeout(STEP_SECONDS):
                        await self._wake.wait()
        finally:
            await self.close()

    async def step(self) -> None:
        """Begin to send what is due now; `idle` waits for it."""
        for name in [name for name, task in self._tasks.items() if task.done()]:
            self._tasks.pop(name).result()
        for name, sender in [one for one in self._retired if one[0] not in self._tasks]:
            self._retired.remove((name, sender))
            await sender.close()
        now = self._clock()
        self._conclude(now)
        waiting = self._waiting()
        due = self._due(now)
        for channel in (self._channels or {}).values():
            messages = due.get(channel.id, {})
            _queued.labels(channel.id).set(len(messages))
            if channel.id in self._tasks:
                continue
            ready = _not_hushed(channel, waiting.get(channel.id, ()), now)
            if messages and not ready:
                self._put_together(channel, messages, now)
                ready = _not_hushed(channel, self._waiting(channel.id).get(channel.id, ()), now)
            if ready and _may_go(ready[0], now):
                self._tasks[channel.id] = asyncio.create_task(self._serve(channel), name=f"notify {channel.id}")

    async def idle(self) -> None:
        """Wait until nothing is on its way; errors are raised by the next `step`."""
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    async def close(self) -> None:
        """Let what is on its way arrive, for a while, and end every connection."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=STOP_SECONDS)
        await end(self._tasks.values(), STOP_SECONDS)
        self._tasks.clear()
        for sender in [*self._senders.values(), *(one for _, one in self._retired)]:
            await sender.close()
        self._senders.clear()
        self._retired.clear()

    def _due(self, now: int) -> dict[str, dict[str, tuple[int, Message]]]:
        """Return the messages that are due: channel → id → partition and message, in their order."""
        found = [(partition, one) for partition, router in self._routers.items() for one in router.due(now)]
        by_channel: dict[str, dict[str, tuple[int, Message]]] = {}
        for partition, one in sorted(found, key=lambda item: (item[1].at, item[1].order)):
            by_channel.setdefault(one.channel, {})[one.id] = partition, one
        return by_channel

    def _waiting(self, only: str = "") -> dict[str, list[_Waiting]]:
        """Return what was put together, by channel, the oldest first."""
        parts: dict[str, list[tuple[int, Bound, Sequence[Message]]]] = {}
        for partition, router in self._routers.items():
            for bound, messages in router.deliveries():
                if not only or bound.channel == only:
                    parts.setdefault(bound.id, []).append((partition, bound, messages))
        found: dict[str, list[_Waiting]] = {}
        for several in parts.values():
            latest = max((bound for _, bound, _ in several), key=lambda bound: (bound.attempts, bound.retry_at))
            messages = sorted((one for _, _, some in several for one in some), key=lambda one: (one.at, one.order))
            found.setdefault(latest.channel, []).append(_Waiting(latest, messages, [one[0] for one in several]))
        for all_of_one in found.values():
            all_of_one.sort(key=lambda one: (one.bound.at, one.messages[0].at, one.messages[0].order))
        return found

    def _put_together(self, channel: Channel, due: Mapping[str, tuple[int, Message]], now: int) -> None:
        """Make deliveries of what may leave now."""
        left = {name: time for router in self._routers.values() for name, time in router.left(channel.id).items()}
        for group in groups(channel, [message for _, message in due.values()], left.values(), now):
            by_partition: dict[int, list[Message]] = {}
            for one in group:
                by_partition.setdefault(due[one.id][0], []).append(one)
            for partition, messages in by_partition.items():
                self._routers[partition].bind(delivery_id(group), messages, len(group), now)
                self._written[partition] += 1

    def _conclude(self, now: int) -> None:
        """Deal with deliveries of which a part is missing, because the process died between two records or a partition has
        left.

        Where another partition knows what came of it, that came of this part, too. Else, when the missing part has had its
        time
        to come, this part becomes a delivery of its own: under the id of the whole a far end could take it for that.
        """
        for one in [one for several in self._waiting().values() for one in several if not one.is_whole]:
            old = one.bound.id
            outcomes = [router.outcome(one.bound.channel, old) for router in self._routers.values()]
            known = next((outcome for outcome in outcomes if outcome is not None), None)
            if known is not None:
                self._record(one, _ended(old, known, now))
            elif now >= self._settles_at:
                self._record(one, _rebound(old, delivery_id(one.messages), len(one.messages)))

    async def _serve(self, channel: Channel) -> None:
        """Send what was put together for a channel, in its order, until something cannot be sent."""
        while ready := _not_hushed(channel, self._waiting(channel.id).get(channel.id, ()), self._clock()):
            try:
                await self._store(ready[0].partitions)
                if not _may_go(ready[0], self._clock()) or not await self._attempt(channel, ready[0]):
                    return
            except IsothermError as error:
                log.warning("channel %s waits, for what is sent could not be stored: %s", channel.id, error)
                return

    async def _attempt(self, channel: Channel, waiting: _Waiting) -> bool:
        """Try to send a delivery; tells whether the next one may be tried."""
        bound = waiting.bound
        delivery = Delivery(bound.id, channel.id, waiting.messages, bound.at)
        error: Exception | None = None
        retry_at: int | None = None
        async with self._slots:
            try:
                async with asyncio.timeout(self._send_seconds):
                    await self._sender(channel).send(delivery)
            except TimeoutError:
                error = Unreached(f"no answer within {self._send_seconds:g} s")
            except (Unreached, Refused) as failure:
                error = failure
            except Exception as failure:  # a fault of one sender: the other channels go on
                log.exception("channel %s: its sender has a fault", channel.id)
                error = Unreached(f"{type(failure).__name__}: {failure}")
        now = self._clock()
        if error is None:
            _sent.labels(channel.id).inc()
            self._record(waiting, _ended(bound.id, "", now))
        else:
            text = channel.told(error)
            retry_at = self._retry_at(bound, error, now)
            self._tell(channel, waiting, text, retry_at, now)
            self._record(waiting, lambda router: router.failed(bound.id, text, now, retry_at=retry_at))
        await self._store(waiting.partitions)
        return error is None or retry_at is None

    def _retry_at(self, bound: Bound, error: Exception, now: int) -> int | None:
        """Return when a delivery is tried again, µs; None when it is given up."""
        until = bound.at + GIVE_UP
        if isinstance(error, Refused) or now >= until:
            return None
        delay = min(LAST_RETRY, FIRST_RETRY * 2 ** min(bound.attempts, 20)) * self._dice.uniform(1 - JITTER, 1 + JITTER)
        asked = min(error.after * SECOND, GIVE_UP) if isinstance(error, Unreached) else 0
        return min(now + int(max(delay, asked)), until)

    def _tell(self, channel: Channel, waiting: _Waiting, text: str, retry_at: int | None, now: int) -> None:
        """Log and count a failure."""
        _failed.labels(channel.id).inc()
        attempts, count = waiting.bound.attempts + 1, sum(one.total for one in waiting.messages)
        if retry_at is None:
            _given_up.labels(channel.id).inc()
            log.error(
                "channel %s: gave up a delivery of %d events after %d attempts, see `isotherm notify failed`: %s",
                channel.id, count, attempts, text,
            )  # fmt: skip
        else:
            wait = (retry_at - now) / SECOND
            log.warning("channel %s: attempt %d failed, the next in %.0f s: %s", channel.id, attempts, wait, text)

    def _record(self, waiting: _Waiting, change: Callable[[Router], None]) -> None:
        for partition in waiting.partitions:
            if router := self._routers.get(partition):
                change(router)
                self._written[partition] += 1

    async def _store(self, partitions: Iterable[int]) -> None:
        """Have the store take what the courier has changed in some routers."""
        for partition in partitions:
            written = self._written[partition]
            if partition in self._routers and self._stored[partition] < written:
                router = self._routers[partition]
                await self._save(partition)
                if self._routers.get(partition) is router:
                    self._stored[partition] = max(self._stored[partition], written)

    def _sender(self, channel: Channel) -> Sender:
        if channel.id not in self._senders:
            self._senders[channel.id] = self._make(channel)
        return self._senders[channel.id]


def _may_go(waiting: _Waiting, now: int) -> bool:
    return waiting.bound.retry_at <= now and waiting.is_whole


def _not_hushed(channel: Channel, waiting: Sequence[_Waiting], now: int) -> list[_Waiting]:
    """Return what no quiet hours hold back: they may have begun since it was put together and could not be sent."""
    if quiet_until(channel, now) is None:
        return list(waiting)
    return [one for one in waiting if any(gets_through(channel, message) for message in one.messages)]


def _ended(id: str, error: str, now: int) -> Callable[[Router], None]:
    """Return what tells a router that a delivery is over: taken, or given up because of an error."""

    def tell(router: Router) -> None:
        if error:
            router.failed(id, error, now, retry_at=None)
        else:
            router.sent([id], now)

    return tell


def _rebound(old: str, new: str, size: int) -> Callable[[Router], None]:
    """Return what makes a router's part of a delivery part of another."""
    return lambda router: router.rebind(old, new, size)
