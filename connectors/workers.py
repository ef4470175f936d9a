"""Several processes of one connector that share its port (SO_REUSEPORT).

The kernel divides the connections among them; datagrams by the addresses and ports that they go between, so that what comes
from one endpoint, such as the blocks of a CoAP payload, comes to one process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from connectors.mqtt.names import client_id, of_worker
from isotherm.process import die_with_parent, stop_signal
from isotherm.settings import Settings

RESTART_SECONDS = 1.0
STOP_SECONDS = 30.0

log = logging.getLogger(__name__)


async def run_workers(protocol: str, count: int, settings: Settings) -> None:
    """Keep ``count`` processes running until SIGTERM or SIGINT, and stop them then.

    Each serves its health on a port of its own: the first on ISOTHERM_HEALTH_PORT, the next on the one after it.
    """
    stop = stop_signal()
    async with asyncio.TaskGroup() as tasks:
        keeping = [tasks.create_task(_keep(protocol, number, settings), name=f"worker-{number}") for number in range(count)]
        await stop.wait()
        for task in keeping:
            task.cancel()


async def _keep(protocol: str, number: int, settings: Settings) -> None:
    """Run one worker, and start it anew when it ends."""
    health_port = settings.health_port + number if settings.health_port else 0
    own = settings.model_copy(
        update={
            "reuse_port": True,
            "health_port": health_port,
            "mqtt_shared": True,
            "mqtt_client_id": of_worker(client_id(settings), number),
            "mqtt_username": settings.mqtt_username and of_worker(settings.mqtt_username, number),
        }
    )
    while True:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "isotherm", "connect", protocol),
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
