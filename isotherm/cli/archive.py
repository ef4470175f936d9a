"""``isotherm export`` and ``isotherm import``: history into a file, and back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isotherm.cli.options import AsJson, DataDir, duration_us
from isotherm.cli.output import on_the_server, print_json, progress, run
from isotherm.clock import now_us
from isotherm.errors import IsothermError
from isotherm.limits import MAX_FUTURE_US
from isotherm.settings import Settings

if TYPE_CHECKING:
    from isotherm.archive.take_in import Import, Survey
    from isotherm.archive.take_out import Taken

SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}
STDOUT = Path("-")

Format = Annotated[str | None, typer.Option("--format", help="csv or parquet; by default as the file's name ends.")]
Advance = Callable[[int], object]


def export(
    file: Annotated[Path, typer.Argument(help="Where to, such as history.parquet; - writes CSV to standard output.")],
    form: Format = None,
    series: Annotated[str, typer.Option(help="Series, as DEVICE/METRIC with * and ?: 'sensor-*/temperature'.")] = "*",
    last: Annotated[str | None, typer.Option(help="How far back: 90s, 10m, 24h, 30d. By default everything.")] = None,
    since: Annotated[str | None, typer.Option(help="From this time on, ISO 8601, UTC unless it says otherwise.")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time, ISO 8601.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Write history to a CSV or Parquet file.

    Each row is a raw reading (step 0), or a slot of 10 s, 1 min or 1 h where only that is kept of its age; no two rows stand
    for the same reading. Rows at the edges of a range are whole. Attributes (string values) are not written. The file is
    FILE.part until it is complete. `isotherm import` takes it back.
    """
    from isotherm.archive.rows import open_sink
    from isotherm.archive.take_out import Taken, take_out
    from isotherm.new_file import NewFile
    from isotherm.store import client
    from isotherm.store.reader import Reader

    if form is None and file == STDOUT:
        form = "csv"
    form = _format(file, form)
    if file == STDOUT and form != "csv":
        raise typer.BadParameter("standard output takes csv only", param_hint="--format")
    start, end = _range(last, since, until)
    settings = on_the_server(Settings.load(data_dir=data_dir))

    async def write(out: Any, advance: Callable[[int, int], object]) -> tuple[int, int]:
        async with client.connected(settings) as redis:
            reader = Reader(redis, settings.partitions)
            chosen = [one for one in await reader.latest() if fnmatchcase(f"{one.device}/{one.metric}", series)]
            if not chosen and series != "*":
                raise IsothermError(f"no series matches {series!r}; see: isotherm devices")
            sink = open_sink(out, form)
            counts = await take_out(reader, chosen, start, end, sink, lambda at: advance(at, len(chosen)))
            sink.close()
            return counts

    try:
        with progress("exporting") as advance:
            if file == STDOUT:
                run(settings, write(sys.stdout.buffer, advance))
                sys.stdout.buffer.flush()
                return
            new = NewFile(file, replace=force)
            with new as out:
                rows, found = run(settings, write(out, advance))
    except BrokenPipeError:
        raise
    except OSError as error:
        where = "standard output" if file == STDOUT else file
        raise IsothermError(f"{where} cannot be written: {error.strerror}") from error
    taken = Taken(rows, found, new.bytes)
    _say_exported(file, form, taken, as_json)


def _say_exported(file: Path, form: str, taken: Taken, as_json: bool) -> None:
    if as_json:
        summary = {"file": str(file), "format": form, "rows": taken.rows, "series": taken.series, "bytes": taken.bytes}
        print_json(summary)
    else:
        print(f"{file}: {taken.rows:,} rows of {taken.series:,} series, {taken.bytes:,} bytes")


