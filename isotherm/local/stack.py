"""``isotherm up``: the parts, their supervisor and the screen, put together."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isotherm import kafka, ledger, stackfile
from isotherm.analytics import Analytics
from isotherm.errors import IsothermError, Unavailable
from isotherm.local.parts import Fleet, Part, find_mosquitto, health_port, parts
from isotherm.local.ports import Ports
from isotherm.local.screen import Screen
from isotherm.local.supervisor import State, Supervisor
from isotherm.process import done_before, end, stop_signal
from isotherm.settings import Settings, is_loopback
from isotherm.store import client
from isotherm.store.analytic import AnalyticStore
from isotherm.topics import TOPICS

_log = logging.getLogger(__name__)

REFRESH_SECONDS = 0.5
DRAIN_SECONDS = 1.0
"""How long a stop waits for the worker to store what the connectors have taken in."""

QUICK_SESSION_SECONDS = 6.0
"""The embedded broker lets a first join wait for half of it."""

BROKER_CHECK_SECONDS = 5.0
RENEW_DRAIN_SECONDS = 15.0
"""How long a broker that starts anew waits for the worker."""

STAGE_SECONDS = {0: 0.7, 1: 1.0, 2: 1.2, 3: 0.3, 4: 0.8}
"""How long each stage of a stop may take; with the drain, less than 5 s in all."""

_EXTERNAL = {"kafka": "kafka", "redis": "store", "mqtt": "mqtt-broker"}
"""Setting of a server → the part that stands in for it when it is not set."""

_FRUGAL = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}
"""What all parts' C libraries read once, when their process, or the one that they are forked from, starts."""

_TOGETHER = ((0,), (1,), (2, 3), (4,))
_MAX_LOG_BYTES = 10 * 2**20


@dataclass(frozen=True, slots=True)
class Request:
    """What ``isotherm up`` was asked for.

    Attributes:
        port_base: First of the consecutive ports.
        fleet: The simulated devices, or None.
        seconds: Stop so long after all is ready; None runs until Ctrl-C.
    """

    port_base: int
    fleet: Fleet | None
    seconds: float | None


async def up(settings: Settings, request: Request, screen: Screen) -> Mapping[str, ledger.Line]:
    """Run a local stack until Ctrl-C, or for a while; returns the ledger after its end.

    Raises:
        StackError: it cannot start: a port is busy, or another stack uses the data directory.
    """
    began = time.monotonic()
    stop = stop_signal()
    os.environ.update(_FRUGAL)
    ports = Ports.from_base(request.port_base)
    local = _local(settings, ports)
    shared = local.model_dump(mode="json", include={"kafka", "redis", "mqtt", "mqtt_version", "partitions", "auth", *_PORTS})
    with stackfile.held(settings.data_dir, shared), screen:
        ports.check_free(local.host)
        chosen = parts(
            local, ports, request.fleet, without={_EXTERNAL[name] for name in _EXTERNAL.keys() & settings.model_fields_set}
        )
        _begin_logs(local)
        environments = {part.name: _environment(local, part, ports) for part in chosen}
        supervisor = Supervisor(chosen, environments, local.data_dir / "logs", screen.changed)
        async with asyncio.TaskGroup() as tasks:
            supervisor.start(tasks)
            helpers = [
                tasks.create_task(_greet(supervisor, screen, chosen, began, local), name="greet"),
                tasks.create_task(_show(supervisor, screen, local), name="show"),
                tasks.create_task(_bound_broker(supervisor, screen, local), name="bound-broker"),
            ]
            try:
                if await _has_run(supervisor, request.seconds, stop):
                    screen.says(f"stopping after {request.seconds:g} s")
            finally:
                await end(helpers)
                last = await _stop(supervisor, local)
                await supervisor.end()
        screen.ended(last)
    return last


async def _has_run(supervisor: Supervisor, seconds: float | None, stop: asyncio.Event) -> bool:
    """Wait until all has been ready for so long, and return True; or for ``stop``."""

    async def run() -> None:
        await supervisor.all_ready()
        await asyncio.sleep(math.inf if seconds is None else seconds)

    return await done_before(stop, run())


_PORTS = (
    *("web_port", "tcp_port", "coap_port", "http_port"),
    *("tcp_tls_port", "http_tls_port", "coap_tcp_port", "coap_tls_port"),
)


def _local(settings: Settings, ports: Ports) -> Settings:
    """Return the settings by which the parts of this stack find each other; servers that were set stay as they are."""
    host, given = settings.host, settings.model_fields_set
    embedded: dict[str, object] = {name: getattr(ports, name.removesuffix("_port")) for name in _PORTS}
    if "auth" not in given and is_loopback(host):
        embedded["auth"] = "open"
    if "login" not in given and is_loopback(host) and not settings.web_origin:
        embedded["login"] = "auto"
    if "kafka" not in given:
        embedded["kafka"] = f"{host}:{ports.kafka}"
    if "redis" not in given:
        embedded["redis"] = f"redis://{host}:{ports.redis}/0"
    if "mqtt" not in given:
        with_auth = settings.model_copy(update=embedded)
        embedded |= {"mqtt": f"{host}:{ports.mqtt}", "mqtt_version": "5" if find_mosquitto(with_auth) else "3.1.1"}
        # Kept, so that the connector finds its session again; nobody can guess the id and take it over.
        secret = _kept_secret(settings.data_dir / "mosquitto" / "secret")
        if "mqtt_client_id" not in given:
            embedded["mqtt_client_id"] = f"isotherm-connector-{hashlib.sha256(secret.encode()).hexdigest()[:16]}"
        if with_auth.auth == "token":
            embedded |= {"mqtt_username": "isotherm-connector", "mqtt_password": secret}
    if "group_session_seconds" not in given:
        embedded["group_session_seconds"] = QUICK_SESSION_SECONDS
    return settings.model_copy(update=embedded)


