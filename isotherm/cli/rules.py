"""``isotherm rules``: when alarms are raised."""

from __future__ import annotations

import sys
from typing import Annotated, Any, cast

import msgspec
import typer

from isotherm.cli.options import AsJson, DataDir, duration_us
from isotherm.cli.output import asked, iso, print_json, print_table, run
from isotherm.cli.sources import rules as sources
from isotherm.clock import now_us
from isotherm.errors import SettingsError
from isotherm.events import SEVERITIES, Event, Severity
from isotherm.registry import Registry
from isotherm.rules import Kind, Rule, Rules
from isotherm.rules.rule import Per
from isotherm.rules.targets import unknown
from isotherm.rules.wording import about, condition, span
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.reader import Reader

SCOPES = ("rules:read", "rules:write")

app = typer.Typer(no_args_is_help=True, help="Say when alarms are raised, and try it on what is stored.")

Id = Annotated[str, typer.Argument(help="What the rule is known by, such as kitchen-hot.")]
Ids = Annotated[list[str], typer.Argument(help="Ids of rules.")]
Metric = Annotated[
    str, typer.Option(help="Metric, or a pattern: temperature, 'bme280/*'. For --silence it may be left out.")
]
Above = Annotated[float | None, typer.Option(help="Raise it when the value is above this.")]
Below = Annotated[float | None, typer.Option(help="Raise it when the value is below this.")]
ClearAbove = Annotated[float | None, typer.Option(help="Clear it when the value is not above this [default: --above].")]
ClearBelow = Annotated[float | None, typer.Option(help="Clear it when the value is not below this [default: --below].")]
Hysteresis = Annotated[float | None, typer.Option(help="Clear it when the value is so far inside of the limits.")]
PerUnit = Annotated[str | None, typer.Option("--per", help="The limits are of the change per second, minute or hour.")]
Window = Annotated[str | None, typer.Option(help="Over which that change is measured: 5m [default: 1m].")]
Silent = Annotated[str | None, typer.Option("--silence", help="Raise it when nothing came for so long: 10m.")]
Text = Annotated[str, typer.Option("--expression", help="Raise it when this is true: 'temperature > 30 and humidity < 20'.")]
Devices = Annotated[str, typer.Option(help="Device, or a pattern: 'room-*'.")]
Label = Annotated[str, typer.Option(help="Only devices with this label: a word, a key, or KEY=VALUE.")]
Type = Annotated[str, typer.Option(help="Only devices of this type.")]
Grade = Annotated[str, typer.Option("--severity", help=f"{', '.join(SEVERITIES)}.")]
Hold = Annotated[str | None, typer.Option(help="How long it has to be so before the alarm is raised: 5m.")]
ClearAfter = Annotated[str | None, typer.Option(help="How long it has to be over before the alarm is cleared: 1m.")]
Message = Annotated[
    str, typer.Option(help="What is said: '{device}: {metric} is {value} {unit}, limit {threshold}'.", show_default=False)
]


