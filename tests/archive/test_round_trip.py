"""Export and import as a user runs them, between real stores."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
import pytest

from agents.downsample import downsample
from isotherm import ledger
from isotherm.cli import main
from isotherm.cli.output import iso
from isotherm.clock import now_us
from isotherm.limits import DAY, HOUR, MINUTE, SECOND
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store import client, layout
from isotherm.store.client import Client
from isotherm.store.reader import Latest, Reader
from isotherm.store.sealer import Sealer
from isotherm.store.writer import Writer
from isotherm.topics import partition_of
from tests.contracts.store import pack
from tests.support.stack import ISOTHERM
from tests.support.valkey import Valkey

PARTITIONS = 8
SERIES = {f"sensor-{number}/{metric}": unit for number in range(6) for metric, unit in (("t", "Cel"), ("rh", '%, "rel"'))}
SERIES |= {"silent-1/count": ""}
AGES = (0, 0, 5 * SECOND, MINUTE, 40 * MINUTE, 100 * MINUTE, 5 * HOUR, 20 * HOUR, 3 * DAY, 12 * DAY, 100 * DAY, 300 * DAY)

_Answer = TypeVar("_Answer")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Valkey, Valkey]]:
    with Valkey(tmp_path_factory.mktemp("one")) as one, Valkey(tmp_path_factory.mktemp("other")) as other:
        yield one, other


@pytest.fixture
def full(servers: tuple[Valkey, Valkey]) -> str:
    """A store with readings of every age, some of them late, in several partitions."""
    url = servers[0].url
    within(url, fill)
    return url


@pytest.fixture
def empty(servers: tuple[Valkey, Valkey]) -> str:
    """A store with nothing in it."""
    within(servers[1].url, clear)
    return servers[1].url


def within(url: str, work: Callable[[Client], Awaitable[_Answer]]) -> _Answer:
    async def call() -> _Answer:
        async with client.connected(Settings(redis=url)) as redis:
            return await work(redis)

    return asyncio.run(call())


async def clear(redis: Client) -> None:
    await redis.evalsha(await redis.script_load("return redis.call('FLUSHALL')"), 0)
    await redis.set(layout.PARTITIONS_KEY, PARTITIONS, nx=True)


async def fill(redis: Client) -> None:
    await clear(redis)
    draw, now = random.Random(7), now_us()
    for name, unit in SERIES.items():
        writer, partition = Writer(redis, "downsample", name), partition_of(name.partition("/")[0], PARTITIONS)
        ages = AGES[-2:] if name.startswith("silent") else AGES
        arrivals = [now - draw.choice(ages) - draw.randrange(20 * SECOND) for _ in range(300)]
        for number in range(10):
            times = arrivals[number::10]
            one = pack(times, [float(draw.randrange(-1000, 1000)) for _ in times], received_at=now, unit="x")
            batch = downsample([replace(one, names=[name], units={name: unit} if unit else {})])
            before = number or None
            assert await writer.commit(partition, batch, expected=before, next_offset=number + 1) is None
    for partition in range(PARTITIONS):
        async for _ in Sealer(redis, partition).sweep():
            pass


async def history(redis: Client) -> dict[tuple[str, str], list[Any]]:
    """Return what every series has in every tier."""
    reader, now = Reader(redis, PARTITIONS), now_us()
    found: dict[tuple[str, str], list[Any]] = {}
    for tier in layout.TIERS:
        span = tier.retention - 2 * MINUTE  # what is about to expire is not there for both
        points = span // tier.step + 2 if tier.step else 1_000_000
        for name, rows in (await reader.query_many(await reader.series(), now - span, now, points)).items():
            columns = (rows.time, rows.count, rows.sum, rows.min, rows.max, rows.last, rows.last_at)
            found[name, tier.name] = list(zip(*(column.tolist() for column in columns), strict=True))
    return found


async def newest(redis: Client) -> list[Latest]:
    return [replace(one, received_at=0) for one in await Reader(redis, PARTITIONS).latest()]


def isotherm(*arguments: str, store: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, which saves the second that a process of its own takes to start."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape") for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("ISOTHERM_REDIS", store)
        patch.setattr("sys.argv", ["isotherm", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    ran = subprocess.CompletedProcess(arguments, int(end.value.code or 0), *texts)
    assert not check or ran.returncode == 0, ran.stderr
    return ran


def summary(*arguments: str, store: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(isotherm(*arguments, "--json", store=store).stdout)
    return found


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_empty_store_answers_as_the_one_that_was_exported(form: str, full: str, empty: str, tmp_path: Path) -> None:
    file = tmp_path / f"history.{form}"
    written = summary("export", str(file), store=full)
    assert written["series"] == len(SERIES)
    assert written["bytes"] == file.stat().st_size
    taken = summary("import", str(file), store=empty)
    assert (taken["rows"], taken["imported"], taken["bad"]) == (written["rows"], written["rows"], 0)
    assert taken["readings"] == 300 * len(SERIES)
    assert (taken["series"], taken["devices"]) == (len(SERIES), 7)
    before, after = within(full, history), within(empty, history)
    assert all(any(rows for (_, tier), rows in before.items() if tier == one.name) for one in layout.TIERS)
    assert after == before
    assert within(empty, newest) == within(full, newest)
    assert {f"{one.device}/{one.metric}": one.unit for one in within(empty, newest)} == SERIES
    assert within(empty, lambda redis: Registry(redis).names()) == sorted({name.partition("/")[0] for name in SERIES})

    lines = within(empty, lambda redis: ledger.read(redis, PARTITIONS, "log"))
    assert list(lines) == ["import"]
    line = lines["import"]
    assert line.received == line.accepted == line.stored == taken["readings"]
    assert (line.in_flight, line.lost) == (0, 0)

    again = summary("import", str(file.rename(tmp_path / f"other-name.{form}")), store=empty)
    assert (again["imported"], again["readings"], again["before"]) == (0, 0, written["rows"])
    assert within(empty, history) == after
    assert within(empty, lambda redis: ledger.read(redis, PARTITIONS, "log")) == lines


KILLED = """
import os, signal, sys
import isotherm.archive.csv_file as csv_file
from isotherm.store.writer import Writer
csv_file.BLOCK_ROWS = 200
commits, commit = 0, Writer.commit
async def counted(*arguments, **named):
    global commits
    commits += 1
    if commits == {at} and not {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    answer = await commit(*arguments, **named)
    if commits == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
Writer.commit = counted
from isotherm.cli import main
sys.argv = ["isotherm", "import", {file!r}]
main()
"""


@pytest.mark.parametrize("after", [False, True])
def test_an_import_that_was_killed_is_completed_by_another(after: bool, full: str, empty: str, tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    rows = summary("export", str(file), store=full)["rows"]
    for at in (5, 4):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED.format(file=str(file), at=at, after=after)],
            env={**os.environ, "ISOTHERM_REDIS": empty}, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    taken = summary("import", str(file), store=empty)
    assert 0 < taken["before"] < rows
    assert taken["imported"] + taken["before"] == rows
    assert within(empty, history) == within(full, history)


def test_two_imports_at_a_time_store_each_row_once(full: str, empty: str, tmp_path: Path) -> None:
    file = tmp_path / "history.parquet"
    isotherm("export", str(file), store=full)
    both = [
        subprocess.Popen(
            [*ISOTHERM, "import", str(file), "--merge"],
            env={**os.environ, "ISOTHERM_REDIS": empty},
            stdout=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    assert [one.wait(60) for one in both] == [0, 0]
    assert within(empty, history) == within(full, history)


def test_readings_that_are_there_from_elsewhere_are_not_added_to_unasked(full: str, tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    isotherm("export", str(file), store=full)
    before = within(full, history)
    refused = isotherm("import", str(file), store=full, check=False)
    assert refused.returncode == 1
    assert "sensor-0/rh, sensor-0/t, sensor-1/rh and 10 more" in refused.stderr
    assert "--merge" in refused.stderr
    assert within(full, history) == before
    summary("import", str(file), "--merge", store=full)
    count = 1
    for key, records in within(full, history).items():
        if key[1] == layout.RAW.name:
            assert len(records) == 2 * len(before[key])
        else:
            assert [one[count] for one in records] == [2 * one[count] for one in before[key]]


def test_times_beside_those_of_the_file_are_no_overlap(empty: str, tmp_path: Path) -> None:
    begin = now_us() // HOUR * HOUR - 10 * DAY
    for number, times in enumerate(((0, 1, 59), (60, 61), (121,), (119,))):
        file = tmp_path / f"{number}.csv"
        write_readings(file, [("a", "t", begin + minute * MINUTE, 1.0, "") for minute in times])
        isotherm("import", str(file), store=empty)
    file = tmp_path / "around.csv"
    write_readings(file, [("a", "t", begin + minute * MINUTE + SECOND, 1.0, "") for minute in (59, 60)])
    assert isotherm("import", str(file), store=empty, check=False).returncode == 1


def test_another_unit_is_not_mixed_in_unasked(empty: str, tmp_path: Path) -> None:
    now = now_us()
    for name, time, unit in (("a.csv", now - DAY, "Cel"), ("b.csv", now, "K"), ("c.csv", now, "")):
        write_readings(tmp_path / name, [("a", "t", time, 1.0, unit)])
    isotherm("import", str(tmp_path / "a.csv"), store=empty)
    refused = isotherm("import", str(tmp_path / "b.csv"), store=empty, check=False)
    assert refused.returncode == 1
    assert "a/t (the file: K, the store: Cel)" in refused.stderr
    isotherm("import", str(tmp_path / "c.csv"), store=empty)
    isotherm("import", str(tmp_path / "b.csv"), "--merge", store=empty)
    assert [one.unit for one in within(empty, newest)] == ["Cel"]


def write_readings(file: Path, readings: Sequence[tuple[str, str, int, float, str]]) -> None:
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("device", "metric", "time", "value", "unit"))
        for device, metric, time, value, unit in readings:
            writer.writerow((device, metric, iso(time), value, unit))


def test_nothing_is_imported_when_a_row_is_bad_unless_it_may_be_left_out(empty: str, tmp_path: Path) -> None:
    now, file = now_us(), tmp_path / "rows.csv"
    rows = [("a", "t", now - n * SECOND, float(n), "Cel") for n in range(30)]
    rows[3] = ("a, the first", "t", now, 1.0, "")
    rows[7] = ("a", 't"', now, 1.0, "")
    rows[9] = ("a", "t", now - 400 * DAY, 1.0, "Cel")
    write_readings(file, rows)
    refused = isotherm("import", str(file), store=empty, check=False)
    assert refused.returncode == 1
    assert "3 of 30 rows are bad; nothing was imported" in refused.stderr
    assert "line 5: name: 'a, the first' is no device name" in refused.stderr
    assert within(empty, history) == {}
    taken = summary("import", str(file), "--skip-bad", store=empty)
    assert (taken["imported"], taken["bad"], taken["reasons"]) == (27, 3, {"name": 2, "time": 1})
    rejects = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv.rejects.csv").read_text())))
    assert [(row["line"], row["reason"], row["device"]) for row in rejects] == [
        ("5", "name", "a, the first"), ("9", "name", "a"), ("11", "time", "a"),
    ]  # fmt: skip
    found = within(empty, lambda redis: Reader(redis, PARTITIONS).query("a/t", now - HOUR, now + 1))
    assert found.last.tolist() == [float(n) for n in reversed(range(30)) if n not in (3, 7, 9)]
    write_readings(file, rows[3:4])
    taken = summary("import", str(file), "--skip-bad", store=empty)
    assert (taken["imported"], taken["bad"]) == (0, 1)


def test_an_empty_store_is_a_file_without_rows(empty: str, tmp_path: Path) -> None:
    for form in ("csv", "parquet"):
        file = tmp_path / f"none.{form}"
        assert summary("export", str(file), store=empty)["rows"] == 0
        assert summary("import", str(file), store=empty)["rows"] == 0
    assert within(empty, history) == {}
    missing = isotherm("export", str(tmp_path / "x.csv"), "--series", "sensor-*", store=empty, check=False)
    assert missing.returncode == 1
    assert "no series matches 'sensor-*'" in missing.stderr
    assert not list(tmp_path.glob("x.csv*"))


def test_series_and_times_can_be_chosen(full: str, tmp_path: Path) -> None:
    found = list(csv.DictReader(io.StringIO(isotherm("export", "-", "--series", "sensor-[12]/t", store=full).stdout)))
    assert {(row["device"], row["metric"], row["unit"]) for row in found} == {
        ("sensor-1", "t", "Cel"), ("sensor-2", "t", "Cel"),
    }  # fmt: skip
    assert sum(int(row["count"]) for row in found) == 600
    assert {row["step"] for row in found} == {"0", "10", "60", "3600"}
    for device in ("sensor-1", "sensor-2"):
        times = [row["time"] for row in found if row["device"] == device]
        assert times == sorted(times)
    file = tmp_path / "some.pq"
    isotherm("export", str(file), "--last", "30m", store=full)
    table = pq.read_table(file)
    assert set(table["step"].to_pylist()) == {0.0}
    assert table["time"].to_pylist() == table["last_at"].to_pylist()
    edge = found[5]["time"]
    early, late = (
        list(csv.DictReader(io.StringIO(isotherm("export", "-", "--series", "sensor-1/t", *range, store=full).stdout)))
        for range in (("--until", edge), ("--since", edge))
    )
    assert early + late == [row for row in found if row["device"] == "sensor-1"]


def test_a_file_is_not_replaced_unasked(empty: str, tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    file.write_text("mine")
    refused = isotherm("export", str(file), store=empty, check=False)
    assert (refused.returncode, file.read_text()) == (1, "mine")
    assert "exists; --force replaces it" in refused.stderr
    isotherm("export", str(file), "--force", store=empty)
    assert file.read_text().startswith("device,metric")
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_garbage_is_refused_in_one_line(name: str, empty: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(random.Random(1).randbytes(100_000))
    refused = isotherm("import", str(file), store=empty, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"isotherm: {file}")
    assert len(refused.stderr.splitlines()) == 1
    assert isotherm("import", str(tmp_path / f"no-{name}"), store=empty, check=False).returncode == 1


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_pandas_is_not_imported(form: str, full: str, empty: str, tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom isotherm.cli import main\n"
        f"for command, store in (('export', {full!r}), ('import', {empty!r})):\n"
        "    os.environ['ISOTHERM_REDIS'] = store\n"
        f"    sys.argv = ['isotherm', command, {str(tmp_path / 'rows')!r}, '--format', {form!r}]\n"
        "    try:\n        main()\n    except SystemExit as end:\n        assert not end.code\n"
        "assert 'pandas' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_row_without_a_value_is_a_bad_row(empty: str, tmp_path: Path) -> None:
    file = tmp_path / "one.csv"
    file.write_text(
        "device,metric,time,value,unit\nx,a,2026-11-23T10:10:00Z,,Cel\nx,a,2026-11-23,1,Cel\nx,a,2026-11-23T10:10:00Z,1_0,Cel\n"
    )
    refused = isotherm("import", str(file), store=empty, check=False)
    assert refused.returncode == 1
    assert "3 of 3 rows are bad" in refused.stderr
    assert "line 2: malformed: value is '', expected a number" in refused.stderr
    assert summary("import", str(file), "--skip-bad", store=empty)["bad"] == 3


def test_a_sum_of_extreme_values_comes_back(empty: str, tmp_path: Path) -> None:
    file = tmp_path / "extreme.csv"
    at = (now_us() - 3 * HOUR) // MINUTE * MINUTE
    write_readings(file, [("x", "a", at + second * SECOND, 1e308, "") for second in range(2)])
    summary("import", str(file), store=empty)
    exported = tmp_path / "again.csv"
    assert summary("export", str(exported), store=empty)["rows"] == 1
    within(empty, clear)
    assert summary("import", str(exported), store=empty)["readings"] == 2
