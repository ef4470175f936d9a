"""``isotherm alarms``: what is wrong, who has seen it, and what nobody wants to hear of for a while."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Any

import typer

from isotherm.alarms import Alarm
from isotherm.cli.options import AsJson, DataDir, duration_seconds
from isotherm.cli.output import ago, asked, iso, print_json, print_table
from isotherm.cli.sources import alarms as sources
from isotherm.clock import now_us
from isotherm.events import SEVERITIES
from isotherm.settings import Settings

READ, WRITE = "alarms:read", "alarms:write"

Key = Annotated[str, typer.Argument(help="RULE/DEVICE/METRIC, from `isotherm alarms`.")]
KeyOrRule = Annotated[str, typer.Argument(help="RULE/DEVICE/METRIC, or a RULE for all of its alarms.")]
By = Annotated[str | None, typer.Option(help="Who does it [default: who is logged in].", show_default=False)]

app = typer.Typer(help="List alarms, newest first; acknowledge and shelve them.")


@app.callback(invoke_without_command=True)
def alarms(
    context: typer.Context,
    severity: Annotated[str | None, typer.Option(help=f"Only as bad as this, or worse: {', '.join(SEVERITIES)}.")] = None,
    device: Annotated[str, typer.Option(help="Only of these devices: a name, or a pattern.")] = "*",
    everything: Annotated[bool, typer.Option("--all", help="Also what is shelved, or cleared and acknowledged.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the alarms that somebody should look at, newest first: active, or not acknowledged, and not shelved."""
    if context.invoked_subcommand is not None:
        return
    if severity is not None and severity not in SEVERITIES:
        raise typer.BadParameter(f"{severity!r}, expected one of {', '.join(SEVERITIES)}")
    worst = SEVERITIES[: [*SEVERITIES].index(severity) + 1] if severity in SEVERITIES else SEVERITIES
    settings = Settings.load(data_dir=data_dir)

    async def read() -> list[Alarm]:
        async with sources.alarms(settings, READ) as source:
            return await source.all()

    rows = [one for one in asked(settings, read()) if one.row.severity in worst and fnmatchcase(one.row.device, device)]
    shown = [one for one in rows if everything or one.needs_attention]
    if as_json:
        print_json([fields(one) for one in shown])
        return
    if shown:
        now = now_us()
        names = ("alarm", "severity", "status", "raised", "times", "message")
        print_table(names, (_line(one, now) for one in shown))
    else:
        print("there are no alarms")
    if len(rows) > len(shown):
        print(f"{len(rows) - len(shown)} more are shelved, or cleared and acknowledged: --all")


@app.command()
def ack(
    key: Key,
    note: Annotated[str, typer.Option(help="What you have to say.")] = "",
    by: By = None,
    data_dir: DataDir = None,
) -> None:
    """Acknowledge an alarm: somebody has seen it. When it is raised anew it is not acknowledged."""
    settings = Settings.load(data_dir=data_dir)

    async def act() -> None:
        async with sources.alarms(settings, READ, WRITE) as source:
            await source.acknowledge(key, note, by)

    asked(settings, act())
    print(f"acknowledged {key}")


@app.command()
def shelve(
    key: KeyOrRule,
    span: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 7d.")],
    by: By = None,
    data_dir: DataDir = None,
) -> None:
    """Not hear of an alarm for a while, however often it is raised."""
    settings, seconds = Settings.load(data_dir=data_dir), duration_seconds(span)

    async def act() -> int:
        async with sources.alarms(settings, WRITE) as source:
            return await source.shelve(key, seconds, by)

    until = asked(settings, act())
    print(f"shelved {key} until {iso(until)}")


@app.command()
def unshelve(key: KeyOrRule, by: By = None, data_dir: DataDir = None) -> None:
    """Hear of an alarm again."""
    settings = Settings.load(data_dir=data_dir)

    async def act() -> None:
        async with sources.alarms(settings, WRITE) as source:
            await source.unshelve(key, by)

    asked(settings, act())
    print(f"unshelved {key}")


def fields(alarm: Alarm) -> dict[str, Any]:
    """Return an alarm as plain values."""
    row, seen, shelf = alarm.row, alarm.acknowledged, alarm.shelved
    return {
        "alarm": row.key,
        "rule": row.rule,
        "device": row.device,
        "metric": row.metric,
        "severity": row.severity,
        "status": alarm.status,
        "since": iso(row.since),
        "cleared": iso(row.cleared) if row.cleared else None,
        "times": row.times,
        "value": row.value,
        "unit": row.unit,
        "message": row.message,
        "acknowledged": {"by": seen.by, "time": iso(seen.time), "note": seen.note} if seen else None,
        "shelved": {"by": shelf.by, "until": iso(shelf.until)} if shelf else None,
    }


def _line(alarm: Alarm, now: int) -> tuple[str, ...]:
    row = alarm.row
    return (row.key, row.severity, alarm.status, ago(now - row.since), str(row.times), row.message)
