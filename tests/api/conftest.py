"""A web process with something in its store, and programs that use its API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import aiohttp
import pytest

from isotherm.accounts.accounts import Actor
from isotherm.clock import now_us
from isotherm.limits import SECOND
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store import client as stores
from tests.api.program import Program
from tests.dashboards.alarming import Alarming
from tests.dashboards.people import register
from tests.dashboards.stack import Filler, Web
from tests.dashboards.test_access import kernel
from tests.support.ports import free_port
from tests.support.valkey import Valkey

Login = Callable[..., Awaitable[Program]]

HOT = "hot/room-1/temperature"


@pytest.fixture(scope="module")
def kafka() -> Iterator[str]:
    """Give the address of a Kafka that is away; modules that need one have their own."""
    yield "127.0.0.1:1"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, kafka: str) -> Iterator[Settings]:
    directory = tmp_path_factory.mktemp("api")
    with Valkey(directory / "valkey") as valkey:
        made = Settings.load(
            data_dir=directory,
            redis=valkey.url,
            web_port=free_port(),
            kafka=kafka,
            login="required",
            api_rate=100_000.0,
            api_burst=1_000_000,
        )
        yield made


@pytest.fixture(scope="module")
def filler(settings: Settings) -> Filler:
    filler = Filler(settings)
    asyncio.run(fill(settings, filler))
    return filler


@pytest.fixture(scope="module")
def web(settings: Settings, filler: Filler) -> Iterator[Web]:
    with Web(settings) as process:
        yield process


async def fill(settings: Settings, filler: Filler) -> None:
    """Five rooms with a minute of temperatures, an alarm in one of them, and people of all roles."""
    now = now_us()
    points = [(now - at * SECOND, 20.0 + at % 7) for at in range(60, 0, -1)]
    series = {f"room-{number}/temperature": points for number in range(5)}
    await filler.write(series, dict.fromkeys(series, "Cel"))
    alarming = Alarming(settings)
    await alarming.keep_rules()
    await alarming.say("room-1/temperature", 35.0, unit="Cel")
    async with stores.connected(settings) as redis:
        await Registry(redis).note([f"room-{number}" for number in range(5)])
    await register(settings)


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def login(settings: Settings, web: Web, client: aiohttp.ClientSession) -> Login:
    """Return what makes a program with a token of a user."""

    async def begin(user: str, *scopes: str) -> Program:
        async with kernel(settings) as accounts:
            token, _ = await accounts.create_token(user, "a test", scopes, 1, Actor("test", "cli"))
        return Program(client, web.url, token)

    return begin
