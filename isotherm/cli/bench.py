"""``isotherm bench``: figures of the running local stack, taken with what the machine did beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import defaultdict
from typing import Annotated, Any

import msgspec
import psutil
import typer

from isotherm import kafka, stackfile
from isotherm.cli.options import AsJson, DataDir
from isotherm.errors import StackError
from isotherm.local.stack import read_ledger
from isotherm.settings import Settings

PROBE_SECONDS = 0.02
STORED_SECONDS = 120.0

app = typer.Typer(no_args_is_help=True, help="Measure the running local stack.")


@app.callback()
def main() -> None:
    """Measure the running local stack."""


@app.command()
def ingest(
    readings: Annotated[
        int, typer.Option(help="Readings to send, one a line, over one TCP connection.", min=1000)
    ] = 1_000_000,
    devices: Annotated[int, typer.Option(help="Devices that they belong to.", min=1)] = 2_000,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Send readings as fast as they are acknowledged, and wait until all are in the store.

    Prints readings a second and CPU µs a reading: of all processes of the stack together, and of each part. Start the stack
    with --no-simulator for figures of the load alone.
    """
    settings = Settings.load(data_dir=data_dir)
    found = stackfile.read(settings.data_dir)
    if found is None:
        raise StackError(f"no local stack runs in {settings.data_dir}: start one with `isotherm up --no-simulator`")
    figures = asyncio.run(_ingest(settings, found.pid, readings, devices))
    if as_json:
        print(msgspec.json.encode(figures).decode())
        return
    for name, value in figures.items():
        print(f"{name:24} {value}")


async def _ingest(settings: Settings, supervisor: int, readings: int, devices: int) -> dict[str, Any]:
    from rich.progress import Progress

    from simulator.load import lines, send

    chunks = list(lines(readings, devices, time.time()))
    log_id = await kafka.cluster_id(settings)
    before = (await read_ledger(settings, log_id)).get("tcp")
    goal = (before.stored if before else 0) + readings
    cpu = _cpu(supervisor)
    load = os.getloadavg()[0]
    began = time.monotonic()
    with Progress(transient=True) as bar:
        task = bar.add_task("acknowledged", total=readings)
        sent = await send(settings.host, settings.tcp_port, chunks, lambda done: bar.update(task, completed=done))
        async with asyncio.timeout(STORED_SECONDS):
            while (await read_ledger(settings, log_id))["tcp"].stored < goal:  # noqa: ASYNC110
                await asyncio.sleep(PROBE_SECONDS)  # another process's progress: there is no event to wait for
    seconds = time.monotonic() - began
    spent = {name: used - cpu.get(name, 0.0) for name, used in _cpu(supervisor).items()}
    return {
        "readings": readings,
        "devices": devices,
        "bytes_per_reading": round(sent.payload_bytes / readings, 1),
        "acknowledged_per_s": round(readings / sent.seconds),
        "readings_per_s": round(readings / seconds),
        "cpu_us_per_reading": round(sum(spent.values()) / readings * 1e6, 3),
        "cpu_us_by_part": {name: round(used / readings * 1e6, 3) for name, used in sorted(spent.items()) if used > 0},
        "cores": os.cpu_count(),
        "load_before": round(load, 2),
    }


def _cpu(supervisor: int) -> dict[str, float]:
    """Return the CPU seconds that each part of the stack has used, by the name of its program or command."""
    used: dict[str, float] = defaultdict(float)
    for process in psutil.Process(supervisor).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            arguments = process.cmdline()
            name = " ".join(arguments[3:5]) if "isotherm" in arguments[1:3] else process.name()
            used[name] += sum(process.cpu_times()[:2])
    return dict(used)
