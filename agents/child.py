"""The process of one analytic, as its host starts it: forked from a server that has imported everything already."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import MutableSequence
from multiprocessing.connection import Connection

from agents import runner
from agents.runner import Job
from isotherm import logs
from isotherm.errors import IsothermError, first_of
from isotherm.process import die_with_parent, run_process, set_name, stop_signal
from isotherm.settings import Settings

BEAT_SECONDS = 1.0

log = logging.getLogger(__name__)


def main(job: Job, settings: Settings, pipe: Connection, at: MutableSequence[int]) -> None:
    """Run an analytic until SIGTERM.

    On the pipe comes None every second, as long as it does not hang, a `Status` when there is one, and at last the text of
    the error that ended it, if one did.
    """
    die_with_parent(signal.SIGKILL)
    set_name(job.name)
    logs.configure(settings, job.name)

    async def work() -> None:
        beating = asyncio.create_task(_beat(pipe), name="beat")
        try:
            await runner.run(settings, job, stop_signal(), pipe.send, at)
        finally:
            beating.cancel()

    try:
        run_process(work())
    except* IsothermError as group:
        error = first_of(group)
        log.error("%s", error)
        pipe.send(str(error))
        sys.exit(1)
    except* BrokenPipeError:
        log.error("the host is gone")
        sys.exit(1)


async def _beat(pipe: Connection) -> None:
    while True:
        pipe.send(None)
        await asyncio.sleep(BEAT_SECONDS)