def _kept_secret(path: Path) -> str:
    """Return the secret in a file that only this user may read; it is made when it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe())
    return path.read_text()


def _environment(settings: Settings, part: Part, ports: Ports) -> dict[str, str]:
    own = settings.model_copy(update={"health_port": health_port(part.name, ports)})
    return {**os.environ, **own.environment(), "PYTHONUNBUFFERED": "1"}


def _begin_logs(settings: Settings) -> None:
    """Keep one old generation of each log that has grown large."""
    for path in (settings.data_dir / "logs").glob("*.log"):
        if path.stat().st_size > _MAX_LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))


async def _greet(supervisor: Supervisor, screen: Screen, chosen: list[Part], began: float, local: Settings) -> None:
    await supervisor.all_ready()
    screen.ready({part.name: part.address for part in chosen if part.address}, time.monotonic() - began)
    if local.login == "required":
        log = local.data_dir / "logs" / "web.log"
        screen.says(
            f"the pages ask for a log-in; at the first start {log} has a password, or type: isotherm users reset admin"
        )


async def _show(supervisor: Supervisor, screen: Screen, settings: Settings) -> None:
    log_id: str | None = None
    lines: Mapping[str, ledger.Line] = {}  # the last that could be read
    while True:
        supervisor.measure()
        states = {status.part.name: status.state for status in supervisor.statuses}
        if all(states.get(name, State.READY) is State.READY for name in ("store", "kafka")):
            try:
                log_id = log_id or await kafka.cluster_id(settings)
                lines = await read_ledger(settings, log_id)
            except IsothermError:
                log_id = None  # on its way up or down: the next look tells
        else:
            log_id = None
        screen.refresh(supervisor.statuses, lines)
        await asyncio.sleep(REFRESH_SECONDS)


async def _bound_broker(supervisor: Supervisor, screen: Screen, settings: Settings) -> None:
    """Start the embedded broker anew when its log, which it keeps in memory and never trims, has grown too large."""
    limit = settings.broker_memory_mib * 2**20
    while True:
        await asyncio.sleep(BROKER_CHECK_SECONDS)
        for status in supervisor.statuses:
            if status.part.name == "kafka" and status.state is State.READY and status.memory_bytes > limit:
                screen.says(f"kafka holds {status.memory_bytes / 2**20:.0f} MiB and starts anew; connectors pause")
                if not await supervisor.renew("kafka", lambda: _is_drained(settings)):
                    screen.says("the worker does not keep up: kafka goes on, and is looked at again later")


async def _is_drained(settings: Settings) -> bool:
    _, is_drained = await _drain(settings, RENEW_DRAIN_SECONDS)
    return is_drained


async def _stop(supervisor: Supervisor, settings: Settings) -> Mapping[str, ledger.Line]:
    """Stop from the devices towards the store, so that what was taken in is stored; returns the last ledger."""
    last: Mapping[str, ledger.Line] = {}
    for stages in _TOGETHER:
        if 2 in stages:
            last, _ = await _drain(settings, DRAIN_SECONDS)
        await supervisor.stop(stages, max(STAGE_SECONDS[stage] for stage in stages))
    return last


async def _drain(settings: Settings, seconds: float) -> tuple[Mapping[str, ledger.Line], bool]:
    """Wait until the analytics have taken everything in, and the store has it, for a bounded time.

    Returns:
        The last ledger, and whether it came to that.
    """
    deadline = time.monotonic() + seconds
    lines: Mapping[str, ledger.Line] = {}
    try:
        log_id = await kafka.cluster_id(settings)
        lines = await read_ledger(settings, log_id)
        async with kafka.Reader(settings) as log, client.connected(settings) as redis:
            while time.monotonic() < deadline:
                is_analysed = await _is_analysed(redis, log, log_id)
                lines = await ledger.read(redis, settings.partitions, log_id)
                if is_analysed and not any(line.in_flight for line in lines.values()):
                    return lines, True
                await asyncio.sleep(0.05)
    except Unavailable as error:
        _log.debug("not drained: %r", error)
    return lines, False


async def _is_analysed(redis: client.Client, log: kafka.Reader, log_id: str) -> bool:
    """Tell whether the analytics that run have taken in all that is on their topics."""
    for status in await Analytics(redis).running():
        store = AnalyticStore(redis, status.name, log_id)
        for partition, (first, following) in (await log.ends(TOPICS[status.topic])).items():
            progress = await store.progress(partition)
            if partition in status.partitions and following > (first if progress is None else progress.next):
                return False
    return True


async def read_ledger(settings: Settings, log_id: str) -> dict[str, ledger.Line]:
    """Read the ledger once.

    Raises:
        Unavailable: the store does not answer.
    """
    async with client.connected(settings) as redis:
        return await ledger.read(redis, settings.partitions, log_id)
