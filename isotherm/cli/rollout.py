"""``isotherm rollout``: change the configuration, or the firmware, of many devices, wave after wave."""

from __future__ import annotations

import sys
import time
from itertools import islice
from typing import Annotated, get_args

import typer

from isotherm.cli.options import AsJson, DataDir, duration_seconds, values
from isotherm.cli.output import as_shown, print_json, print_table, since, text_of
from isotherm.cli.server import plain, served
from isotherm.client import Client, Rollout
from isotherm.client.model import RolloutState
from isotherm.settings import Settings

READ, WRITE = "configuration:read", "configuration:write"

LOOK_SECONDS = 1.0
"""How often somebody who looks on is told how far it is."""

WATCH_SECONDS = 24 * 3600

ENDED = ("done", "watching")
"""Every device that there is has ended."""

Id = Annotated[str, typer.Argument(help="Of the rollout, from `isotherm rollout list`.")]
Wait = Annotated[bool, typer.Option(help="Wait until every device has ended, and exit with 1 if not all have it.")]

app = typer.Typer(no_args_is_help=True, help="Change the configuration, or the firmware, of many devices.")


@app.command()
def begin(
    devices: Annotated[list[str] | None, typer.Argument(help="Which: names, and patterns such as 'room-*'.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="interval=5; once for each setting. null removes it.", metavar="K=V")
    ] = None,
    firmware: Annotated[str, typer.Option(help="An image instead: NAME/VERSION.")] = "",
    label: Annotated[str, typer.Option(help="Only devices with it: a word, a key, or key=value.")] = "",
    type_: Annotated[str, typer.Option("--type", help="Only devices of this type.")] = "",
    gateway: Annotated[str, typer.Option(help="Only children of this gateway.")] = "",
    wave: Annotated[
        list[float] | None,
        typer.Option(help="Share of the devices up to which a wave goes, such as 0.1; the last has the rest."),
    ] = None,
    continuous: Annotated[
        bool, typer.Option("--continuous", help="Of devices that match later as well, until it is halted or superseded.")
    ] = False,
    max_failure_rate: Annotated[float, typer.Option(help="A greater share of failures halts it.", min=0, max=1)] = 0.2,
    wave_timeout: Annotated[str, typer.Option(help="How long devices that are away hold up the next wave.")] = "10m",
    wait: Wait = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Begin to change what devices should have: of those that all is true of that is said of them."""
    given, seconds = values(settings or ()), duration_seconds(wave_timeout)
    if not (devices or label or type_ or gateway):
        raise typer.BadParameter("say which devices: names, patterns, --label, --type or --gateway; '*' is all")
    if bool(given) == bool(firmware):
        raise typer.BadParameter("say what they should have: either --set or --firmware")
    with served(Settings.load(data_dir=data_dir), READ, WRITE, seconds=WATCH_SECONDS if wait else 600) as api:
        found = api.begin_rollout(
            given,
            firmware=firmware,
            devices=devices or (),
            label=label,
            type=type_,
            gateway=gateway,
            waves=wave or (),
            continuous=continuous,
            max_failure_rate=max_failure_rate,
            wave_timeout=seconds,
        )
        _tell(_watched(api, found) if wait else found, as_json)


@app.command("list")
def list_rollouts(
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 20,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the rollouts of the last 90 days, newest first."""
    with served(Settings.load(data_dir=data_dir), READ) as api:
        found = list(islice(api.rollouts(), limit))
    if as_json:
        print_json([plain(one) for one in found])
    elif not found:
        print("nothing was rolled out; try: isotherm rollout begin 'room-*' --set interval=5")
    else:
        rows = [[one.id, since(one.created), one.by, _state(one), _counts(one), _values(one)] for one in found]
        print_table(["id", "begun", "by", "state", "devices", "values"], rows)


@app.command()
def show(id: Id, wait: Wait = False, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Print a rollout and how far it is."""
    with served(Settings.load(data_dir=data_dir), READ, seconds=WATCH_SECONDS if wait else 600) as api:
        found = api.rollout(id)
        _tell(_watched(api, found) if wait else found, as_json)


@app.command()
def devices(
    id: Id,
    state: Annotated[str, typer.Option(help=f"How far they are: {', '.join(get_args(RolloutState))}.")] = "failed",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the devices of a rollout that are so far."""
    if state not in get_args(RolloutState):
        raise typer.BadParameter(f"--state is {state!r}, expected one of {', '.join(get_args(RolloutState))}")
    with served(Settings.load(data_dir=data_dir), READ) as api:
        found = list(api.rollout_devices(id, state))  # type: ignore[arg-type]
    if as_json:
        print_json([plain(one) for one in found])
    elif not found:
        print(f"no device of {id} is {state}")
    else:
        rows = [[one.device, one.state, str(one.attempts), one.error or " ".join(one.drift)] for one in found]
        print_table(["device", "state", "given", "why"], rows)


@app.command()
def halt(id: Id, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Give it to nobody more; who has it keeps it."""
    with served(Settings.load(data_dir=data_dir), READ, WRITE) as api:
        _tell(api.halt_rollout(id), as_json)


@app.command()
def resume(id: Id, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Have a rollout that is halted go on."""
    with served(Settings.load(data_dir=data_dir), READ, WRITE) as api:
        _tell(api.resume_rollout(id), as_json)


@app.command()
def retry(id: Id, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Give it again to the devices that could not, or have something else."""
    with served(Settings.load(data_dir=data_dir), READ, WRITE) as api:
        _tell(api.retry_rollout(id), as_json)


@app.command()
def back(id: Id, wait: Wait = False, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Make desired what was so before, where nobody has changed it since; that is a rollout itself."""
    with served(Settings.load(data_dir=data_dir), READ, WRITE, seconds=WATCH_SECONDS if wait else 600) as api:
        found = api.roll_back(id)
        _tell(_watched(api, found) if wait else found, as_json)


def _watched(api: Client, rollout: Rollout) -> Rollout:
    """Return a rollout when it is done or halted; show meanwhile how far it is."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("rolling out", total=rollout.devices)
        while rollout.state == "running":
            time.sleep(LOOK_SECONDS)  # the API tells no more than how far it is now
            rollout = api.rollout(rollout.id)
            progress.update(task, completed=_ended(rollout))
    if rollout.state not in ENDED or rollout.progress.applied < rollout.devices:
        _tell(rollout, as_json=False, to_stderr=True)
        raise typer.Exit(1)
    return rollout


def _tell(found: Rollout, as_json: bool, *, to_stderr: bool = False) -> None:
    if as_json:
        print_json(plain(found))
    else:
        print(as_shown(f"{found.id} {_state(found)}: {_counts(found)}"), file=sys.stderr if to_stderr else sys.stdout)


def _state(one: Rollout) -> str:
    wave = f", wave {one.wave + 1} of {len(one.waves)}" if one.state not in ENDED and len(one.waves) > 1 else ""
    continuous = ", continuous" if one.continuous and one.state != "watching" else ""
    return one.state + wave + continuous + (f" ({one.why})" if one.why else "")


def _values(one: Rollout) -> str:
    """Say what is set: of firmware its name, and not all that devices are told of it."""
    image = one.values.get("firmware")
    if isinstance(image, dict):
        return f"firmware {image.get('name')}/{image.get('version')}"
    return text_of(one.values)


def _counts(one: Rollout) -> str:
    counts = {name: getattr(one.progress, name) for name in get_args(RolloutState)}
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"{one.devices} devices" + (f": {said}" if said else "")


def _ended(one: Rollout) -> int:
    return one.progress.applied + one.progress.drifted + one.progress.failed + one.progress.superseded
