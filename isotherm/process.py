"""How a process of ours runs: one event loop, and a clean end on SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import math
import resource
import signal
import time
from collections.abc import Coroutine, Iterable
from multiprocessing import forkserver, resource_tracker
from typing import Any, TypeVar

LEFTOVER_SECONDS = 2.0
"""How long what libraries have left running may take to end."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15

_Answer = TypeVar("_Answer")

log = logging.getLogger(__name__)

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(number: signal.Signals) -> None:
    """In a child, between fork and exec: let the kernel end it with a signal when its parent is killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, number)


def set_name(name: str) -> None:
    """Let ``ps`` and ``top`` show this process, which was forked, under a name of its own; 15 characters of it."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15])


def end_fork_server() -> None:
    """End the two processes that multiprocessing has started beside ours, and wait for them: it would leave them to init."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    tracker = resource_tracker._resource_tracker
    if tracker._pid is not None:  # type: ignore[attr-defined]  # else it is that of who has forked us
        tracker._stop()  # type: ignore[attr-defined]


def raise_file_limit() -> int:
    """Let the process have as many connections as the system allows it; returns how many open files that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def end_at_interrupt() -> None:
    """Let Ctrl-C end this process at once and without a traceback, until `stop_signal`: nothing has been started yet."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_process(main: Coroutine[Any, Any, None]) -> None:
    """Run a process's main coroutine, and then end what libraries have left running.

    ``asyncio.run`` alone cancels that once, and waits for ever for what loses the cancellation (see `end`).
    """

    async def whole() -> bool:
        try:
            await main
        finally:
            own = asyncio.current_task()
            ended = await end((task for task in asyncio.all_tasks() if task is not own), LEFTOVER_SECONDS)
        return ended

    runner = asyncio.Runner()
    if runner.run(whole()):
        runner.close()


def run_command(work: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Run a command's coroutine and return what it does; Ctrl-C ends it, also where a library loses the cancellation.

    Raises:
        KeyboardInterrupt: it was ended.
    """

    async def whole() -> list[_Answer]:
        interrupted = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
        answers: list[_Answer] = []

        async def answer() -> None:
            answers.append(await work)

        await done_before(interrupted, answer())
        return answers

    answers = asyncio.run(whole())
    if not answers:
        raise KeyboardInterrupt
    return answers[0]


def stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM, SIGINT and SIGHUP (a closed terminal) set; call it inside the loop, once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    return stop


async def done_before(stop: asyncio.Event, work: Coroutine[Any, Any, Any]) -> bool:
    """Do something; returns False, and it may not be done, when ``stop`` was set first."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        await end((working, stopping), LEFTOVER_SECONDS)


async def end(tasks: Iterable[asyncio.Task[Any]], seconds: float = math.inf) -> bool:
    """Cancel tasks until they have ended; returns whether all did within ``seconds``.

    Once is not enough: ``asyncio.wait_for`` of Python 3.11 loses a cancellation that meets its result (cpython#86296), and
    libraries use it.
    """
    deadline = time.monotonic() + seconds
    pending = set(tasks)
    while pending and time.monotonic() < deadline:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)
    for task in pending:
        log.warning("a task does not end and is left behind: %r", task)
    return not pending
