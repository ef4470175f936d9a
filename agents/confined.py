"""Other people's code in a process that can be ended, with all that it starts: bounded in time and memory, and silent."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, TypeVar

import psutil

from agents import loader
from isotherm.errors import AnalyticFailed, IsothermError

CPU_SECONDS = 10
WALL_SECONDS = 30
LOOPS_SECONDS = 2.0
"""Of CPU time: what waits uses less until the wall time is over."""
MEMORY_BYTES = 4 * 2**30

_Answer = TypeVar("_Answer")


def confined(context: ForkServerContext, path: Path, work: Callable[..., _Answer], *arguments: Any) -> _Answer:
    """Do something with an analytic's file in a process of its own, and return what comes of it.

    Args:
        context: Forks the process.
        path: The file; of a traceback only what is in it is told.
        work: A function of a module of ours; its arguments and its answer can be pickled.
        arguments: Of it.

    Raises:
        AnalyticFailed: it raised, ended its process, or did not come back.
        IsothermError: as ``work`` raises it.
    """
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(path, work, arguments, theirs), name=f"trial-{path.stem}", daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(WALL_SECONDS):
            raise AnalyticFailed(_how_it_goes_on(process.pid))
        answer = ours.recv()
    except EOFError:
        process.join(1)
        raise AnalyticFailed(_how_it_ended(process.exitcode)) from None
    finally:
        _end_all(process.pid)
        process.join()
        process.close()
        ours.close()
    if isinstance(answer, IsothermError):
        raise answer
    return answer  # type: ignore[no-any-return]


def _main(path: Path, work: Callable[..., Any], arguments: tuple[Any, ...], pipe: Connection) -> None:
    os.setsid()  # so that all that it starts can be ended with it
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        answer = work(*arguments)
    except IsothermError as error:
        answer = error
    except BaseException as error:  # noqa: BLE001 - it is an analytic's code: whatever it raises is the outcome
        answer = AnalyticFailed(loader.trimmed(error, path))
    pipe.send(answer)


def _end_all(group: int | None) -> None:
    """Kill a process and what it has started; it leads a group of its own as soon as it runs."""
    for kill in (os.killpg, os.kill):
        try:
            if group is not None:
                kill(group, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _how_it_goes_on(pid: int | None) -> str:
    """Say what a process does that took too long; on a busy machine a loop without end has had little of the CPU."""
    try:
        used = sum(psutil.Process(pid).cpu_times()[:2])
    except psutil.Error:
        used = 0.0
    question = "is there a loop without end?" if used > LOOPS_SECONDS else "does it wait for something?"
    return f"it did not end within {WALL_SECONDS} s, with {used:.1f} s of CPU time: {question}"


def _how_it_ended(code: int | None) -> str:
    if code is not None and code >= 0:
        return f"it ended its own process, with code {code}"
    return f"it took more than {CPU_SECONDS} s of CPU time, or crashed: is there a loop without end?"
