"""How soon a command is answered over each protocol, and how soon very many devices are configured."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import psutil

from isotherm.cli.options import address
from isotherm.configuration import Rollouts
from isotherm.configuration.rollout import Targets
from isotherm.errors import IsothermError
from isotherm.process import end
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store import client

PROTOCOLS = ("tcp", "ws", "http", "mqtt", "coap")
WARM_UP = 5
"""Commands that are not counted: what is made once is made then."""

WAIT_SECONDS = 10
LOOK_SECONDS = 0.2
ROLLOUT_SECONDS = 300.0
AT_ONCE = 50


async def commands(settings: Settings, count: int, told: Callable[[str], None]) -> dict[str, Any]:
    """Send commands to a device of each protocol in turn, over the REST API; ms until each answer was back, p50, p95, p99.

    Args:
        settings: Of the stack.
        count: Commands to each device.
        told: Is told which protocol it is about.

    Raises:
        IsothermError: a command was not answered.
    """
    import aiohttp

    figures: dict[str, Any] = {}
    async with aiohttp.ClientSession(f"http://{settings.host}:{settings.web_port}") as web:
        for protocol in PROTOCOLS:
            told(protocol)
            device = f"bench-commands-{protocol}"
            async with client.connected(settings) as redis, _come(settings, protocol, device):
                await Registry(redis).note([device])
                waits = []
                for _ in range(WARM_UP + count):
                    began = time.perf_counter()
                    path = f"/api/v1/devices/{device}/commands?wait={WAIT_SECONDS}"
                    async with web.post(path, json={"name": "ping"}) as answer:
                        found = await answer.json()
                    if found.get("state") != "answered":
                        raise IsothermError(f"a command over {protocol} was not answered: {found}")
                    waits.append(time.perf_counter() - began)
                await Registry(redis).remove(device)
            shown = (np.percentile(waits[WARM_UP:], [50, 95, 99]) * 1e3).round(1).tolist()
            figures[f"{protocol}_ms"] = dict(zip(("p50", "p95", "p99"), shown, strict=True))
    return figures


async def configuration(settings: Settings, supervisor: int, count: int, told: Callable[[str, int], None]) -> dict[str, Any]:
    """Configure very many connected devices with one rollout; s until all have reported, and CPU ms a device.

    Args:
        settings: Of the stack.
        supervisor: Its process id.
        count: Devices, each with a TCP connection.
        told: Is told what is done and how many devices are so far.

    Raises:
        IsothermError: not all have reported within ROLLOUT_SECONDS.
    """
    from simulator.swarm import gather

    names = [f"bench-configuration-{number}" for number in range(count)]
    async with client.connected(settings) as redis:
        rollouts, registry = Rollouts(redis, settings.partitions), Registry(redis)
        await registry.note(names)
        began = time.monotonic()
        devices = await gather(settings.host, settings.tcp_port, names, lambda there: told("connecting", there))
        connected = time.monotonic() - began
        try:
            cpu, began = _cpu(supervisor), time.monotonic()
            rollout = await rollouts.begin(Targets(devices=["bench-configuration-*"]), {"interval": 5}, "bench")
            half = 0.0
            while (progress := await rollouts.progress(rollout.id)).applied < count:
                half = half or (time.monotonic() - began if progress.applied >= count / 2 else 0.0)
                told("configuring", progress.applied)
                if time.monotonic() - began > ROLLOUT_SECONDS:
                    raise IsothermError(f"{progress.applied} of {count} devices have reported: {progress}")
                await asyncio.sleep(LOOK_SECONDS)  # other processes' progress: there is no event to wait for
            took, spent = time.monotonic() - began, _cpu(supervisor) - cpu
        finally:
            for device in devices:
                device.close()
            for first in range(0, count, AT_ONCE):
                some = names[first : first + AT_ONCE]
                await asyncio.gather(*(registry.remove(name) for name in some))
                await asyncio.gather(*(rollouts.configurations.forget(name) for name in some))
                told("removing", first)
    return {
        "devices": count,
        "connected_s": round(connected, 1),
        "half_reported_s": round(half or took, 2),
        "all_reported_s": round(took, 2),
        "cpu_ms_per_device": round(spent / count * 1e3, 2),
    }


@asynccontextmanager
async def _come(settings: Settings, protocol: str, device: str) -> AsyncIterator[None]:
    """Have a device there that answers to ping, for the length of the block."""
    from simulator.publishers import Reading, create
    from simulator.thermostat import Thermostat

    if protocol == "ws":
        async with _websocket(settings, device):
            yield
        return
    at = {"tcp": settings.tcp_port, "http": settings.http_port, "coap": settings.coap_port}
    host, port = address(settings.mqtt) if protocol == "mqtt" else (settings.host, at[protocol])
    publisher = create(protocol, device, host, port, mqtt_version=settings.mqtt_version, controlled=Thermostat())
    try:
        await publisher.publish([Reading("temperature", time.time(), 20.0, "Cel", 1)])
        yield
    finally:
        await publisher.close()


@asynccontextmanager
async def _websocket(settings: Settings, device: str) -> AsyncIterator[None]:
    import aiohttp

    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://{settings.host}:{settings.http_port}/api/v1/ws") as socket,
    ):
        await socket.send_json({"hello": {"device": device, "commands": True}})

        async def obey() -> None:
            async for message in socket:
                said: Mapping[str, Any] = message.json()
                if "command" in said:
                    await socket.send_json({"reply": {"id": said["command"]["id"], "result": {"time": time.time()}}})

        obeying = asyncio.create_task(obey(), name="obey")
        try:
            yield
        finally:
            await end([obeying])


def _cpu(supervisor: int) -> float:
    """Return the CPU seconds that all parts of the stack have used."""
    used = 0.0
    for process in _parts(supervisor):
        with contextlib.suppress(psutil.NoSuchProcess):
            used += sum(process.cpu_times()[:2])
    return used


def _parts(supervisor: int) -> Sequence[psutil.Process]:
    return psutil.Process(supervisor).children(recursive=True)
