"""``isotherm send`` and ``isotherm commands``: have a device do something, and see what came of it."""

from __future__ import annotations

import asyncio
import getpass
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer

from isotherm.cli.options import AsJson, DataDir, duration_us
from isotherm.cli.output import ago, as_shown, print_json, print_table, run
from isotherm.clock import now_us
from isotherm.commands import Command, Control, Table, new
from isotherm.commands.command import described
from isotherm.errors import SettingsError, Unavailable
from isotherm.kafka import Producer
from isotherm.limits import SECOND
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store import client

GRACE_SECONDS = 3
"""How long after the deadline an expiry is waited for."""

Device = Annotated[str, typer.Argument(help="Name of the device.")]
Id = Annotated[str, typer.Argument(help="Of the command, from `isotherm commands list DEVICE`.")]

app = typer.Typer(no_args_is_help=True, help="List the commands of a device, and what came of them.")


def send(
    device: Device,
    command: Annotated[str, typer.Argument(help="What it is to do, such as blink.")],
    parameters: Annotated[
        list[str] | None, typer.Argument(help="With what: times=3, colour=red; values are JSON, or else text.")
    ] = None,
    timeout: Annotated[str, typer.Option(help="By when the answer has to be there: 10s, 5m, 2h.")] = "60s",
    idempotent: Annotated[
        bool, typer.Option("--idempotent", help="It does no harm to do it twice: repeat it while no answer comes.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the answer, and exit with 1 when there is none.")] = True,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Have a device do something, now or when it comes, and print its answer."""
    settings = Settings.load(data_dir=data_dir)
    made = new(
        device,
        command,
        _parsed(parameters or ()),
        timeout=duration_us(timeout),
        idempotent=idempotent,
        by=getpass.getuser(),
    )
    found = run(settings, _send(settings, made, wait, is_told=not as_json and sys.stderr.isatty()))
    if as_json:
        print_json(described(found))
    elif found.state == "answered":
        print(as_shown(found.result))
    else:
        print(as_shown(f"{found.id} is {found.state}{f': {found.error}' if found.error else ''}"))
    if wait and found.state != "answered":
        raise typer.Exit(1)


@app.command("list")
def list_commands(
    device: Device,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 20,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the commands of a device, newest first."""
    settings = Settings.load(data_dir=data_dir)

    async def read() -> Sequence[Command]:
        async with client.connected(settings) as redis:
            return await Table(redis, settings.partitions).of(device, limit=limit)

    found = run(settings, read())
    if as_json:
        print_json([described(one) for one in found])
    elif not found:
        print(f"{device} was asked to do nothing in the last 7 days; try: isotherm send {device} ping")
    else:
        now = now_us()
        rows = [[one.id, one.name, one.state, ago(now - one.created), one.by, one.error or one.result] for one in found]
        print_table(["id", "command", "state", "asked", "by", "answer"], rows)


@app.command()
def show(device: Device, id: Id, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Print all that is known of a command."""
    settings = Settings.load(data_dir=data_dir)

    async def read() -> Command:
        async with client.connected(settings) as redis:
            return await _existing(Table(redis, settings.partitions), device, id)

    found = described(run(settings, read()))
    if as_json:
        print_json(found)
    else:
        print_table(["field", "value"], [[name, "" if value is None else str(value)] for name, value in found.items()])


@app.command()
def cancel(device: Device, id: Id, data_dir: DataDir = None) -> None:
    """Let a command end that was never given to its device."""
    settings = Settings.load(data_dir=data_dir)

    async def act() -> None:
        async with client.connected(settings) as redis:
            control = Control(redis, settings.partitions, Producer(settings, "isotherm-commands"))
            try:
                found = await _existing(control.table, device, id)
                if not await control.cancel(found, getpass.getuser()):
                    raise SettingsError(f"it is too late: {id} is {found.state}, or a connector has taken it up")
            finally:
                await control.close()

    run(settings, act())
    print(f"cancelled {id}")


async def _existing(table: Table, device: str, id: str) -> Command:
    found = await table.get(device, id)
    if found is None:
        raise SettingsError(f"{device} has no command {id}, or it is forgotten; see `isotherm commands list {device}`")
    return found


async def _send(settings: Settings, command: Command, wait: bool, *, is_told: bool) -> Command:
    async with client.connected(settings) as redis:
        if await Registry(redis).get(command.device) is None:
            raise SettingsError(f"there is no device {command.device!r}; see `isotherm devices`")
        control = Control(redis, settings.partitions, Producer(settings, "isotherm-commands"))
        try:
            await control.send(command)
            return await _watched(control.table, command, is_told) if wait else command
        finally:
            await control.close()


async def _watched(table: Table, command: Command, is_told: bool) -> Command:
    """Return a command when it has ended; say meanwhile how far it is."""
    try:
        async with asyncio.timeout((command.deadline - now_us()) / SECOND + GRACE_SECONDS):
            async for found in table.changes(command):
                if is_told and found.state != command.state:
                    print(f"{found.state} …", file=sys.stderr)
                command = found
    except TimeoutError:
        raise Unavailable(
            f"the deadline of {command.id} is over, and no worker says so: is `isotherm worker` running?"
        ) from None
    return command


def _parsed(given: Sequence[str]) -> dict[str, Any]:
    """Return parameters as they were typed: ``times=3`` is a number, ``colour=red`` a text."""
    found: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{one!r}, expected name=value")
        try:
            found[name] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            found[name] = value
    return found
