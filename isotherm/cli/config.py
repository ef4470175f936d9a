"""``isotherm config``: what a device should have, and what it has."""

from __future__ import annotations

from typing import Annotated

import typer

from isotherm.cli.options import AsJson, DataDir, values
from isotherm.cli.output import as_shown, print_json, print_table, since, text_of
from isotherm.cli.server import plain, served
from isotherm.client import Configuration
from isotherm.settings import Settings

READ, WRITE = "configuration:read", "configuration:write"

Device = Annotated[str, typer.Argument(help="Name of the device.")]

app = typer.Typer(no_args_is_help=True, help="Say what a device should have, and see what it has.")


@app.command()
def show(device: Device, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Print what a device should have, what it has, and how far that is."""
    with served(Settings.load(data_dir=data_dir), READ) as api:
        _print(api.configuration(device), as_json)


@app.command("set")
def set_values(
    device: Device,
    settings: Annotated[
        list[str],
        typer.Argument(help="interval=5, mode=eco, calibration=null; values are JSON, or else text; null removes."),
    ],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Change what a device should have: it is given to it now, or when it comes. What is not named stays as it is."""
    given = values(settings)
    with served(Settings.load(data_dir=data_dir), WRITE) as api:
        _print(api.configure(device, given), as_json)


@app.command()
def push(device: Device, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Give a device what it should have once more: one that could not, or has something else."""
    with served(Settings.load(data_dir=data_dir), WRITE) as api:
        _print(api.push_configuration(device), as_json)


def _print(found: Configuration, as_json: bool) -> None:
    if as_json:
        print_json(plain(found))
        return
    how = f", {found.progress} %" if found.progress is not None else ""
    why = f": {found.error}" if found.error else ""
    when = f" by {found.by}, {since(found.changed)}" if found.changed else ""
    print(as_shown(f"{found.device}: version {found.version}{when}, {found.state}{how}{why}"))
    names = sorted({*found.desired, *found.reported})
    if not names:
        print(f"nothing is desired or reported; try: isotherm config set {found.device} interval=5")
        return
    rows = [
        [
            name,
            text_of(found.desired[name]) if name in found.desired else "",
            text_of(found.reported[name]) if name in found.reported else "",
            "differs" if name in found.drift else "",
        ]
        for name in names
    ]
    print_table(["setting", "desired", "reported", ""], rows)
