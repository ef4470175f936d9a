"""An intake over a Kafka that is switched off and on again, and what else a connector stands on."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec

from connectors.decoders import Decoders
from connectors.dispatch import Dispatcher
from connectors.formats.catalogue import NDJSON, Catalogue
from connectors.identity import ANYONE, Doorkeeper, Identity
from connectors.intake import Intake
from connectors.receipt import Receipt
from connectors.site import Site
from isotherm.clock import now_us
from isotherm.commands import Control
from isotherm.commands.fact import Fact
from isotherm.configuration import Configurations
from isotherm.errors import Unavailable
from isotherm.firmware import Firmware
from isotherm.ledger import Account
from isotherm.pack import Attribute, Pack
from isotherm.registry import Device
from isotherm.rejects import RejectRecord
from isotherm.settings import Settings
from isotherm.store.client import Client
from isotherm.topics import READINGS, REJECTS, Topic, partition_of


class SwitchableProducer:
    """Takes records while it is on, as `isotherm.kafka.Producer` does."""

    def __init__(self) -> None:
        self.on = asyncio.Event()
        self.on.set()
        self.packs: dict[int, list[Pack]] = defaultdict(list)
        self.rejects: list[RejectRecord] = []
        self.facts: list[Fact] = []

    async def start(self) -> None:
        """It is there."""

    async def deliver(self, topic: Topic, value: bytes, *, partition: int | None = None, key: str | None = None) -> None:
        await self.on.wait()
        if topic is READINGS:
            assert partition is not None
            self.packs[partition].append(Pack.from_ipc(value))
        elif topic is REJECTS:
            self.rejects.append(msgspec.json.decode(value, type=RejectRecord))
        else:
            self.facts.append(Fact.from_json(value))

    def values_of(self, series: str) -> list[float]:
        packs = self.packs[partition_of(series.partition("/")[0], 8)]
        return [
            value
            for pack in packs
            for code, value in zip(pack.series.tolist(), pack.value.tolist(), strict=True)
            if pack.names[code] == series
        ]

    @property
    def attributes(self) -> list[Attribute]:
        return [one for packs in self.packs.values() for pack in packs for one in pack.attributes]


class KnownDevices:
    """Devices and tokens, as `isotherm.registry.Registry` tells of them, while it is there."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.tokens: dict[str, str] = {}
        self.is_away = False

    async def get(self, name: str) -> Device | None:
        if self.is_away:
            raise Unavailable("the store does not answer")
        return self.devices.get(name)

    async def by_token(self, token: str) -> Device | None:
        return await self.get(self.tokens.get(token, ""))

    def add(self, name: str, *children: str, gateway: str = "") -> None:
        """Enter a device, a gateway if it has children; its token is its name with an s for secret before it."""
        self.devices[name] = Device(name, 0, bool(children), gateway, children=frozenset(children))
        self.tokens[f"s-{name}"] = name


class HeldReplies:
    """In the place of a dispatcher's ``reply``: counts those that have begun, and holds them until they may go."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_go = asyncio.Event()

    async def __call__(self, identity: Identity, data: bytes) -> str:
        self.begun += 1
        await self.may_go.wait()
        return "x"


class CountedConfigurations(Configurations):
    """Configurations, with a count of what was said of them."""

    noted = 0

    async def note(self, *arguments: Any) -> Any:
        state = await super().note(*arguments)
        self.noted += 1
        return state

    async def report(self, *arguments: Any) -> Any:
        state = await super().report(*arguments)
        self.noted += 1
        return state


class Bench:
    """What a connector stands on, what it counted, and what it produced."""

    def __init__(
        self,
        producer: SwitchableProducer | None = None,
        decoders: Decoders | None = None,
        redis: Client | None = None,
        **settings: Any,
    ) -> None:
        self.producer = producer or SwitchableProducer()
        self.account = Account()
        self.registry = KnownDevices()
        everything: dict[str, Any] = {"linger_ms": 1, "auth": "open", "tcp_port": 0, "http_port": 0, "tcp_tls_port": 0}
        everything |= {"coap_port": 0, "coap_tcp_port": 0, "coap_tls_port": 0}
        self.settings = Settings(**(everything | settings))
        self.intake = Intake(self.settings, self.producer, "tcp/test", self.account)  # type: ignore[arg-type]
        doorkeeper = Doorkeeper(self.settings, self.registry)  # type: ignore[arg-type]
        own = decoders or Decoders()
        catalogue = Catalogue.of(["device", "host"], "", own.forms)
        self.control = Control(redis, self.settings.partitions, self.producer)  # type: ignore[arg-type]
        self.configurations = CountedConfigurations(redis, self.settings.partitions)  # type: ignore[arg-type]
        self.dispatcher = Dispatcher(self.control, self.configurations, doorkeeper, redis, "tcp/test")  # type: ignore[arg-type]
        if redis is None:
            self.dispatcher._look_soon = lambda: None  # type: ignore[method-assign]
        self.site = Site(self.settings, self.intake, doorkeeper, catalogue, self.dispatcher, Firmware(redis), own)  # type: ignore[arg-type]

    async def taken(self, count: int) -> None:
        """Return when so many readings were taken in and are not delivered."""
        await eventually(lambda: self.intake.room.taken >= count)

    async def delivered(self, count: int) -> None:
        """Return when so many readings were delivered in all."""
        await eventually(lambda: self.account.accepted >= count)

    async def send(self, lines: bytes, identity: Identity = ANYONE, patient: bool = True) -> Receipt:
        pieces = self.site.catalogue.decoders[NDJSON](lines, now_us())
        return await self.intake.accept(pieces, peer="peer", identity=identity, form=NDJSON, patient=patient)


async def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return when a condition holds that nothing tells the coming of."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
