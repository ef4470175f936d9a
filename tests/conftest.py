"""What the tests share: which brokers there are, and tools that must be there."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.client import Client
from tests.support import apache_kafka, families
from tests.support.valkey import Valkey

EMBEDDED, APACHE = "embedded", "apache-kafka"

hypothesis.settings.register_profile("isotherm", deadline=None)  # how long an example takes depends on what else runs
hypothesis.settings.load_profile("isotherm")


def pytest_configure() -> None:
    """Take Ctrl-C: a shell that starts us in the background has it ignored, and what we start would ignore it as well."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Say which brokers are used."""
    reason = apache_kafka.available()
    return f"brokers: {EMBEDDED}, {APACHE}" if reason is None else f"brokers: {EMBEDDED} ({APACHE} is not: {reason})"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first, then those that make images and wait for them, then those of whole stacks, the longest."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    if not (item.get_closest_marker("servers") or item.get_closest_marker("browser")):
        return 0
    return {"infra": 1, "hosts": 1, "end_to_end": 2}.get(item.path.parent.name, 3)


def missing(reason: str) -> None:
    """Skip, or fail where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def tool() -> Callable[..., str]:
    """Finds a program by name, or skips the test."""

    def find(*names: str) -> str:
        path = os.environ.get("PATH", "") + ":/usr/sbin"
        for name in names:
            if found := shutil.which(name, path=path):
                return found
        missing(f"{' or '.join(names)} is not installed; see tests/prepare.sh")
        raise AssertionError

    return find


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apache_kafka.ApacheKafka]:
    """One Apache Kafka for the whole run."""
    if reason := apache_kafka.available():
        missing(reason)
    with apache_kafka.ApacheKafka(apache_kafka.LIBS, tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(params=[EMBEDDED, APACHE])
def broker_settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Settings of a stack on each broker: none for the embedded one."""
    if request.param == EMBEDDED:
        return {}
    if reason := apache_kafka.available():
        missing(reason)
    server = apache_kafka.ApacheKafka(apache_kafka.LIBS, tmp_path / "kafka")
    server.start()
    request.addfinalizer(server.stop)
    return {"kafka": server.bootstrap}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Valkey for the tests of a module."""
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
async def redis(server: Valkey) -> AsyncIterator[Client]:
    """A client of it, of which nothing is left of the test before."""
    server.empty()
    async with client.connected(Settings(redis=server.url)) as redis:
        yield redis
        await families.check(redis)
