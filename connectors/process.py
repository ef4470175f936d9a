"""A connector process: one protocol, one intake, one account in the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from redis.exceptions import RedisError

from connectors import coap, mqtt, tcp
from connectors.intake import Intake
from isotherm import health, kafka, ledger
from isotherm.process import stop_signal
from isotherm.settings import Settings
from isotherm.store import client

Listening = Callable[[Settings, Intake], AbstractAsyncContextManager[str]]

PROTOCOLS: dict[str, Listening] = {"tcp": tcp.listening, "mqtt": mqtt.listening, "coap": coap.listening}

log = logging.getLogger(__name__)


async def run(protocol: str, settings: Settings) -> None:
    """Take readings in until SIGTERM or SIGINT; then stop listening, deliver the rest, and end.

    Raises:
        Unavailable: Kafka or the store did not answer at the start.
    """
    stop = stop_signal()
    where: str | None = None
    account = ledger.Account()
    instance = ledger.instance_of(protocol)
    producer = kafka.Producer(settings, f"isotherm-{protocol}")
    await producer.start()
    try:
        await kafka.ensure_topics(settings)
        intake = Intake(settings, producer, instance, account)
        async with (
            health.served(settings, lambda: None if where else "waiting for the listener"),
            _reported(settings, instance, account),
            intake.running(),
            PROTOCOLS[protocol](settings, intake) as where,
        ):
            log.info("listening on %s", where)
            await stop.wait()
            log.info("stopping")
    finally:
        await producer.stop()


@contextlib.asynccontextmanager
async def _reported(settings: Settings, instance: str, account: ledger.Account) -> AsyncIterator[None]:
    """Keep the ledger for the length of the block, and close it with the last numbers."""
    log_id = await kafka.cluster_id(settings)
    async with client.connected(settings) as redis:
        reporting = asyncio.create_task(ledger.keep_reporting(redis, instance, log_id, account), name="ledger")
        try:
            yield
        finally:
            reporting.cancel()
            try:
                await ledger.report(redis, instance, log_id, account)
            except RedisError as error:
                log.warning("the ledger's last second is not written: %s", error)
