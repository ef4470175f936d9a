"""How a process ends, whatever libraries have left running."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import pytest

from isotherm import process
from isotherm.process import run_command


async def _loses(cancellations: int) -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not cancellations:
                raise
            cancellations -= 1


def test_a_process_ends_although_a_task_loses_its_cancellation() -> None:
    left: list[asyncio.Task[None]] = []

    async def main() -> None:
        left.append(asyncio.create_task(_loses(3)))
        await asyncio.sleep(0)

    process.run_process(main())
    assert left[0].cancelled()


def test_a_task_that_never_ends_is_left_behind(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(process, "LEFTOVER_SECONDS", 0.2)
    left: list[asyncio.Task[None]] = []

    async def main() -> None:
        left.append(asyncio.create_task(_loses(1_000_000), name="stubborn"))
        await asyncio.sleep(0)

    process.run_process(main())
    assert not left[0].done()
    assert "stubborn" in caplog.text


async def test_work_is_done_unless_it_is_stopped_first() -> None:
    stop = asyncio.Event()
    assert await process.done_before(stop, asyncio.sleep(0))
    asyncio.get_running_loop().call_soon(stop.set)
    assert not await process.done_before(stop, asyncio.Event().wait())


async def test_work_that_fails_says_so() -> None:
    async def fail() -> None:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        await process.done_before(asyncio.Event(), fail())


def test_ctrl_c_ends_a_command_though_a_library_loses_the_cancellation() -> None:
    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        run_command(work())


def test_a_command_returns_what_it_does() -> None:
    assert run_command(asyncio.sleep(0, "done")) == "done"
