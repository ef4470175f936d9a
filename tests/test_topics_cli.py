"""``isotherm topics``: what the topic-creation job of a cluster runs."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from isotherm import kafka
from isotherm.errors import SettingsError
from isotherm.settings import Settings
from isotherm.topics import ALL, READINGS
from tests.conftest import missing
from tests.support import apache_kafka
from tests.support.stack import ISOTHERM
from tests.support.tansu import Tansu

pytestmark = pytest.mark.servers


def environment(bootstrap: str, directory: Path, **settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ISOTHERM_")}
    named = {f"ISOTHERM_{name.upper()}": value for name, value in settings.items()}
    return {**kept, "ISOTHERM_KAFKA": bootstrap, "ISOTHERM_DATA_DIR": str(directory), **named}


def topics(
    bootstrap: str, directory: Path, *options: str, code: int = 0, **settings: str
) -> subprocess.CompletedProcess[str]:
    shown = subprocess.run(
        [*ISOTHERM, "topics", *options],
        env=environment(bootstrap, directory, **settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert shown.returncode == code, shown.stderr
    return shown


def expected(partitions: int, replicas: int, in_sync: int) -> list[dict[str, Any]]:
    return [
        {
            "name": topic.name,
            "partitions": partitions,
            "replicas": replicas,
            "in_sync": replicas,
            "min_in_sync": in_sync,
            "retention_seconds": topic.retention // 1_000_000,
        }
        for topic in ALL
    ]


class TestEmbeddedBroker:
    def test_it_creates_what_is_missing_and_tells_what_there_is(self, tmp_path: Path) -> None:
        with Tansu() as broker:
            made = topics(broker.bootstrap, tmp_path, "--json", partitions="4").stdout
            assert json.loads(made) == expected(4, 1, 1)
            assert topics(broker.bootstrap, tmp_path, "--json", partitions="4").stdout == made
            assert "readings  4           1" in topics(broker.bootstrap, tmp_path, partitions="4").stdout

    def test_another_number_of_partitions_is_refused(self, tmp_path: Path) -> None:
        with Tansu() as broker:
            topics(broker.bootstrap, tmp_path, partitions="4")
            refused = topics(broker.bootstrap, tmp_path, code=1)
        assert refused.stderr.startswith("isotherm: topic readings has 4 partitions, ISOTHERM_PARTITIONS is 8; set it to")

    def test_too_few_brokers_are_refused_before_anything_is_created(self, tmp_path: Path) -> None:
        with Tansu() as broker:
            refused = topics(broker.bootstrap, tmp_path, code=1, replication="3")
            assert asyncio.run(kafka.describe_topics(Settings(kafka=broker.bootstrap))) == []
        assert "has 1 broker, ISOTHERM_REPLICATION is 3; start the others, or set it to 1 or less" in refused.stderr

    def test_a_kafka_that_does_not_come_is_named_and_nothing_else_is_said(self, tmp_path: Path) -> None:
        refused = topics("127.0.0.1:1", tmp_path, "--wait", "1", code=1)
        assert refused.stderr.startswith("isotherm: Kafka at 127.0.0.1:1 does not answer")

    def test_it_waits_for_a_kafka_that_comes(self, tmp_path: Path) -> None:
        broker = Tansu()
        host, port = broker.bootstrap.split(":")
        with socket.create_server((host, int(port))) as nobody:
            command = [*ISOTHERM, "topics", "--wait", "60", "--json"]
            waiting = subprocess.Popen(
                command,
                env=environment(broker.bootstrap, tmp_path),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            nobody.settimeout(60)
            nobody.accept()[0].close()  # it has tried once
        with broker:
            output, errors = waiting.communicate(timeout=90)
        assert (waiting.returncode, errors) == (0, "")
        assert json.loads(output) == expected(8, 1, 1)


class TestApacheKafka:
    def test_too_few_brokers_are_refused_then_topics_are_created(self, tmp_path: Path) -> None:
        _needs_kafka()
        with apache_kafka.ApacheKafka(apache_kafka.LIBS, tmp_path / "kafka") as alone:
            settings = Settings(kafka=alone.bootstrap, replication=2)
            with pytest.raises(SettingsError, match="has 1 broker, ISOTHERM_REPLICATION is 2"):
                asyncio.run(kafka.ensure_topics(settings))
            assert asyncio.run(kafka.describe_topics(settings)) == []
            assert json.loads(topics(alone.bootstrap, tmp_path, "--json", partitions="3").stdout) == expected(3, 1, 1)
            assert "readings has 3 partitions" in topics(alone.bootstrap, tmp_path, code=1).stderr

    @pytest.mark.skipif("ISOTHERM_CHAOS_SECONDS" not in os.environ, reason="two brokers take half a minute: make chaos")
    def test_it_waits_for_all_brokers_and_all_replicas_but_one_must_have_a_record(self, tmp_path: Path) -> None:
        _needs_kafka()
        cluster = apache_kafka.ApacheKafkaCluster(apache_kafka.LIBS, tmp_path / "kafka", 2)
        command = [*ISOTHERM, "topics", "--wait", "120", "--json"]
        with subprocess.Popen(
            command,
            env=environment(cluster.bootstrap, tmp_path, replication="2", partitions="3"),
            stdout=subprocess.PIPE,
            text=True,
        ) as waiting:
            try:
                with cluster:
                    output, _ = waiting.communicate(timeout=150)
                    assert json.loads(output) == expected(3, 2, 1)
                    refused = topics(cluster.bootstrap, tmp_path, code=1, replication="3", partitions="3")
                    assert "has 2 brokers, ISOTHERM_REPLICATION is 3" in refused.stderr
            finally:
                waiting.kill()


def _needs_kafka() -> None:
    if reason := apache_kafka.available():
        missing(reason)


@pytest.mark.parametrize(("replicas", "needed"), [(1, None), (2, "1"), (3, "2")])
def test_of_several_replicas_all_but_one_must_have_a_record(replicas: int, needed: str | None) -> None:
    topic = kafka._new_topic(Settings(replication=replicas), READINGS)
    assert topic.topic_configs.get("min.insync.replicas") == needed
