"""What runs virtual hosts: what both have in common."""

from __future__ import annotations

import asyncio

import pytest

from isotherm.hosts import HostsUnusable, backend_of
from isotherm.hosts.backend import to_the_end
from isotherm.settings import Settings


async def test_work_that_must_end_ends_however_often_it_is_cancelled() -> None:
    begun, may_end, ended = asyncio.Event(), asyncio.Event(), False

    async def work() -> None:
        nonlocal ended
        begun.set()
        await may_end.wait()
        ended = True

    task = asyncio.create_task(to_the_end(work()))
    await begun.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended


def test_where_hosts_are_off_it_is_said_how_to_have_them() -> None:
    with pytest.raises(HostsUnusable, match="set ISOTHERM_HOSTS to podman"):
        backend_of(Settings(hosts="off"))
