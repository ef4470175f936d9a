from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from isotherm.settings import Settings
from tests.dashboards.stack import Filler, Web
from tests.support import chromium as browsers
from tests.support.chromium import Browser
from tests.support.ports import free_port
from tests.support.valkey import Valkey


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, valkey: Valkey) -> Settings:
    return Settings.load(data_dir=tmp_path, redis=valkey.url, web_port=free_port(), login="auto")


@pytest.fixture
def filler(settings: Settings) -> Filler:
    return Filler(settings)


@pytest.fixture
def web(settings: Settings) -> Iterator[Web]:
    with Web(settings) as process:
        yield process


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if missing := browsers.available():
        pytest.skip(missing)
    async with browsers.chromium() as one:
        yield one
