"""What the tests share: which brokers there are, and tools that must be there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import apache_kafka

EMBEDDED, APACHE = "embedded", "apache-kafka"


def pytest_report_header() -> str:
    """Say which brokers are used."""
    reason = apache_kafka.available()
    return f"brokers: {EMBEDDED}, {APACHE}" if reason is None else f"brokers: {EMBEDDED} ({APACHE} is not: {reason})"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first."""
    items.sort(key=lambda item: sum(item.get_closest_marker(name) is not None for name in ("servers", "browser")))


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
