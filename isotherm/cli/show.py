"""Commands that show what is there: devices, query, tail, ledger."""

from __future__ import annotations

import asyncio
import csv
import sys
from collections.abc import Coroutine, Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from isotherm import stackfile
from isotherm.cli.options import AsJson, DataDir, duration_us
from isotherm.clock import now_us
from isotherm.errors import IsothermError, Unavailable
from isotherm.settings import Settings

_Answer = TypeVar("_Answer")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (devices, query, tail, ledger):
        app.command()(command)


def devices(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List every device with its newest values."""
    from isotherm.store import client
    from isotherm.store.reader import Reader

    settings = Settings.load(data_dir=data_dir)

    async def read() -> list[Any]:
        async with client.connected(settings) as redis:
            return list(await Reader(redis, settings.partitions).latest())

    rows = _run(settings, read())
    if as_json:
        _print_json(
            [
                {
                    "device": row.device,
                    "metric": row.metric,
                    "value": row.value,
                    "unit": row.unit,
                    "time": _iso(row.time),
                    "received_at": _iso(row.received_at),
                }
                for row in rows
            ]
        )
    elif not rows:
        print("no device has sent anything yet; try: isotherm simulate")
    else:
        now = now_us()
        _print_table(
            ("device", "metric", "value", "unit", "last seen"),
            ((row.device, row.metric, f"{row.value:g}", row.unit, _ago(now - row.received_at)) for row in rows),
        )


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
    from isotherm.store import client
    from isotherm.store.reader import History, Reader

    settings = Settings.load(data_dir=data_dir)
    span = duration_us(last)

    async def read() -> History:
        async with client.connected(settings) as redis:
            now = now_us()
            return await Reader(redis, settings.partitions).query(f"{device}/{metric}", now - span, now + 1, points)

    found = _run(settings, read())
    if not len(found) and not (as_json or as_csv):
        raise IsothermError(f"{device}/{metric} has no readings in the last {last}; see: isotherm devices")
    names = ("time", "count", "min", "mean", "max", "last")
    columns = (found.time, found.count, found.min, found.mean, found.max, found.last)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    if as_json:
        _print_json([dict(zip(names, (_iso(row[0]), *row[1:]), strict=True)) for row in rows])
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows((_iso(row[0]), *row[1:]) for row in rows)
    else:
        _print_table(names, ((_iso(row[0]), str(row[1]), *(f"{value:.4g}" for value in row[2:])) for row in rows))


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
                    print(line, flush=True)

    try:
        _run(settings, print_all())
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
            fields = {"series": pack.names[index], "time": _iso(time), "value": value, "connector": pack.connector}
            yield msgspec.json.encode({**fields, "partition": record.partition, "offset": record.offset}).decode()
        else:
            yield f"{_iso(time)}  {pack.names[index]:40} {value:12g}  {pack.connector}  {where}"


def ledger(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Print what was received, accepted, rejected, stored and is in flight: in all, and for each connector."""
    from rich.console import Console

    from isotherm import kafka
    from isotherm.ledger import Line
    from isotherm.local.screen import ledger_table
    from isotherm.local.stack import read_ledger

    settings = Settings.load(data_dir=data_dir)

    async def read() -> dict[str, Line]:
        return await read_ledger(settings, await kafka.cluster_id(settings))

    lines = _run(settings, read())
    if as_json:
        _print_json({"total": sum(lines.values(), Line()), "connectors": lines})
    else:
        Console().print(ledger_table(lines))


def _run(settings: Settings, work: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Run a coroutine; where a server does not answer because none was started, say how to start one."""
    try:
        return asyncio.run(work)
    except Unavailable as error:
        if stackfile.read(settings.data_dir) is not None:
            raise
        raise Unavailable(
            f"{error}\n  No local stack runs in {settings.data_dir}: start one with `isotherm up`, name its directory with "
            "--data-dir, or set ISOTHERM_REDIS and ISOTHERM_KAFKA"
        ) from error


def _print_json(value: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _print_table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*names, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=True).print(table)


def _iso(time: int) -> str:
    return datetime.fromtimestamp(time / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ago(span: int) -> str:
    seconds = max(0, span) / 1e6
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
