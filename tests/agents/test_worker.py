"""The worker: what it takes for standing still."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from agents import worker as module
from agents.worker import Worker
from isotherm.errors import IsothermError
from isotherm.settings import Settings
from isotherm.store.writer import Progress
from isotherm.topics import READINGS


async def test_a_partition_is_where_the_store_says() -> None:
    async def progress(partition: int) -> Progress | None:
        return {0: Progress(7, ""), 1: None}[partition]

    never: Any = None
    worker = Worker(Settings(), "test", READINGS, never, progress)
    assert [await worker._position(partition) for partition in (0, 1)] == [7, 0]


class Consumer:
    """Of a Faust application whose thread hangs: it says what it knows, and answers nothing."""

    def __init__(self) -> None:
        self.asked = 0

    def assignment(self) -> set[TP]:
        return {TP(READINGS.name, 0)}

    def highwater(self, at: TP) -> int:
        self.asked += 1
        assert self.asked > 1, "Partition is not assigned"
        return 10

    async def earliest_offsets(self, *partitions: TP) -> dict[TP, int]:
        await asyncio.Event().wait()
        return {}


async def test_one_that_hangs_ends_and_one_that_has_just_lost_a_partition_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(module, "STALL_SECONDS", 0.1)

    async def progress(partition: int) -> Progress | None:
        return Progress(7, "")

    never: Any = None
    worker = Worker(Settings(), "test", READINGS, never, progress)
    consumer = Consumer()
    monkeypatch.setattr(worker, "_app", SimpleNamespace(consumer=consumer))
    async with asyncio.timeout(10):
        with pytest.raises(IsothermError, match="partition 0 has 3 records and stands still at 7"):
            await worker._watch_progress()
    assert consumer.asked > 1
