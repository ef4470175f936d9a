"""``isotherm agent``: analytics, from a new file to one that runs."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from isotherm import logs
from isotherm.analytics import Analytics, Entry, Status
from isotherm.cli.options import AsJson, DataDir, duration_us
from isotherm.cli.output import iso, on_the_server, print_json, print_table, run
from isotherm.clock import now_us
from isotherm.errors import AnalyticFailed, IsothermError, SettingsError
from isotherm.process import run_process
from isotherm.settings import Settings
from isotherm.store import client

if TYPE_CHECKING:
    from agents.trial import Outcome

FOLLOW_SECONDS = 20.0
"""How long `enable` waits for a worker to run what was enabled."""

SHOWN = 10
"""Rows of a trial that are printed."""

Set = Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE of a parameter; may be given several times.")]
Name = Annotated[str, typer.Argument(help="Name of an analytic.")]

app = typer.Typer(help="Analytics: make one, try it over stored history, let it run.", no_args_is_help=True)


@app.command("run")
def run_all(
    names: Annotated[list[str] | None, typer.Argument(help="Those to run; all that are enabled without.")] = None,
) -> None:
    """Run analytics, a process each, and follow changes of their files and parameters."""
    from agents.host import run as run_host
    from isotherm.start import when_servers_answer

    settings = Settings.load()
    logs.configure(settings, "agents")
    run_process(when_servers_answer(settings, run_host(settings, names or ())))


@app.command("list")
def list_all(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the analytics that there are, and those that are enabled."""
    from agents import loader

    settings = Settings.load(data_dir=data_dir)
    entries = run(settings, _entries(settings))
    rows = []
    for name, path in loader.find(settings).items():
        used = [entry for entry in entries.values() if entry.analytic == name]
        rows += [_described(entry, path) for entry in used or [Entry(name, name, is_enabled=False)]]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("name", "enabled", "reads", "makes", "what it does"),
        [
            (row["name"], "yes" if row["enabled"] else "", ", ".join(row["inputs"]), ", ".join(row["outputs"]), row["text"])
            for row in rows
        ],
    )


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="a–z, 0–9 and _.")],
    folder: Annotated[Path | None, typer.Option(help="Where to; else the first of ISOTHERM_AGENTS_PATH.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Write the file of a new analytic, and its test."""
    from agents import loader, scaffold
    from agents.analytic import check_name

    settings = Settings.load(data_dir=data_dir)
    check_name(name)
    if name in loader.find(settings):
        raise SettingsError(f"there is an analytic {name!r} already: {loader.find(settings)[name]}")
    where = folder or loader.folders(settings)[0]
    path, test = where / f"{name}.py", where / f"test_{name}.py"
    try:
        where.mkdir(parents=True, exist_ok=True)
        for file, text in ((path, scaffold.ANALYTIC), (test, scaffold.TEST)):
            with file.open("x") as out:
                out.write(text.format(name=name, path=test))
    except OSError as error:
        raise IsothermError(f"{error.filename} cannot be written: {error.strerror}") from error
    print(f"{path}\n{test}\nNext: isotherm agent try {name} --last 1h; then isotherm agent enable {name}")


@app.command("try")
def attempt(
    file: Annotated[str, typer.Argument(help="A file, or the name of an analytic.")],
    series: Annotated[str, typer.Option(help="Pattern of series; else all that it reads.")] = "",
    last: Annotated[str, typer.Option(help="How far back: 90s, 10m, 24h, 7d.")] = "1h",
    settings_of: Set = None,
    plot: Annotated[Path | None, typer.Option(help="Draw what was read and made into this file (.png, .svg).")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Run an analytic over stored history and show what it would make; nothing is stored or sent."""
    from agents.trial import Scope

    settings = on_the_server(Settings.load(data_dir=data_dir))
    now = now_us()
    outcome = _attempt(
        settings, Entry("", "", parameters=_parameters(settings_of)), file, Scope(series, now - duration_us(last), now)
    )
    if plot is not None and not outcome.problem:
        from isotherm.cli.plot import plot as draw

        draw(plot, outcome.inputs, outcome.derived, outcome.units, outcome.events)
    if as_json:
        print_json(_outcome_fields(outcome))
    else:
        _print_outcome(outcome)
    if outcome.problem:
        raise typer.Exit(1)


@app.command()
def enable(
    file: Annotated[str, typer.Argument(help="Name of an analytic, or its file on ISOTHERM_AGENTS_PATH.")],
    name: Annotated[
        str, typer.Option("--as", help="Run it under another name: several of one kind, each with its own.")
    ] = "",
    settings_of: Set = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also where no series is there that it reads.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Try an analytic, and if it passes let workers run it from now on."""
    from agents import loader
    from agents.analytic import check_name
    from agents.trial import CHECK_READINGS, Scope

    settings = on_the_server(Settings.load(data_dir=data_dir))
    analytic = _path(file, settings).stem
    if loader.find(settings).get(analytic) != _path(file, settings):
        raise SettingsError(
            f"{file} is not where workers look: put it into {', '.join(map(str, loader.folders(settings)))}, "
            "or name its folder in ISOTHERM_AGENTS_PATH"
        )
    entries = run(settings, _entries(settings))
    known = entries.get(check_name(name or analytic), Entry("", "")).parameters
    entry = Entry(name or analytic, analytic, parameters={**known, **_parameters(settings_of)})
    now = now_us()
    outcome = _attempt(settings, entry, file, Scope("", now - 24 * 3_600_000_000, now, CHECK_READINGS))
    if outcome.problem:
        raise AnalyticFailed(f"{entry.name} is not enabled: {outcome.problem}")
    if outcome.inputs_missing and not anyway:
        raise AnalyticFailed(
            f"{entry.name} is not enabled: there is no series {' or '.join(outcome.inputs_missing)} of the last day. "
            "Set other inputs, or say --anyway"
        )
    if not (outcome.is_made_up or outcome.derived or outcome.events):
        print(f"note: it made nothing of {outcome.readings:,} readings", file=sys.stderr)
    _refuse_cycles(settings, entries, entry)
    status = run(settings, _enable(settings, entry))
    if as_json:
        print_json({"name": entry.name, "status": status})
    elif status is None:
        print(f"{entry.name} is enabled; no worker runs it yet: see isotherm agent status")
    else:
        print(f"{entry.name} {status.state}")
    if status is not None and status.state in ("refused", "failing"):
        raise AnalyticFailed(status.problem)


@app.command()
def disable(name: Name, data_dir: DataDir = None) -> None:
    """Let workers run an analytic no longer; its state stays, and it goes on from there when it is enabled again."""
    settings = Settings.load(data_dir=data_dir)

    async def change() -> None:
        async with client.connected(settings) as redis:
            entry = (await Analytics(redis).entries()).get(name)
            if entry is None or not entry.is_enabled:
                raise SettingsError(f"{name} is not enabled")
            await Analytics(redis).put(msgspec.structs.replace(entry, is_enabled=False))

    run(settings, change())
    print(f"{name} is disabled")


@app.command()
def status(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show how the analytics are doing that run or should; exit code 1 when one does not."""
    settings = Settings.load(data_dir=data_dir)

    async def read() -> tuple[list[Status], dict[str, Entry]]:
        async with client.connected(settings) as redis:
            return await Analytics(redis).running(), await Analytics(redis).entries()

    running, entries = run(settings, read())
    idle = [name for name, entry in entries.items() if entry.is_enabled and name not in {one.name for one in running}]
    if as_json:
        print_json({"running": running, "not_running": idle})
    else:
        print_table(
            ("name", "state", "partitions", "lag", "packs/s", "readings/s", "µs/reading", "made", "events", "errors"),
            [_status_row(one) for one in running] + [(name, "not running", *[""] * 8) for name in idle],
        )
        for one in running:
            if one.problem:
                print(f"\n{one.name}: {one.problem}")
    if idle or any(one.state in ("refused", "failing") for one in running):
        raise typer.Exit(1)


def _status_row(one: Status) -> tuple[str, ...]:
    ranges = f"{len(one.partitions)}" if one.partitions else ""
    figures = (one.lag, one.packs, one.readings)
    return (
        one.name,
        one.state,
        ranges,
        *(f"{figure:,.0f}" for figure in figures),
        f"{one.us_per_reading:.2f}",
        *(f"{count:,}" for count in (one.made, one.events, one.errors)),
    )


async def _entries(settings: Settings) -> dict[str, Entry]:
    async with client.connected(settings) as redis:
        return await Analytics(redis).entries()


def _described(entry: Entry, path: Path) -> dict[str, Any]:
    from agents.runner import Job
    from agents.trial import describe

    row: dict[str, Any] = {"name": entry.name, "analytic": entry.analytic, "enabled": entry.is_enabled, "file": str(path)}
    try:
        told = describe(Job(entry.name, path, entry.parameters), _context())
    except IsothermError as error:
        return row | {"inputs": [], "outputs": {}, "parameters": {}, "text": str(error).splitlines()[-1]}
    text = told.text.partition("\n\n")[0].replace("\n", " ")
    return row | {"inputs": told.inputs, "outputs": told.outputs, "parameters": told.parameters, "text": text}


def _context() -> Any:
    return multiprocessing.get_context("forkserver")


def _path(file: str, settings: Settings) -> Path:
    from agents import loader

    if not file.endswith(".py"):
        return loader.path_of(file, settings)
    path = Path(file)
    if not path.is_file():
        raise SettingsError(f"there is no file {file}")
    return next((known for known in loader.find(settings).values() if known.samefile(path)), path)


def _parameters(given: list[str] | None) -> dict[str, Any]:
    """Understand NAME=VALUE; what JSON understands is a number or so, anything else a text."""
    found: dict[str, Any] = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        if not equals:
            raise typer.BadParameter(f"--set is {one!r}, expected NAME=VALUE")
        try:
            found[name.strip()] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            found[name.strip()] = value
    return found


def _attempt(settings: Settings, entry: Entry, file: str, scope: Any) -> Outcome:
    from rich.console import Console

    from agents import trial
    from agents.runner import Job

    path = _path(file, settings)
    job = Job(entry.name or path.stem, path, entry.parameters)
    with Console(stderr=True).status(f"trying {path.name} over stored history"):
        return trial.attempt(job, settings, _context(), scope)


def _refuse_cycles(settings: Settings, entries: dict[str, Entry], entry: Entry) -> None:
    from agents import loader
    from agents.cycles import Flow, cycle
    from agents.runner import Job
    from agents.trial import describe

    files = loader.find(settings)
    flows = {}
    for one in [*(other for name, other in entries.items() if other.is_enabled and name != entry.name), entry]:
        try:
            told = describe(Job(one.name, files[one.analytic], one.parameters), _context())
        except (KeyError, IsothermError):
            continue  # it does not run
        flows[one.name] = Flow(told.inputs, list(told.outputs))
    found = cycle(flows, entry.name)
    if found is not None:
        raise AnalyticFailed(
            f"{entry.name} is not enabled: it would read what is made of what it makes, without end: {' → '.join(found)}. "
            "Set its inputs so that they leave that out"
        )


async def _enable(settings: Settings, entry: Entry) -> Status | None:
    """Enter it, and wait until a worker runs it; returns what that says, or None when there is none."""
    async with client.connected(settings) as redis:
        analytics = Analytics(redis)
        before = {one.instance for one in await analytics.running() if one.name == entry.name}
        await analytics.put(entry)
        if not await analytics.hosts():
            return None
        deadline = time.monotonic() + FOLLOW_SECONDS
        while time.monotonic() < deadline:
            for one in await analytics.running():
                if one.name == entry.name and one.state != "starting" and one.instance not in before:
                    return one
            await asyncio.sleep(0.2)
    return None


def _outcome_fields(outcome: Outcome) -> dict[str, Any]:
    return {
        "problem": outcome.problem,
        "series": outcome.series,
        "readings": outcome.readings,
        "is_made_up": outcome.is_made_up,
        "us_per_reading": 1e6 * outcome.seconds / max(1, outcome.readings),
        "derived": {
            name: {"unit": outcome.units.get(name, ""), "time": [iso(at) for at in when.tolist()], "value": value.tolist()}
            for name, (when, value) in outcome.derived.items()
        },
        "events": outcome.events,
        "failures": outcome.failures,
    }


def _print_outcome(outcome: Outcome) -> None:
    if outcome.is_made_up:
        print(f"there is no history of {' or '.join(outcome.inputs_wanted)}: tried with readings that are made up")
    print(
        f"read {outcome.readings:,} readings of {len(outcome.series):,} series, "
        f"{1e6 * outcome.seconds / max(1, outcome.readings):.2f} µs each"
    )
    rows = [
        (
            name,
            f"{len(value):,}",
            *(f"{one:.6g}" for one in (value.min(), value.mean(), value.max(), value[-1])),
            outcome.units[name],
        )
        for name, (_, value) in list(outcome.derived.items())[:SHOWN]
    ]
    if rows:
        print_table(("makes", "readings", "min", "mean", "max", "last", "unit"), rows)
    if len(outcome.derived) > SHOWN:
        print(f"and {len(outcome.derived) - SHOWN:,} series more")
    if outcome.events:
        print(f"{len(outcome.events):,} events, the last of them:")
        last = outcome.events[-SHOWN:]
        print_table(
            ("time", "severity", "series", "message"),
            [(iso(one.time), one.severity, f"{one.device}/{one.metric}".rstrip("/"), one.message) for one in last],
        )
    if not outcome.problem and not outcome.derived and not outcome.events:
        print("it makes nothing of them")
    if outcome.problem:
        print(f"it does not pass: {outcome.problem}", file=sys.stderr)
