"""Kafka, as the pipeline uses it, on each broker that it runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiokafka.errors import UnknownError
from aiokafka.protocol import transaction

from isotherm import kafka
from isotherm.errors import Unavailable
from isotherm.kafka import Producer
from isotherm.settings import Settings
from tests.contracts.broker import BrokerContract
from tests.support.apache_kafka import ApacheKafka
from tests.support.tansu import Tansu

pytestmark = pytest.mark.servers


class TestEmbeddedBroker(BrokerContract):
    @pytest.fixture(scope="class")
    @classmethod
    def bootstrap(cls) -> Iterator[str]:
        with Tansu() as broker:
            yield broker.bootstrap


class TestApacheKafka(BrokerContract):
    @pytest.fixture
    def bootstrap(self, kafka_server: ApacheKafka) -> str:
        return kafka_server.bootstrap


async def test_a_broker_that_is_not_there_is_named_within_seconds() -> None:
    async with asyncio.timeout(30):
        with pytest.raises(Unavailable, match=r"Kafka at 127\.0\.0\.1:1 does not answer"):
            await kafka.ensure_topics(Settings(kafka="127.0.0.1:1"))


async def test_each_start_of_the_embedded_broker_is_another_log() -> None:
    ids = set()
    for _ in range(2):
        with Tansu() as broker:
            ids.add(await kafka.cluster_id(Settings(kafka=broker.bootstrap)))
    assert len(ids) == 2


async def test_the_embedded_broker_still_needs_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, `isotherm/aiokafka_mend.py` can go."""
    monkeypatch.setattr(transaction.InitProducerIdRequest, "_CLASSES", (transaction.InitProducerIdRequest_v0,))
    with Tansu() as broker, pytest.raises(Unavailable) as caught:
        await Producer(Settings(kafka=broker.bootstrap), "test").start()
    assert isinstance(caught.value.__cause__, UnknownError)
