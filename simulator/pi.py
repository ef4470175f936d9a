"""A Raspberry Pi's real sensor: DS18B20 on the 1-wire bus, or the processor's own temperature.

    python -m simulator.pi --target my-server:7301 --device attic

Runs with the standard library alone over TCP; MQTT needs ``gmqtt``, CoAP ``aiocoap``. Enable 1-wire with
``dtoverlay=w1-gpio``; the kernel then lists each DS18B20 under ``/sys/bus/w1/devices/28-*``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from simulator.publishers import NotAcknowledged, Reading, create, first_number

W1_DEVICES = Path("/sys/bus/w1/devices")
CPU_TEMPERATURE = Path("/sys/class/thermal/thermal_zone0/temp")
MAX_BACKLOG = 100_000
"""Readings kept while the server is away: more than a day at one a second."""

_W1_VALUE = re.compile(r"crc=\S+ YES.*\bt=(-?\d+)", re.DOTALL)
_POWER_ON_RESET_C = 85.0
"""What a DS18B20 says before its first conversion (data sheet, table 1)."""


def read_sensors(w1_devices: Path = W1_DEVICES, cpu: Path = CPU_TEMPERATURE) -> list[tuple[str, float]]:
    """Return (metric, °C) of each DS18B20 with a valid checksum; when there is none, of the processor."""
    found = []
    sensors = sorted(w1_devices.glob("28-*/w1_slave"))
    for path in sensors:
        match = _W1_VALUE.search(_text(path))
        if match and (value := int(match[1]) / 1000) != _POWER_ON_RESET_C:
            suffix = "" if len(sensors) == 1 else f"-{path.parent.name}"
            found.append((f"temperature{suffix}", value))
    if not sensors and (text := _text(cpu).strip()):
        found.append(("cpu_temperature", int(text) / 1000))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        print(f"cannot read {path}: {error}", file=sys.stderr)
        return ""


async def publish(options: argparse.Namespace, stop: asyncio.Event) -> None:
    """Read and send until stopped; what the server has not acknowledged is kept and sent again."""
    host, _, port = options.target.rpartition(":")
    publisher = create(
        options.protocol, options.device, host, int(port), mqtt_version=options.mqtt_version, token=options.token
    )
    backlog: list[Reading] = []
    numbers = count(first_number())
    while not stop.is_set():
        now = time.time()
        number = next(numbers)
        backlog += (Reading(metric, now, value, "Cel", number) for metric, value in read_sensors())
        del backlog[:-MAX_BACKLOG]
        try:
            while backlog:
                if refused := await publisher.publish(backlog[:500]):
                    print(f"the server refused {refused} readings of {options.device}", file=sys.stderr)
                del backlog[:500]
        except NotAcknowledged as error:
            print(f"not acknowledged, {len(backlog)} readings kept: {error}", file=sys.stderr)
        try:
            async with asyncio.timeout(max(0.0, now + options.interval - time.time())):
                await stop.wait()
        except TimeoutError:
            continue
    await publisher.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, metavar="HOST:PORT", help="where the connector listens")
    parser.add_argument("--protocol", choices=("tcp", "mqtt", "coap"), default="tcp")
    parser.add_argument("--device", default=socket.gethostname(), help="device name (default: the host's name)")
    parser.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="time between readings (default: 1)")
    parser.add_argument("--token", default=os.environ.get("ISOTHERM_TOKEN"), help="the device's (default: $ISOTHERM_TOKEN)")
    parser.add_argument("--mqtt-version", choices=("5", "3.1.1"), default="3.1.1")
    options = parser.parse_args(arguments)
    if not re.fullmatch(r"\S+:\d+", options.target) or not 0 < int(options.target.rpartition(":")[2]) < 65536:
        parser.error(f"--target is {options.target!r}, expected HOST:PORT")
    if not 0 < options.interval < 86_400:
        parser.error(f"--interval is {options.interval}, expected more than 0 and less than a day")
    if not read_sensors():
        parser.exit(1, f"no sensor: neither {W1_DEVICES}/28-*/w1_slave nor {CPU_TEMPERATURE} gives a value\n")

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await publish(options, stop)

    asyncio.run(run())


if __name__ == "__main__":
    main()