def import_(
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file.")],
    form: Format = None,
    merge: Annotated[bool, typer.Option("--merge", help="Go on though the store has readings of the same times.")] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Take in the good rows, and write the others to FILE.rejects.csv.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Take in history from a file that `isotherm export` wrote, or from one of raw readings.

    The latter has columns device, metric, time, value and perhaps unit; others are passed over. A time is ISO 8601 (UTC
    unless it says otherwise), or a timestamp in Parquet. Rows older than the store keeps are bad rows.

    The whole file is checked first, and nothing is stored when a row of it is bad. Importing a file again, also after an
    import was killed, changes nothing twice: a file is known by its content. But readings that the store has from elsewhere
    would be ADDED to, so that they count twice; where the store has readings of the same series and times, nothing is stored
    without --merge. Attributes (string values), tokens and rejects are not part of a file.
    """
    from isotherm.archive.rows import open_source
    from isotherm.archive.take_in import Done, Import, digest, survey
    from isotherm.store import client

    form = _format(file, form)
    settings = on_the_server(Settings.load(data_dir=data_dir))
    now = now_us()
    rejects = file.with_name(file.name + ".rejects.csv")

    async def take_in() -> tuple[Survey, Done]:
        async with client.connected(settings) as redis:
            log_id = digest(file)
            source = open_source(file, form)
            with progress("checking") as advance:
                found = await survey(source, now, lambda at: advance(at, source.size), rejects if skip_bad else None)
            if found.bad and not skip_bad:
                raise IsothermError(_faults(file, found))
            work = Import(redis, settings.partitions, log_id, now)
            if not await work.begin() and not merge:
                await _refuse_overlap(work, found)
            with progress("importing") as advance:
                done = await work.apply(source, found.units, lambda at: advance(at, source.size))
            return found, done

    try:
        found, done = run(settings, take_in())
    except KeyboardInterrupt:
        print(f"interrupted; import {file} again to go on: what is stored is not stored twice", file=sys.stderr)
        raise typer.Exit(130) from None
    devices = {series.partition("/")[0] for series in found.ranges}
    if as_json:
        print_json(
            {
                "file": str(file),
                "rows": found.rows,
                "imported": done.rows,
                "readings": done.readings,
                "before": done.before,
                "bad": found.bad,
                "reasons": dict(found.reasons),
                "rejects": str(rejects) if found.bad else None,
                "series": len(found.ranges),
                "devices": len(devices),
            }
        )
        return
    before = f"; {done.before:,} rows were imported before" if done.before else ""
    print(f"{file}: {done.rows:,} rows, {done.readings:,} readings of {len(found.ranges):,} series{before}")
    if found.bad:
        print(f"{found.bad:,} bad rows: {rejects}")


async def _refuse_overlap(work: Import, found: Survey) -> None:
    with progress("comparing with the store") as advance:
        both = await work.overlaps(found.ranges, lambda at: advance(at, len(found.ranges)))
    if both:
        raise IsothermError(
            f"the store has readings of {_some(both)} in the file's range of time already: those of the file would be added "
            "to them, and what is in both would count twice. --merge does that; nothing was imported"
        )
    if units := await work.other_units(found.units):
        texts = [f"{name} (the file: {here}, the store: {there})" for name, (here, there) in units.items()]
        raise IsothermError(
            f"the unit of {_some(texts)} differs. --merge takes the values as they are, in the store's unit; nothing was "
            "imported"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _faults(file: Path, found: Survey) -> str:
    lines = [f"  line {line}: {fault.reason}: {fault.detail}" for line, fault in found.faults]
    more = [f"  and {found.bad - len(lines):,} more"] if found.bad > len(lines) else []
    head = f"{file}: {found.bad:,} of {found.rows:,} rows are bad; nothing was imported (--skip-bad takes in the others)"
    return "\n".join([head, *lines, *more])


def _format(file: Path, form: str | None) -> str:
    form = form or SUFFIXES.get(file.suffix.lower(), "")
    if form not in SUFFIXES.values():
        got = repr(form) if form else f"a file named {file.name!r}"
        raise typer.BadParameter(f"{got}, expected csv or parquet", param_hint="--format")
    return form


def _range(last: str | None, since: str | None, until: str | None) -> tuple[int, int]:
    if last is not None and since is not None:
        raise typer.BadParameter("--last and --since exclude each other")
    from isotherm.store.layout import ROLLUPS

    now = now_us()
    end = _time(until, "--until") if until is not None else now + MAX_FUTURE_US
    start = now - ROLLUPS[-1].retention - ROLLUPS[-1].chunk
    if since is not None:
        start = max(start, _time(since, "--since"))
    if last is not None:
        start = max(start, min(now, end) - duration_us(last))
    if end < start:
        raise typer.BadParameter("the range ends before it begins, or before anything that is kept")
    return start, end


def _time(text: str, option: str) -> int:
    from isotherm.archive.csv_file import iso_us

    try:
        return iso_us(text if len(text) > len("2026-11-23") else f"{text}T00:00:00")
    except ValueError:
        raise typer.BadParameter(f"{text!r}, expected ISO 8601 such as 2026-11-23T08:00Z", param_hint=option) from None
