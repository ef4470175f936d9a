"""Commands down and replies up: what all protocols have in common.

    commands, configurations ─ announce ─► Dispatcher ─ claims ─► Outlet.give ─► device
                                          │                                  │
                     log ◄─ sent, … ◄─────┴────────────── replied ◄──────────┘

A protocol says where a device can be reached, with an `Outlet` for as long as that is so; the dispatcher takes up what waits
for the device, one command after the other, and notes how far each got. Commands for the children of a gateway go to the
gateway's outlet. A command is taken up before it is given and noted after it was: so what is noted is never ahead.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, Protocol

import msgspec
from redis.exceptions import RedisError

from connectors.answers import Answer, error
from connectors.identity import Doorkeeper, Identity
from connectors.replies import Reply, reply_of
from isotherm.clock import now_us
from isotherm.commands import Command, Control
from isotherm.commands.command import is_id
from isotherm.configuration import Configurations
from isotherm.configuration.configuration import version_in
from isotherm.configuration.table import Noted
from isotherm.errors import InvalidReading, Unavailable
from isotherm.logs import Throttle
from isotherm.process import end
from isotherm.store.client import Client, heard

RETRY_SECONDS = 1.0
"""How long to wait for a server that is away."""

BACK_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""How long a command that came back waits before it is given again, unless the device is heard of first."""

STOP_SECONDS = 1.0
"""How long a stop waits for commands that are being given."""

LISTEN_SECONDS = 30.0
"""How often everything is looked at, announced or not."""

STRANGER_SECONDS = 0.3
"""How long a command for a device that a broker may know, or not, is left to connectors that have a connection of it."""

MAX_ASKING = 32
"""Devices for which the store is asked at the same time, and replies that are kept: each takes a connection."""

LOOK_SECONDS = 0.2
"""How long devices that are new to a broker gather before it is looked what waits for them."""

Given = Literal["sent", "delivered", "returned"]
"""How far a command got: ``returned`` says that it has certainly not left."""

log = logging.getLogger(__name__)


class Outlet(Protocol):
    """A way to a device."""

    async def give(self, command: Command) -> Given:
        """Give the device a command; what it raises says that nobody knows how far it got."""


class Broker(Outlet, Protocol):
    """A way to devices of which we do not see whether they are there."""

    def may_reach(self, device: str, way: str) -> bool:
        """Tell whether a command for a device can be given to it at all, by way of itself or its gateway."""

    def has_heard(self, way: str) -> bool:
        """Tell whether a device or gateway has come this way before."""


WHOSE_COMMANDS = error("no_device", "the hello asks for commands and does not say whose: name the device")


def not_kept(away: Unavailable) -> Answer:
    """Say that a reply has to be sent again."""
    return error("unavailable", f"the reply is not kept, send it again: {away}")


def line(command: Command) -> bytes:
    """Return the line or message that gives a command to a device."""
    return msgspec.json.encode({"command": payload(command)})


def payload(command: Command) -> dict[str, object]:
    """Return what a device is told."""
    return {
        "id": command.id,
        "device": command.device,
        "name": command.name,
        "parameters": command.parameters,
        "deadline": command.deadline / 1e6,
        "timeout": round(max(0, command.deadline - now_us()) / 1e6, 3),
    }


