"""How many workers of an analytic there may be."""

from __future__ import annotations

import re

import pytest

from agents import runner
from isotherm.analytics import Analytics, Status
from isotherm.clock import now_us
from isotherm.errors import SettingsError
from isotherm.store.client import Client


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "FRESH_US", 0)  # how long a worker is waited for that may have been killed


async def report(redis: Client, workers: int, **fields: object) -> None:
    for number in range(workers):
        status = {"name": "mine", "state": "running", "at": now_us(), **fields}
        await Analytics(redis).report(Status(instance=str(number), **status))  # type: ignore[arg-type]


async def test_one_more_worker_than_partitions_is_refused_with_the_reason(redis: Client) -> None:
    await report(redis, 8)
    with pytest.raises(SettingsError, match=re.escape("8 workers run mine already, one for each of the 8 partitions")):
        await runner._refuse_one_too_many(redis, "mine", 8)


@pytest.mark.parametrize(
    ("workers", "fields"),
    [
        (7, {}),
        (8, {"name": "another"}),
        (8, {"state": "starting"}),
        (8, {"at": 1}),  # they were killed
    ],
)
async def test_a_worker_that_finds_a_partition_may_run(redis: Client, workers: int, fields: dict[str, object]) -> None:
    await report(redis, workers, **fields)
    await runner._refuse_one_too_many(redis, "mine", 8)