@app.command()
def add(
    context: typer.Context,
    id: Id,
    metric: Metric = "",
    above: Above = None,
    below: Below = None,
    clear_above: ClearAbove = None,
    clear_below: ClearBelow = None,
    hysteresis: Hysteresis = None,
    per: PerUnit = None,
    window: Window = None,
    silence: Silent = None,
    expression: Text = "",
    devices: Devices = "*",
    label: Label = "",
    type: Type = "",
    severity: Grade = "warning",
    hold: Hold = None,
    clear_after: ClearAfter = None,
    message: Message = "",
    name: Annotated[str, typer.Option(help="What people call it.")] = "",
    anyway: Annotated[bool, typer.Option("--anyway", help="Also when nothing that is stored matches it.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="In the place of the rule with this id.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Add a rule: a threshold; with --per or --window a rate; with --silence or --expression one of those.

    isotherm rules add hot --metric temperature --above 30 --hysteresis 2 --hold 5m --severity major
    """
    rule = _rule(context.params)
    settings = Settings.load(data_dir=data_dir)

    async def enter() -> None:
        async with sources.rules(settings, *SCOPES, "devices:read", "series:read") as source:
            if not anyway and (why := await source.why_unknown(rule)):
                raise SettingsError(f"{why}\n  --anyway adds the rule for what is yet to come")
            await (source.replace(rule) if replace else source.add(rule))

    asked(settings, enter())
    print(
        f"{'replaced' if replace else 'added'} {rule.id}: {condition(rule)}\n"
        f"what it would have done: isotherm rules try {rule.id}"
    )


@app.command("list")
def list_rules(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the rules."""
    rules = _read(Settings.load(data_dir=data_dir))
    if as_json:
        print_json(rules)
    elif not rules:
        print("there is no rule; try: isotherm rules add ID --metric temperature --above 30")
    else:
        print_table(
            ("id", "severity", "devices", "raised when", "enabled"),
            ((one.id, one.severity, about(one), condition(one), "yes" if one.enabled else "no") for one in rules),
        )


@app.command()
def show(id: Id, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show one rule."""
    settings = Settings.load(data_dir=data_dir)

    async def read() -> Rule:
        async with sources.rules(settings, "rules:read") as source:
            return await source.get(id)

    rule = asked(settings, read())
    if as_json:
        print_json(rule)
        return
    print(f"{rule.id}: {condition(rule)}")
    for field, value in msgspec.to_builtins(rule).items():
        shown = span(value) if field in ("hold", "clear_after", "silence", "window") else value
        print(f"  {field:12} {shown}")


@app.command()
def remove(ids: Ids, data_dir: DataDir = None) -> None:
    """Forget rules; their alarms are cleared."""
    _each(Settings.load(data_dir=data_dir), ids, "remove")
    print(f"removed {', '.join(ids)}")


@app.command()
def enable(ids: Ids, data_dir: DataDir = None) -> None:
    """Have rules evaluated."""
    _each(Settings.load(data_dir=data_dir), ids, "enable")
    print(f"enabled {', '.join(ids)}")


@app.command()
def disable(ids: Ids, data_dir: DataDir = None) -> None:
    """Have rules evaluated no longer; their alarms are cleared."""
    _each(Settings.load(data_dir=data_dir), ids, "disable")
    print(f"disabled {', '.join(ids)}; their alarms are cleared")


@app.command("try")
def try_rule(
    context: typer.Context,
    id: Annotated[
        str | None,
        typer.Argument(help="A rule that is kept; - for one on standard input, as JSON; or describe one with the options."),
    ] = None,
    last: Annotated[str, typer.Option(help="How far back: 90s, 10m, 24h, 7d.")] = "24h",
    metric: Metric = "",
    above: Above = None,
    below: Below = None,
    clear_above: ClearAbove = None,
    clear_below: ClearBelow = None,
    hysteresis: Hysteresis = None,
    per: PerUnit = None,
    window: Window = None,
    silence: Silent = None,
    expression: Text = "",
    devices: Devices = "*",
    label: Label = "",
    type: Type = "",
    severity: Grade = "warning",
    hold: Hold = None,
    clear_after: ClearAfter = None,
    message: Message = "",
    limit: Annotated[int | None, typer.Option(help="List at most so many, the newest; all are counted.", min=1)] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Say when a rule would have raised and cleared its alarms, on what is stored; nothing is written."""
    from agents.alarms.trial import Trial, tried

    described = None
    if id is None:
        described = _rule({**context.params, "id": "trial"})
    elif id == "-":
        described = msgspec.structs.replace(Rule.from_json(sys.stdin.read()), enabled=True)
    elif metric or expression or silence is not None or above is not None or below is not None:
        raise typer.BadParameter("name a rule, or describe one, not both")
    back = duration_us(last)
    settings = Settings.load(data_dir=data_dir)

    async def look() -> Trial:
        async with client.connected(settings) as redis:
            rule = described or msgspec.structs.replace(await Rules(redis).get(id or ""), enabled=True)
            reader, now = Reader(redis, settings.partitions), now_us()
            registered = {device.name: device for device in await Registry(redis).all()}
            if why := unknown(rule, await reader.series(), registered):
                raise SettingsError(why)
            return await tried(rule, reader, registered, now - back, now + 1)

    trial = run(settings, look())
    listed = trial.episodes[-limit:] if limit else trial.episodes
    if as_json:
        figures = {name: getattr(trial, name) for name in ("series", "readings", "coarsest", "skipped")}
        print_json(
            {"count": len(trial.episodes), "alarms": [_episode(one.raised, one.cleared) for one in listed], **figures}
        )
        return
    if listed:
        print_table(("raised", "cleared", "lasted", "message"), (_told(one.raised, one.cleared) for one in listed))
    print(f"{len(trial.episodes)} alarms in the last {last}, of {trial.readings:,} readings of {trial.series} series")
    if trial.coarsest:
        print(f"the older ones are kept in rows of up to {span(trial.coarsest)}: their times and holds are as exact as that")
    if trial.skipped:
        print(f"{trial.skipped:,} rows are too wide to tell a silence of this length, and were left out")


def _rule(given: dict[str, Any]) -> Rule:
    """Make a rule of what the options say: those that describe one are the same for `add` and `try`."""
    spans: dict[str, Any] = {
        field: duration_us(given[field]) for field in ("window", "silence", "hold", "clear_after") if given[field]
    }
    kind: Kind = "threshold"
    if given["expression"]:
        kind = "expression"
    elif given["silence"] is not None:
        kind = "silence"
    elif given["per"] is not None or given["window"] is not None:
        kind = "rate"
    plain = ("metric", "above", "below", "clear_above", "clear_below", "hysteresis", "expression")
    return Rule(
        id=given["id"],
        kind=kind,
        name=given.get("name", ""),
        severity=cast(Severity, given["severity"]),
        per=cast(Per | None, given["per"]),
        devices=given["devices"],
        label=given["label"],
        type=given["type"],
        message=given["message"],
        **{field: given[field] for field in plain},
        **spans,
    )


def _read(settings: Settings) -> list[Rule]:
    async def read() -> list[Rule]:
        async with sources.rules(settings, "rules:read") as source:
            return await source.all()

    return asked(settings, read())


def _each(settings: Settings, ids: list[str], what: str) -> None:
    async def change() -> None:
        async with sources.rules(settings, *SCOPES) as source:
            for id in ids:
                await (source.remove(id) if what == "remove" else source.enable(id, what == "enable"))

    asked(settings, change())


def _told(raised: Event, cleared: Event | None) -> tuple[str, ...]:
    """Return a line about an alarm."""
    if cleared is None:
        return iso(raised.time), "not yet", "", raised.message
    return iso(raised.time), iso(cleared.time), span(cleared.time - raised.time), raised.message


def _episode(raised: Event, cleared: Event | None) -> dict[str, Any]:
    return {
        "alarm": raised.alarm,
        "device": raised.device,
        "metric": raised.metric,
        "severity": raised.severity,
        "raised": iso(raised.time),
        "cleared": iso(cleared.time) if cleared else None,
        "value": raised.value,
        "message": raised.message,
    }
