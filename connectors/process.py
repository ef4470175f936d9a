"""A connector process: one protocol, one intake, one account in the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from connectors import coap, http, mqtt, tcp
from connectors.decoders import Decoders
from connectors.dispatch import Dispatcher
from connectors.formats.catalogue import Catalogue
from connectors.identity import Doorkeeper
from connectors.intake import Intake
from connectors.plugins import function_in
from connectors.site import Listening, Site
from isotherm import health, kafka, ledger
from isotherm.commands import Control
from isotherm.configuration import Configurations
from isotherm.errors import SettingsError, Unavailable
from isotherm.firmware import Firmware
from isotherm.process import end, raise_file_limit, stop_signal
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store import client

PROTOCOLS: dict[str, Listening] = {
    "tcp": tcp.listening,
    "http": http.listening,
    "mqtt": mqtt.listening,
    "coap": coap.listening,
}

NOTE_SECONDS = 1.0
"""How often devices that were first seen are entered into the registry."""

log = logging.getLogger(__name__)


def find(protocol: str) -> tuple[str, Listening]:
    """Return the name and the connector of a protocol, or of a Python file that defines ``listening``.

    Raises:
        SettingsError: it is neither.
    """
    if protocol in PROTOCOLS:
        return protocol, PROTOCOLS[protocol]
    path = Path(protocol)
    if path.suffix != ".py":
        raise SettingsError(f"{protocol!r} is no protocol: expected {', '.join(PROTOCOLS)}, or a Python file")
    return path.stem, function_in(path, "listening")


async def run(protocol: str, listening: Listening, settings: Settings) -> None:
    """Take readings in until SIGTERM or SIGINT; then stop listening, deliver the rest, and end.

    Args:
        protocol: Its name in the ledger.
        listening: The connector.
        settings: All of them.

    Raises:
        Unavailable: Kafka or the store did not answer at the start.
    """
    stop = stop_signal()
    raise_file_limit()
    where: str | None = None
    account = ledger.Account()
    instance = ledger.instance_of(protocol)
    producer = kafka.Producer(settings, f"isotherm-{protocol}")
    await producer.start()
    try:
        await kafka.ensure_topics(settings)
        intake = Intake(settings, producer, instance, account)
        async with (
            client.connected(settings) as redis,
            health.served(settings, lambda: None if where else "waiting for the listener"),
            ledger.reported(redis, instance, await kafka.cluster_id(settings), account),
            _noted(intake, Registry(redis)),
            intake.running(),
            _dispatching(settings, redis, producer, instance) as (doorkeeper, dispatcher),
            _opened(listening(_site(settings, redis, intake, doorkeeper, dispatcher)), stop) as where,
        ):
            log.info("listening on %s", where)
            await stop.wait()
            log.info("stopping")
    except* _Stopped:
        log.info("stopped before anything was listened on")
    finally:
        await producer.stop()


@contextlib.asynccontextmanager
async def _opened(listener: AbstractAsyncContextManager[str], stop: asyncio.Event) -> AsyncIterator[str]:
    """A listener for the length of the block.

    Raises:
        SettingsError: its address cannot be listened on.
        _Stopped: ``stop`` was set first; an MQTT broker may be away for long.
    """
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with _before(stop):
                where = await stack.enter_async_context(listener)
        except OSError as error:
            raise SettingsError(f"cannot listen: {error.strerror or error}; choose another address or port") from error
        yield where


class _Stopped(Exception):
    """A stop came first."""


@contextlib.asynccontextmanager
async def _before(stop: asyncio.Event) -> AsyncIterator[None]:
    """Give the block up when ``stop`` is set.

    Raises:
        _Stopped: it was.
    """
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        async with asyncio.timeout(None) as limit:

            def expire(_: object) -> None:
                limit.reschedule(asyncio.get_running_loop().time())

            stopping.add_done_callback(expire)
            try:
                yield
            finally:
                stopping.remove_done_callback(expire)
    except TimeoutError:
        if stop.is_set():
            raise _Stopped from None
        raise
    finally:
        stopping.cancel()


@contextlib.asynccontextmanager
async def _dispatching(
    settings: Settings, redis: client.Client, producer: kafka.Producer, instance: str
) -> AsyncIterator[tuple[Doorkeeper, Dispatcher]]:
    """Bring commands to devices for the length of the block."""
    doorkeeper = Doorkeeper(settings, Registry(redis))
    control, configurations = Control(redis, settings.partitions, producer), Configurations(redis, settings.partitions)
    dispatcher = Dispatcher(control, configurations, doorkeeper, redis, instance)
    running = asyncio.create_task(dispatcher.run(), name="dispatch")
    try:
        yield doorkeeper, dispatcher
    finally:
        await dispatcher.stop()
        await end([running])


def _site(settings: Settings, redis: client.Client, intake: Intake, doorkeeper: Doorkeeper, dispatcher: Dispatcher) -> Site:
    decoders = decoders_of(settings)
    return Site(settings, intake, doorkeeper, catalogue_of(settings, decoders), dispatcher, Firmware(redis), decoders)


def catalogue_of(settings: Settings, decoders: Decoders | None = None) -> Catalogue:
    """Return every decoder, set up as the settings say.

    Args:
        settings: All of them.
        decoders: The user's own, when they are loaded already.

    Raises:
        SettingsError: a file of the user's cannot be loaded.
    """
    tags = [tag.strip() for tag in settings.influx_device_tags.split(",")]
    return Catalogue.of(tags, settings.graphite_prefix, (decoders or decoders_of(settings)).forms)


def decoders_of(settings: Settings) -> Decoders:
    """Load the decoders of the user's own.

    Raises:
        SettingsError: a file cannot be loaded, or what it registers cannot be used.
    """
    return Decoders.load(Path(path.strip()) for path in settings.decoders.split(",") if path.strip())


@contextlib.asynccontextmanager
async def _noted(intake: Intake, registry: Registry) -> AsyncIterator[None]:
    """Enter devices into the registry when they are first seen, for the length of the block."""

    async def note() -> None:
        waiting: list[str] = []
        while True:
            await asyncio.sleep(NOTE_SECONDS)
            waiting += intake.new_devices()
            if waiting:
                with contextlib.suppress(Unavailable):  # the next time: the ledger's report says that the store is away
                    await registry.note(waiting)
                    waiting.clear()

    noting = asyncio.create_task(note(), name="note-devices")
    try:
        yield
    finally:
        noting.cancel()
        with contextlib.suppress(Unavailable):
            if new := intake.new_devices():
                await registry.note(new)
