"""``isotherm send`` and ``isotherm commands``: have a device do something, and see what came of it."""

from __future__ import annotations

import sys
import time
from itertools import islice
from typing import Annotated

import typer

from isotherm.cli.options import AsJson, DataDir, duration_seconds, values
from isotherm.cli.output import as_shown, print_json, print_table, since, text_of
from isotherm.cli.server import plain, served
from isotherm.client import Client, Command
from isotherm.errors import Unavailable
from isotherm.settings import Settings

GRACE_SECONDS = 3
"""How long after the deadline an expiry is waited for."""

WAIT_SECONDS, TOLD_SECONDS = 20, 1
"""For how long the API is asked to wait for the end, and how often somebody who looks on is told how far it is."""

READ, WRITE = "commands:read", "commands:write"

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
    seconds, given = duration_seconds(timeout), values(parameters or ())
    with served(Settings.load(data_dir=data_dir), READ, WRITE, seconds=seconds + WAIT_SECONDS + GRACE_SECONDS) as api:
        found = api.send_command(device, command, given, timeout=seconds, idempotent=idempotent)
        if wait:
            found = _watched(api, found, seconds, is_told=not as_json and sys.stderr.isatty())
    if as_json:
        print_json(plain(found))
    elif found.state == "answered":
        print(as_shown(text_of(found.result)))
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
    with served(Settings.load(data_dir=data_dir), READ) as api:
        found = list(islice(api.commands(device), limit))
    if as_json:
        print_json([plain(one) for one in found])
    elif not found:
        print(f"{device} was asked to do nothing in the last 7 days; try: isotherm send {device} ping")
    else:
        rows = [[one.id, one.name, one.state, since(one.created), one.by, one.error or text_of(one.result)] for one in found]
        print_table(["id", "command", "state", "asked", "by", "answer"], rows)


@app.command()
def show(device: Device, id: Id, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Print all that is known of a command."""
    with served(Settings.load(data_dir=data_dir), READ) as api:
        found = plain(api.command(device, id))
    if as_json:
        print_json(found)
    else:
        print_table(["field", "value"], [[name, text_of(value)] for name, value in found.items()])


@app.command()
def cancel(device: Device, id: Id, data_dir: DataDir = None) -> None:
    """Let a command end that was never given to its device."""
    with served(Settings.load(data_dir=data_dir), WRITE) as api:
        api.cancel_command(device, id)
    print(f"cancelled {id}")


def _watched(api: Client, command: Command, seconds: int, *, is_told: bool) -> Command:
    """Return a command when it has ended; say meanwhile how far it is."""
    end = time.monotonic() + seconds + GRACE_SECONDS
    while not command.has_ended:
        if time.monotonic() > end:
            raise Unavailable(f"the deadline of {command.id} is over, and no worker says so: is `isotherm worker` running?")
        left = max(1, round(end - time.monotonic()))
        found = api.command(command.device, command.id, wait=min(left, TOLD_SECONDS if is_told else WAIT_SECONDS))
        if is_told and found.state != command.state:
            print(f"{found.state} …", file=sys.stderr)
        command = found
    return command