class Dispatcher:
    """The commands of this process."""

    def __init__(
        self, control: Control, configurations: Configurations, doorkeeper: Doorkeeper, redis: Client, via: str
    ) -> None:
        """Prepare.

        Args:
            control: Where commands are taken up and noted.
            configurations: Where devices' configurations are.
            doorkeeper: Tells who is whose gateway.
            redis: Announces what is new.
            via: What this connector is called.
        """
        self._broker: Broker | None = None
        self._configurations = configurations
        self._control = control
        self._doorkeeper = doorkeeper
        self._redis = redis
        self._via = via
        self._outlets: defaultdict[str, list[Outlet]] = defaultdict(list)
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[str] = set()  # devices whose commands are being taken up
        self._again: set[str] = set()  # those of them that were woken meanwhile
        self._came: set[str] = set()  # devices that have come, and were not given their configuration since
        self._will_look = False
        self._returned: dict[str, asyncio.Event] = {}  # device → is set when it is heard of
        self._asking, self._replying = asyncio.Semaphore(MAX_ASKING), asyncio.Semaphore(MAX_ASKING)
        self._is_stopping = False
        self._throttle = Throttle()

    @contextmanager
    def reaching(self, device: str, outlet: Outlet, *, is_new: bool = True) -> Iterator[None]:
        """Let commands for a device, and a gateway's children, take a way for the length of the block."""
        self.enter(device, outlet, is_new=is_new)
        try:
            yield
        finally:
            self.leave(device, outlet)

    def enter(self, device: str, outlet: Outlet, *, is_new: bool = True) -> None:
        """Let commands for a device, and a gateway's children, take a way from now on; of several the last is taken.

        Args:
            device: Who has come.
            outlet: The way.
            is_new: It may have lost what it was given before: a configuration that it has not reported is given again.
        """
        self._outlets[device].append(outlet)
        if is_new:
            self._came.add(device)
        self.heard(device)
        self._wake(device)
        self._start(self._wake_children(device, is_new))

    def leave(self, device: str, outlet: Outlet) -> None:
        """Take the way no longer."""
        ways = self._outlets[device]
        if outlet in ways:
            ways.remove(outlet)
        if not ways:
            del self._outlets[device]
            self._came.discard(device)

    def set_broker(self, broker: Broker) -> None:
        """Let commands for all devices that have no other way take that of a broker; it is there anew."""
        self._broker = broker
        self._look_soon()

    def heard(self, device: str, *, is_new: bool = False) -> None:
        """Note that a device is there: what came back is given to it now; and what waits, if it ``is_new``."""
        if self._returned and (waiting := self._returned.get(device)) is not None:
            waiting.set()
        elif is_new:
            self._look_soon()

    async def run(self) -> None:
        """Hear what is announced, for ever."""
        while True:
            try:
                await self._listen()
            except (RedisError, Unavailable, OSError) as error:
                if self._throttle("away") is not None:
                    log.warning("commands wait: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def stop(self) -> None:
        """Take up nothing more; what is taken up is given, or put back."""
        self._is_stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        await end(self._tasks)

    async def reply(self, identity: Identity, data: bytes) -> str:
        """Keep what a device says of a command; returns its id when Kafka has it.

        Raises:
            InvalidReading: it is none, says too much, or is of no command of a device that the peer may speak for.
            Unavailable: Kafka or the store does not answer.
        """
        device, reply = reply_of(identity, data)
        async with self._replying:
            await self._keep(device, reply)
        return reply.id

    async def _keep(self, device: str, reply: Reply) -> None:
        if (version := version_in(reply.id)) is not None:
            await self._report(device, version, reply)
            return
        command = await self._control.table.get(device, reply.id) if is_id(reply.id) else None
        if command is None or not command.attempt:
            raise InvalidReading("command", f"{device} was given no command {reply.id[:40]!r}, or long ago")
        if reply.error is not None:
            await self._control.note(command, "refused", error=reply.error, via=self._via)
        elif reply.result is not msgspec.UNSET:
            await self._control.note(command, "answered", result=bytes(reply.result).decode(), via=self._via)
        else:
            await self._control.note(command, "delivered", via=self._via)

    async def _report(self, device: str, version: int, reply: Reply) -> None:
        """Take in what a device says of its configuration."""
        if reply.error is not None:
            await self._configurations.note(device, version, "failed", reply.error)
        elif reply.result is not msgspec.UNSET:
            await self._configurations.report(device, version, bytes(reply.result))
        elif reply.progress is not None:
            await self._configurations.note(device, version, "progress", str(reply.progress))
        else:
            await self._configurations.note(device, version, "sent")

    async def _listen(self) -> None:
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(*self._control.table.channels(), *self._configurations.channels())
            looked_at = -math.inf
            while True:
                if time.monotonic() - looked_at > LISTEN_SECONDS:
                    await self._look()
                    looked_at = time.monotonic()
                message = await heard(pubsub, LISTEN_SECONDS)
                if message is not None:
                    self._hear(message["data"].decode())

    def _look_soon(self) -> None:
        """Look at everything a little later, for all who ask for it meanwhile."""
        if not self._will_look:
            self._will_look = True
            self._start(self._look_later())

    async def _look_later(self) -> None:
        await asyncio.sleep(LOOK_SECONDS)
        self._will_look = False
        await self._look()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="dispatch")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self) -> None:
        """Look for everything that waits: announcements are lost while nobody listens."""
        with suppress(Unavailable):  # whoever listens comes here again
            for device in await self._control.table.waiting_devices() | await self._configurations.due():
                self._wake(device)

    def _hear(self, message: str) -> None:
        what, device, _ = message.split(" ")
        if what != "claimed":
            self._wake(device)

    def _wake(self, device: str) -> None:
        """Take up what waits for a device, if it can be reached here."""
        if not self._outlets and self._broker is None:
            return
        if device in self._busy:
            self._again.add(device)
        else:
            self._busy.add(device)
            self._start(self._drain(device))

    async def _wake_children(self, device: str, is_new: bool) -> None:
        try:
            children = await self._doorkeeper.children_of(device)
        except Unavailable:
            return  # everything is looked at when it is back
        if is_new:
            self._came |= children
        for child in children:
            self._wake(child)

    async def _drain(self, device: str) -> None:
        try:
            while True:
                self._again.discard(device)
                await self._take_up(device)
                if device not in self._again:
                    return
        except Exception:
            log.exception("failed at the commands for %s", device)
        finally:
            self._again.discard(device)
            self._busy.discard(device)

    async def _take_up(self, device: str) -> None:
        """Give a device what waits for it, one command after the other."""
        returned = 0
        while not self._is_stopping:
            try:
                outlet = await self._outlet_of(device)
                command = await self._next(device) if outlet is not None else None
            except Unavailable as error:
                if self._throttle("claim") is not None:
                    log.info("commands for %s wait: %s", device, error)  # others say that a server is away
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if outlet is None or command is None:
                return
            try:
                given = await (await self._newest(device, outlet)).give(command)
            except (ConnectionError, TimeoutError) as error:
                log.warning("command %s for %s was cut off: nobody knows whether it has it: %r", command.id, device, error)
                return  # its claim lapses
            await self._note(command, given)
            returned = returned + 1 if given == "returned" else 0
            if returned:
                await self._wait(device, BACK_SECONDS[min(returned, len(BACK_SECONDS)) - 1])

    async def _newest(self, device: str, outlet: Outlet) -> Outlet:
        """Return the way to a device that has come anew while the store was asked, else the one that was found before."""
        if outlet is self._broker:
            return outlet  # always the same; and looking for it may wait for strangers
        with suppress(Unavailable):
            return await self._outlet_of(device) or outlet
        return outlet

    async def _next(self, device: str) -> Command | None:
        """Take up what comes next for a device: its commands, then its configuration."""
        async with self._asking:
            command = await self._control.claim(device, self._via)
            return command or await self._configuration(device)

    async def _configuration(self, device: str) -> Command | None:
        is_new = device in self._came
        self._came.discard(device)  # before the store is asked: who comes meanwhile is new to what it answers
        try:
            return await self._configurations.claim(device, self._via, is_new=is_new)
        except Unavailable:
            if is_new:
                self._came.add(device)
            raise

    async def _outlet_of(self, device: str) -> Outlet | None:
        """Return the way to a device: its own, its gateway's, or the broker's."""
        if ways := self._outlets.get(device):
            return ways[-1]
        gateway = await self._doorkeeper.gateway_of(device)
        if gateway and (ways := self._outlets.get(gateway)):
            return ways[-1]
        way = gateway or device
        if self._broker is None or not self._broker.may_reach(device, way):
            return None
        if not self._broker.has_heard(way):
            await asyncio.sleep(STRANGER_SECONDS)
        return self._broker

    async def _note(self, command: Command, given: Given) -> None:
        """Say how far a command got, for as long as it takes: it is a fact."""
        version = version_in(command.id)
        while True:
            try:
                async with self._asking:
                    if version is None:
                        await self._control.note(command, given, via=self._via)
                    else:
                        what: Noted = "returned" if given == "returned" else "sent"
                        await self._configurations.note(command.device, version, what)
                return
            except Unavailable as error:
                if self._throttle("note") is not None:
                    log.warning("that command %s is %s is not noted yet: %s", command.id, given, error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _wait(self, device: str, seconds: float) -> None:
        """Wait before a command that came back is given again, unless the device is heard of first."""
        self._returned[device] = heard = asyncio.Event()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await heard.wait()
        finally:
            del self._returned[device]
