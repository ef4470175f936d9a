"""A Kafka for the modules that need one: they import this fixture."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from isotherm.kafka import ensure_topics
from isotherm.settings import Settings
from tests.support.tansu import Tansu


@pytest.fixture(scope="module")
def kafka() -> Iterator[str]:
    """Give the address of an embedded broker with our topics."""
    with Tansu() as server:
        asyncio.run(ensure_topics(Settings(kafka=server.bootstrap)))
        yield server.bootstrap
