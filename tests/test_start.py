"""A process that starts together with its servers."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path

import pytest

from isotherm import kafka
from isotherm.process import run_process
from isotherm.settings import Settings
from isotherm.start import store_answered, when_servers_answer
from tests.support.ports import free_port
from tests.support.tansu import Tansu
from tests.support.valkey import Valkey

pytestmark = pytest.mark.servers


class Ran(Exception):
    """The main coroutine was run."""


async def main() -> None:
    raise Ran


def nowhere(tmp_path: Path, seconds: float) -> Settings:
    """Settings whose servers are not there."""
    return Settings(
        data_dir=tmp_path,
        redis=f"redis://127.0.0.1:{free_port()}/0",
        kafka=f"127.0.0.1:{free_port()}",
        start_seconds=seconds,
    )


async def said(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """Return when it was logged."""
    while text not in caplog.text:  # noqa: ASYNC110 # nothing tells
        await asyncio.sleep(0.01)


async def test_it_waits_until_both_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    store, broker = Valkey(tmp_path), Tansu()
    settings = Settings(data_dir=tmp_path, redis=store.url, kafka=broker.bootstrap, start_seconds=60)
    running = asyncio.create_task(when_servers_answer(settings, main()))
    await said("waiting: the store", caplog)
    with store:
        await said("waiting: Kafka", caplog)
        assert not running.done()
        with broker, pytest.raises(Ran):
            await running


async def test_it_waits_for_brokers_as_many_as_the_topics_need_unless_these_are_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Valkey(tmp_path) as store, Tansu() as broker:
        settings = Settings(
            data_dir=tmp_path, redis=store.url, kafka=broker.bootstrap, replication=3, partitions=2, start_seconds=60
        )
        running = asyncio.create_task(when_servers_answer(settings, main()))
        await said("has 1 broker, ISOTHERM_REPLICATION is 3", caplog)
        assert not running.done()
        await kafka.ensure_topics(settings.model_copy(update={"replication": 1}))
        with pytest.raises(Ran):
            await running


async def test_who_needs_the_store_alone_waits_for_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    store = Valkey(tmp_path)
    waiting = asyncio.create_task(store_answered(nowhere(tmp_path, 60).model_copy(update={"redis": store.url})))
    await said("waiting: the store", caplog)
    with store:
        await waiting


async def test_it_runs_when_the_time_is_over_and_says_then_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(Ran):
        await when_servers_answer(nowhere(tmp_path, 0.1), main())


async def test_it_does_not_wait_where_that_was_not_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Ran):
        await when_servers_answer(nowhere(tmp_path, 0), main())
    assert "waiting" not in caplog.text


def test_a_signal_ends_it_while_it_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def end_when_it_waits() -> None:
        waiting = asyncio.create_task(when_servers_answer(nowhere(tmp_path, 60), main()))
        await said("waiting", caplog)
        os.kill(os.getpid(), signal.SIGTERM)
        await waiting

    run_process(end_when_it_waits())
