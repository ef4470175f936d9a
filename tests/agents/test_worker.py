"""The worker: what it takes for standing still."""

from __future__ import annotations

from typing import Any

from agents.worker import Worker
from isotherm.settings import Settings
from isotherm.store.writer import Progress


class Store:
    """Says how far a partition is, as `isotherm.store.writer.Writer` does."""

    async def progress(self, partition: int) -> Progress | None:
        return {0: Progress(7, ""), 1: None}[partition]


async def test_a_partition_is_where_the_store_says() -> None:
    nothing: Any = None
    store: Any = Store()
    worker = Worker(Settings(), store, [], nothing)
    assert [await worker._position(partition) for partition in (0, 1)] == [7, 0]
