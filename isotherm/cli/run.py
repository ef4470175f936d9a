"""Commands that run something: up, connect, worker, web, simulate."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Annotated, Any

import msgspec
import typer

from isotherm import logs
from isotherm.cli.devices import register_fleet
from isotherm.cli.options import AsJson, DataDir, address
from isotherm.process import done_before, end_at_interrupt, run_process, stop_signal
from isotherm.settings import Settings


def up(
    seconds: Annotated[float | None, typer.Option("--for", help="Stop so many seconds after all is ready.", min=0)] = None,
    devices: Annotated[int, typer.Option(help="Simulated devices; they share the protocols.", min=1)] = 25,
    rate: Annotated[float, typer.Option(help="Readings a second of each device.", min=0.001, max=10_000)] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the simulated fleet.")] = 1,
    simulator: Annotated[bool, typer.Option(help="Whether to simulate devices.")] = True,
    port_base: Annotated[int, typer.Option(help="First of the consecutive ports.")] = 7300,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole stack on this machine: broker, store, connectors, worker, dashboards and a simulated fleet."""
    end_at_interrupt()
    from isotherm.local import screen, stack
    from isotherm.local.parts import Fleet

    settings = Settings.load(data_dir=data_dir)
    logs.configure(settings.model_copy(update={"log_level": "ERROR"}), "up")
    fleet = Fleet(devices, rate, seed) if simulator else None
    asyncio.run(stack.up(settings, stack.Request(port_base, fleet, seconds), screen.choose(as_json=as_json)))


def connect(
    protocol: Annotated[str, typer.Argument(help="tcp, http, mqtt, coap, or a Python file with a connector of your own")],
    workers: Annotated[
        int,
        typer.Option(help="Processes that share the port (tcp, http, coap) or divide the devices (mqtt).", min=1, max=64),
    ] = 1,
) -> None:
    """Run one connector."""
    end_at_interrupt()
    from connectors import process
    from connectors.workers import settings_of_workers
    from isotherm.start import when_servers_answer
    from isotherm.workers import run_workers

    name, listening = process.find(protocol)
    settings = Settings.load()
    logs.configure(settings, name)
    if workers > 1:
        run_process(run_workers(["connect", protocol], settings_of_workers(settings, protocol, workers)))
    else:
        run_process(when_servers_answer(settings, process.run(name, listening, settings)))


def worker() -> None:
    """Run a worker: it brings the readings on Kafka into the store."""
    end_at_interrupt()
    from agents.storing import run
    from isotherm.start import when_servers_answer

    settings = Settings.load()
    logs.configure(settings, "worker")
    run_process(when_servers_answer(settings, run(settings)))


def web(
    workers: Annotated[int, typer.Option(help="Processes that share the port: one a core.", min=1, max=64)] = 1,
) -> None:
    """Run the dashboards."""
    end_at_interrupt()
    from dashboards.process import run
    from isotherm.workers import run_workers, sharing_a_port

    settings = Settings.load()
    logs.configure(settings, "web")
    if workers > 1:
        run_process(run_workers(["web"], sharing_a_port(settings, workers)))
    else:
        run_process(run(settings))


def simulate(
    protocol: Annotated[str, typer.Option(help="tcp, http, mqtt or coap")] = "tcp",
    devices: Annotated[int, typer.Option(help="Number of devices.", min=1)] = 10,
    rate: Annotated[float, typer.Option(help="Readings a second of each device.", min=0.001, max=10_000)] = 1.0,
    seconds: Annotated[float | None, typer.Option("--for", help="Seconds to send for; else until Ctrl-C.", min=0)] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same fleet.")] = 1,
    target: Annotated[str | None, typer.Option(help="HOST:PORT; else the running local stack's.")] = None,
    integers: Annotated[bool, typer.Option("--integers", help="Send 0, 1, 2, … so that sums are exact.")] = False,
    first: Annotated[int, typer.Option(help="Number of the first device, from 0.", min=0)] = 0,
    stride: Annotated[int, typer.Option(help="Step between device numbers.", min=1)] = 1,
    token: Annotated[str | None, typer.Option(help="Of a gateway that may speak for the devices.")] = None,
    user: Annotated[str | None, typer.Option(help="With MQTT, the gateway whose token it is.")] = None,
    register: Annotated[bool, typer.Option("--register", help="Register the devices first, behind a gateway.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Send a simulated fleet's room temperatures, and say what was sent and acknowledged."""
    end_at_interrupt()
    from isotherm.start import store_answered
    from simulator.firmware import over_coap, over_http
    from simulator.fleet import Account, Plan
    from simulator.fleet import run as run_fleet
    from simulator.publishers import create
    from simulator.room import Room

    settings = Settings.load(data_dir=data_dir)
    targets = {
        "tcp": f"{settings.host}:{settings.tcp_port}",
        "http": f"{settings.host}:{settings.http_port}",
        "mqtt": settings.mqtt,
        "coap": f"{settings.host}:{settings.coap_port}",
    }
    if protocol not in targets:
        raise typer.BadParameter(f"--protocol is {protocol!r}, expected one of {', '.join(targets)}")
    host, port = address(target or targets[protocol])
    rooms = [Room.numbered(first + i * stride, seed) for i in range(devices)]
    account = Account(protocol, devices)

    async def run() -> None:
        stop = stop_signal()
        shown, gateway = token, user
        if register:
            if not await done_before(stop, store_answered(settings)):
                return
            gateway = f"simulator-{protocol}"
            shown = await register_fleet(settings, gateway, [room.device for room in rooms])
        showing = asyncio.create_task(_show(account, as_json))
        try:
            await run_fleet(
                rooms,
                Plan(rate, seconds, integers),
                protocol,
                lambda device, controlled: create(
                    protocol,
                    device,
                    host,
                    port,
                    mqtt_version=settings.mqtt_version,
                    token=shown,
                    user=gateway,
                    controlled=controlled,
                ),
                stop,
                account,
                over_coap(host, port, shown) if protocol == "coap" else over_http(*address(targets["http"]), shown),
            )
        finally:
            showing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await showing

    run_process(run())
    _print_account(account, as_json)
    if account.acknowledged != account.sent:
        raise typer.Exit(1)


async def _show(account: Any, as_json: bool) -> None:
    """Keep a person at a terminal informed."""
    from rich.console import Console
    from rich.markup import escape

    if as_json or not sys.stderr.isatty():
        return
    with Console(stderr=True).status("connecting") as status:
        while True:
            problem = f"; {next(reversed(account.errors))}" if account.errors and not account.acknowledged else ""
            status.update(
                f"{account.protocol}: {account.sent:,} sent, {account.acknowledged:,} acknowledged{escape(problem)}"
            )
            await asyncio.sleep(0.2)


def _print_account(account: Any, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(account).decode())
        return
    print(
        f"{account.protocol}: {account.devices} devices, {account.seconds:.1f} s: sent {account.sent:,}, "
        f"acknowledged {account.acknowledged:,}, refused {account.refused:,}, resent {account.resent:,}, "
        f"dropped {account.dropped:,}"
    )
    for error, count in account.errors.items():
        print(f"  {count} × {error}")
