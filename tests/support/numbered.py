"""A fleet that numbers its readings and sends each again until it is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import aiohttp

from simulator.load import Link

BATCHES = {"tcp": 500, "http": 500, "ws": 500, "coap": 12, "mqtt": 50}
"""Readings in a payload; with MQTT, messages of one reading."""

ANSWER_SECONDS = 20.0
RECONNECT_SECONDS = 0.1


@dataclass
class NumberedDevice:
    """Sends 1, 2, 3, … with their numbers and times, in batches; goes on with the next when a batch is acknowledged.

    Attributes:
        name: Of the device; its series is ``name/temperature``.
        acknowledged: The greatest number that is acknowledged, and all below.
        resent: Batches that were sent more than once.
    """

    name: str
    link: Callable[[], Link]
    address: tuple[str, int]
    batch: int
    began: float = field(default_factory=time.time)
    acknowledged: int = 0
    resent: int = 0

    async def send(self, rate: float, stop: asyncio.Event) -> None:
        """Send at most ``rate`` readings/s until told to stop, and all that is begun to its acknowledgement."""
        began, batches = time.monotonic(), 0
        while not stop.is_set():
            with contextlib.suppress(OSError, EOFError, TimeoutError, aiohttp.ClientError, ValueError):
                async with self._connected() as link:
                    while not stop.is_set():
                        await self._send_batch(link)
                        batches += 1
                        await asyncio.sleep(began + batches * self.batch / rate - time.monotonic())
                return
            self.resent += 1
            await asyncio.sleep(RECONNECT_SECONDS)
        await self._finish()

    async def _finish(self) -> None:
        """Bring the last batch to its end, if it is not known whether it arrived."""
        while True:
            with contextlib.suppress(OSError, EOFError, TimeoutError, aiohttp.ClientError, ValueError):
                async with self._connected() as link:
                    await self._send_batch(link)
                return
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _send_batch(self, link: Link) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            await link.send(self._payload())
            await link.acknowledge(link.acknowledged + self.batch)
        self.acknowledged += self.batch

    def _payload(self) -> bytes:
        numbers = range(self.acknowledged + 1, self.acknowledged + self.batch + 1)
        return b"".join(
            b'{"n":"%s/temperature","v":%d,"t":%.3f,"seq":%d}\n' % (self.name.encode(), n, self.began + n / 1000, n)
            for n in numbers
        )

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Link]:
        link = self.link()
        async with asyncio.timeout(ANSWER_SECONDS):
            await link.open(*self.address)
        try:
            yield link
        finally:
            await link.close()
