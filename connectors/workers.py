"""Several processes of one connector that share its port (SO_REUSEPORT), or the devices of an MQTT broker.

The kernel divides the connections among them; datagrams by the addresses and ports that they go between, so that what comes
from one endpoint, such as the blocks of a CoAP payload, comes to one process. MQTT connectors divide the devices by
themselves (`connectors.mqtt.division`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from connectors.mqtt.names import user_of_worker
from isotherm.errors import SettingsError
from isotherm.process import die_with_parent, stop_signal
from isotherm.settings import Settings

RESTART_SECONDS = 1.0
STOP_SECONDS = 30.0

log = logging.getLogger(__name__)


async def run_workers(protocol: str, count: int, settings: Settings) -> None:
    """Keep ``count`` processes running until SIGTERM or SIGINT, and stop them then.

    Each serves its health on a port of its own: the first on ISOTHERM_HEALTH_PORT, the next on the one after it.

    Raises:
        SettingsError: it is already said how MQTT connectors divide the work, and otherwise.
    """
    each = [settings_of(settings, protocol, number, count) for number in range(count)]
    stop = stop_signal()
    async with asyncio.TaskGroup() as tasks:
        keeping = [tasks.create_task(_keep(protocol, n, own), name=f"worker-{n}") for n, own in enumerate(each)]
        await stop.wait()
        for task in keeping:
            task.cancel()


def settings_of(settings: Settings, protocol: str, number: int, count: int) -> Settings:
    """Return the settings of worker ``number`` of ``count``.

    Raises:
        SettingsError: it is already said how MQTT connectors divide the work, and otherwise.
    """
    health_port = settings.health_port + number if settings.health_port else 0
    own: dict[str, object] = {"reuse_port": True, "health_port": health_port}
    if protocol == "mqtt":
        if settings.mqtt_shared or settings.mqtt_workers > 1:
            raise SettingsError(
                "--workers divides the devices by itself; unset ISOTHERM_MQTT_SHARED and ISOTHERM_MQTT_WORKERS, "
                "which are for connectors that are started one by one"
            )
        own |= {"mqtt_workers": count, "mqtt_worker": number}
        own |= {"mqtt_username": settings.mqtt_username and user_of_worker(settings.mqtt_username, number)}
    return settings.model_copy(update=own)


async def _keep(protocol: str, number: int, own: Settings) -> None:
    """Run one worker, and start it anew when it ends."""
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
