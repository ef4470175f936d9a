"""The worker: what it takes for standing still."""

from __future__ import annotations

from typing import Any

from agents.worker import Worker
from isotherm.settings import Settings
from isotherm.store.writer import Progress
from isotherm.topics import READINGS


async def test_a_partition_is_where_the_store_says() -> None:
    async def progress(partition: int) -> Progress | None:
        return {0: Progress(7, ""), 1: None}[partition]

    never: Any = None
    worker = Worker(Settings(), "test", READINGS, never, progress)
    assert [await worker._position(partition) for partition in (0, 1)] == [7, 0]
