"""How a process of ours runs: one event loop, and a clean end on SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import ctypes
import signal
from collections.abc import Iterable

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(number: signal.Signals) -> None:
    """In a child, between fork and exec: let the kernel end it with a signal when its parent is killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, number)


def stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM, SIGINT and SIGHUP (a closed terminal) set; call it inside the loop, once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    return stop


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    Once is not enough: ``asyncio.wait_for`` of Python 3.11 loses a cancellation that meets its result (cpython#86296), and
    libraries use it.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)
