"""An intake over a Kafka that is switched off and on again."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import msgspec

from connectors.formats.senml import decode_lines
from connectors.intake import Intake, Receipt
from isotherm.clock import now_us
from isotherm.ledger import Account
from isotherm.pack import Pack
from isotherm.rejects import RejectRecord
from isotherm.settings import Settings
from isotherm.topics import READINGS, Topic, partition_of


class SwitchableProducer:
    """Takes records while it is on, as `isotherm.kafka.Producer` does."""

    def __init__(self) -> None:
        self.on = asyncio.Event()
        self.on.set()
        self.packs: dict[int, list[Pack]] = defaultdict(list)
        self.rejects: list[RejectRecord] = []

    async def deliver(self, topic: Topic, value: bytes, *, partition: int | None = None, key: bytes | None = None) -> None:
        await self.on.wait()
        if topic is READINGS:
            assert partition is not None
            self.packs[partition].append(Pack.from_ipc(value))
        else:
            self.rejects.append(msgspec.json.decode(value, type=RejectRecord))

    def values_of(self, series: str) -> list[float]:
        packs = self.packs[partition_of(series.partition("/")[0], 8)]
        return [
            value
            for pack in packs
            for code, value in zip(pack.series.tolist(), pack.value.tolist(), strict=True)
            if pack.names[code] == series
        ]


class Bench:
    """The intake, what it counted, and what it produced."""

    def __init__(self) -> None:
        self.producer = SwitchableProducer()
        self.account = Account()
        self.settings = Settings(linger_ms=1, tcp_port=0)
        self.intake = Intake(self.settings, self.producer, "tcp/test", self.account)  # type: ignore[arg-type]

    async def send(self, lines: bytes, device: str | None = None) -> Receipt:
        return await self.intake.accept(decode_lines(lines, now_us()), peer="peer", device=device)
