"""The command line: ``isotherm COMMAND``. Each module registers its commands; heavy imports wait until one runs."""

from __future__ import annotations

import sys

import typer

from isotherm.cli import (
    agent,
    alarms,
    archive,
    bench,
    capacity,
    decode,
    devices,
    mqtt,
    notify,
    rejects,
    rules,
    run,
    show,
)
from isotherm.errors import IsothermError, first_of

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Isotherm: sensors in over TCP, HTTP, MQTT and CoAP, live charts and exact history out.",
)
run.register(app)
show.register(app)
decode.register(app)
archive.register(app)
capacity.register(app)
app.add_typer(devices.app, name="devices")
app.add_typer(agent.app, name="agent")
app.add_typer(rules.app, name="rules")
app.add_typer(alarms.app, name="alarms")
app.add_typer(rejects.app, name="rejects")
app.add_typer(mqtt.app, name="mqtt")
app.add_typer(notify.app, name="notify")
app.add_typer(bench.app, name="bench")


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
