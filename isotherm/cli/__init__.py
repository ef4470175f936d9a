"""The command line: ``isotherm COMMAND``. What a command needs is imported when it is invoked."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from isotherm import __version__
from isotherm.cli.lazy import LazyCommand
from isotherm.errors import IsothermError, first_of

COMMANDS = (
    LazyCommand(
        "up",
        "isotherm.cli.run:up",
        "Run the whole stack on this machine: broker, store, connectors, worker, dashboards and a simulated fleet.",
    ),
    LazyCommand("connect", "isotherm.cli.run:connect", "Run one connector."),
    LazyCommand("worker", "isotherm.cli.run:worker", "Run a worker: it brings the readings on Kafka into the store."),
    LazyCommand("web", "isotherm.cli.run:web", "Run the dashboards."),
    LazyCommand(
        "topics",
        "isotherm.cli.topics:topics",
        "Create the Kafka topics that are missing, and list them with their replicas.",
    ),
    LazyCommand(
        "simulate",
        "isotherm.cli.run:simulate",
        "Send a simulated fleet's room temperatures, and say what was sent and acknowledged.",
    ),
    LazyCommand(
        "query", "isotherm.cli.show:query", "Print the history of one series, at the resolution that suits its length."
    ),
    LazyCommand("tail", "isotherm.cli.show:tail", "Print a Kafka topic readably, as it grows."),
    LazyCommand(
        "ledger",
        "isotherm.cli.show:ledger",
        "Print what was received, accepted, rejected, stored and is in flight: in all, and for each connector.",
    ),
    LazyCommand(
        "decode",
        "isotherm.cli.decode:decode",
        "Decode a payload and print its readings, and what would be refused and why; exit code 1 when something would be.",
    ),
    LazyCommand("export", "isotherm.cli.archive:export", "Write history to a CSV or Parquet file."),
    LazyCommand(
        "import",
        "isotherm.cli.archive:import_",
        "Take in history from a file that `isotherm export` wrote, or from one of raw readings.",
    ),
    LazyCommand(
        "backup",
        "isotherm.cli.backup:backup",
        "Write the registry to a file: devices, users, tokens, rules, alarms and what else people have entered.",
    ),
    LazyCommand("restore", "isotherm.cli.backup:restore", "Put the registry of a file into a store that has none."),
    LazyCommand(
        "capacity",
        "isotherm.cli.capacity:capacity",
        "Say how much memory the store needs, once readings have come for as long as they are kept.",
    ),
    LazyCommand(
        "devices",
        "isotherm.cli.devices:app",
        "List devices with their newest values; register them, and give them tokens.",
    ),
    LazyCommand(
        "send",
        "isotherm.cli.commands:send",
        "Have a device do something, now or when it comes, and print its answer.",
    ),
    LazyCommand("commands", "isotherm.cli.commands:app", "List the commands of a device, and what came of them."),
    LazyCommand("config", "isotherm.cli.config:app", "Say what a device should have, and see what it has."),
    LazyCommand("rollout", "isotherm.cli.rollout:app", "Change the configuration, or the firmware, of many devices."),
    LazyCommand(
        "firmware",
        "isotherm.cli.firmware:app",
        "Images of firmware that are signed; `isotherm rollout` gives them to devices.",
    ),
    LazyCommand(
        "users", "isotherm.cli.users:app", "List users, create them, change what they may do, and let them in again."
    ),
    LazyCommand("tokens", "isotherm.cli.tokens:app", "Tokens by which programs use the REST API."),
    LazyCommand("agent", "isotherm.cli.agent:app", "Analytics: make one, try it over stored history, let it run."),
    LazyCommand("rules", "isotherm.cli.rules:app", "Say when alarms are raised, and try it on what is stored."),
    LazyCommand("alarms", "isotherm.cli.alarms:app", "List alarms, newest first; acknowledge and shelve them."),
    LazyCommand("rejects", "isotherm.cli.rejects:app", "Show what was refused, and take it in after all."),
    LazyCommand("mqtt", "isotherm.cli.mqtt:app", "Tell the MQTT broker who may do what."),
    LazyCommand(
        "notify", "isotherm.cli.notify:app", "Say who hears of alarms: by e-mail, webhook, or whatever apprise can reach."
    ),
    LazyCommand("hosts", "isotherm.cli.hosts:app", "Virtual hosts: an environment for a user, entered by ssh with a key."),
    LazyCommand("bench", "isotherm.cli.bench:app", "Measure the local stack."),
)
"""In the order of the help."""


class _Isotherm(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for command in COMMANDS:
            self.add_command(command)


app = typer.Typer(
    cls=_Isotherm,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Isotherm: sensors in over TCP, HTTP, MQTT and CoAP, live charts and exact history out.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"isotherm {__version__}")
        raise typer.Exit


@app.callback()
def isotherm(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Run the command line; an error of ours becomes one line on standard error and exit code 1."""
    try:
        app()
    except BaseExceptionGroup as group:
        _fail(first_of(group))
    except IsothermError as error:
        _fail(error)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has left: nothing to say, and nobody to say it to


def _fail(error: IsothermError) -> None:
    print(f"isotherm: {error}", file=sys.stderr)
    raise SystemExit(1)
