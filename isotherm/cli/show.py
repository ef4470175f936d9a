"""Commands that show what is there: query, tail, ledger."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from isotherm.cli.options import AsJson, DataDir, duration_us
from isotherm.cli.output import as_shown, asked, iso, print_json, print_table, run
from isotherm.clock import now_us
from isotherm.errors import IsothermError
from isotherm.settings import Settings

_Answer = TypeVar("_Answer")


def query(
    device: Annotated[str, typer.Argument()],
    metric: Annotated[str, typer.Argument()],
    last: Annotated[str, typer.Option(help="How far back: 90s, 10m, 24h, 7d.")] = "10m",
    points: Annotated[int, typer.Option(help="Greatest number of rows.", min=1, max=100_000)] = 1000,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Print the history of one series, at the resolution that suits its length."""
    from isotherm.cli.sources.series import COLUMNS, Row, history

    settings = Settings.load(data_dir=data_dir)
    span = duration_us(last)

    async def read() -> list[Row]:
        async with history(settings) as source:
            now = now_us()
            return await source.rows(f"{device}/{metric}", now - span, now + 1, points)

    rows = asked(settings, read())
    if not rows and not (as_json or as_csv):
        raise IsothermError(f"{device}/{metric} has no readings in the last {last}; see: isotherm devices")
    if as_json:
        print_json([dict(zip(COLUMNS, (iso(row.time), *row[1:]), strict=True)) for row in rows])
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((iso(row[0]), *row[1:]) for row in rows)
    else:
        print_table(COLUMNS, ((iso(row[0]), str(row[1]), *(f"{value:.4g}" for value in row[2:])) for row in rows))


def tail(
    topic: Annotated[str, typer.Argument(help="readings, rejects, events, commands or replies")] = "readings",
    last: Annotated[int, typer.Option(help="Begin so many records before the end of each partition.", min=0)] = 0,
    follow: Annotated[bool, typer.Option(help="Wait for more, until Ctrl-C.")] = True,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Print a Kafka topic readably, as it grows."""
    from isotherm import kafka, topics

    chosen = {one.name: one for one in topics.ALL}.get(topic)
    if chosen is None:
        raise typer.BadParameter(f"{topic!r}, expected one of {', '.join(one.name for one in topics.ALL)}")
    settings = Settings.load(data_dir=data_dir)

    async def print_all() -> None:
        async with kafka.Reader(settings) as reader:
            async for record in reader.follow(chosen, last=last, stop=not follow):
                for line in _lines(record, as_json):
                    print(as_shown(line), flush=True)

    try:
        run(settings, print_all())
    except KeyboardInterrupt:
        raise typer.Exit from None


def _lines(record: Any, as_json: bool) -> Iterator[str]:
    """Yield a line for each reading of a pack, or the record's own JSON."""
    from isotherm.pack import MalformedPack, Pack
    from isotherm.topics import READINGS

    where = f"{record.partition}/{record.offset}"
    if record.topic != READINGS.name:
        yield record.value.decode(errors="replace") if as_json else f"{where} {record.value.decode(errors='replace')}"
        return
    try:
        pack = Pack.from_ipc(record.value)
    except MalformedPack as error:
        yield f"{where} is no pack: {error}"
        return
    for index, time, value in zip(pack.series.tolist(), pack.time.tolist(), pack.value.tolist(), strict=True):
        if as_json:
            fields = {"series": pack.names[index], "time": iso(time), "value": value, "connector": pack.connector}
            yield msgspec.json.encode({**fields, "partition": record.partition, "offset": record.offset}).decode()
        else:
            yield f"{iso(time)}  {pack.names[index]:40} {value:12g}  {pack.connector}  {where}"


def ledger(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Print what was received, accepted, rejected, stored and is in flight: in all, and for each connector."""
    from rich.console import Console

    from isotherm.cli.sources.ledger import the_ledger
    from isotherm.ledger import Line
    from isotherm.local.screen import ledger_table

    settings = Settings.load(data_dir=data_dir)

    async def read() -> dict[str, Line]:
        async with the_ledger(settings) as source:
            return await source.lines()

    lines = asked(settings, read())
    if as_json:
        print_json({"total": sum(lines.values(), Line()), "connectors": lines})
    else:
        Console().print(ledger_table(lines))
