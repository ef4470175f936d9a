"""Several processes of one command that share a port (SO_REUSEPORT), or divide the work in another way."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

from isotherm.process import die_with_parent, stop_signal
from isotherm.settings import Settings

RESTART_SECONDS = 1.0
STOP_SECONDS = 30.0

log = logging.getLogger(__name__)


async def run_workers(command: Sequence[str], each: Sequence[Settings]) -> None:
    """Keep a process of ``isotherm COMMAND`` running for each of some settings, until SIGTERM or SIGINT."""
    stop = stop_signal()
    async with asyncio.TaskGroup() as tasks:
        keeping = [tasks.create_task(_keep(command, n, own), name=f"worker-{n}") for n, own in enumerate(each)]
        await stop.wait()
        for task in keeping:
            task.cancel()


def sharing_a_port(settings: Settings, count: int) -> list[Settings]:
    """Return the settings of processes that share a port; each serves its health on a port of its own.

    The first does on ISOTHERM_HEALTH_PORT, the next on the one after it.
    """
    ports = [settings.health_port + number if settings.health_port else 0 for number in range(count)]
    return [settings.model_copy(update={"reuse_port": True, "health_port": port}) for port in ports]


async def _keep(command: Sequence[str], number: int, own: Settings) -> None:
    """Run one worker, and start it anew when it ends."""
    while True:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "isotherm", *command),
            env={**os.environ, **own.environment()},
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        )
        try:
            code = await process.wait()
        finally:
            await _stop(process)
        log.error("worker %d ended with code %s and is started anew", number, code)
        await asyncio.sleep(RESTART_SECONDS)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
