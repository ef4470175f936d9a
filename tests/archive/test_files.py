"""Rows of CSV and Parquet, and what is wrong with them: no store."""

from __future__ import annotations

import asyncio
import contextlib
import doctest
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotherm.archive import csv_file
from isotherm.archive.check import Checker
from isotherm.archive.csv_file import iso_us
from isotherm.archive.rows import COLUMNS, Name, Rows, open_sink, open_source
from isotherm.archive.take_in import survey
from isotherm.errors import IsothermError
from isotherm.limits import DAY, HOUR, MAX_FUTURE_US, MAX_PAST_US, MINUTE, SECOND
from isotherm.new_file import NewFile
from isotherm.store.history import History

FORMS = ("csv", "parquet")
NOW = 1_795_424_400_000_000  # a full hour
SLOT = {"step": "60", "count": "2", "sum": "3", "min": "1", "max": "2", "last": "2"}


def test_the_example_is_true() -> None:
    assert doctest.testmod(csv_file).failed == 0


def history(time: list[int], width: int, value: list[float]) -> History:
    columns = np.array(time, dtype=np.int64), np.full(len(time), width, dtype=np.int64), np.ones(len(time), dtype=np.int64)
    values = np.array(value, dtype=np.float64)
    return History(*columns, values, values, values, values, columns[0] + width // 2)


def written(form: str, *parts: tuple[Name, History]) -> bytes:
    file = io.BytesIO()
    sink = open_sink(file, form)
    for part in parts:
        sink.write(*part)
    sink.close()
    return file.getvalue()


def read(path: Path, form: str) -> list[Rows]:
    return list(open_source(path, form).blocks())


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TIMES = st.integers(0, 4_000_000_000_000_000)
UNITS = st.sampled_from(["", "Cel", '%RH, "relative"', "°C\n", "'"])


@pytest.mark.parametrize("form", FORMS)
@given(
    rows=st.lists(st.tuples(TIMES, FLOATS), max_size=20),
    width=st.sampled_from([0, 1, SECOND // 2, 10 * SECOND, HOUR]),
    unit=UNITS,
)
def test_what_is_written_is_read_again_to_the_last_bit(
    form: str, rows: list[tuple[int, float]], width: int, unit: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    part = history([time for time, _ in rows], width, [value for _, value in rows])
    path = tmp_path_factory.getbasetemp() / f"rows.{form}"
    path.write_bytes(written(form, (Name("a", "t", unit), part), (Name("b", "x/y", ""), part)))
    blocks = read(path, form)
    if not rows:
        assert blocks == []
        return
    [found] = blocks
    assert found.faults == {}
    assert [found.names[index] for index in found.name] == [Name("a", "t", unit)] * len(rows) + [Name("b", "x/y", "")] * len(
        rows
    )
    for column in ("time", "count", "sum", "min", "max", "last", "last_at"):
        assert getattr(found, column).tobytes() == 2 * getattr(part, column).tobytes(), column
    assert found.step.tolist() == 2 * part.width.tolist()


@pytest.mark.parametrize("form", FORMS)
def test_rows_come_in_blocks_and_know_their_number(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("csv_file", "parquet_file"):
        monkeypatch.setattr(f"isotherm.archive.{module}.BLOCK_ROWS", 7)
    monkeypatch.setattr("isotherm.archive.parquet_file.ROW_GROUP_ROWS", 10)
    path = tmp_path / f"rows.{form}"
    parts = [(Name(f"d{n}", "t", ""), history(list(range(n)), 0, [0.0] * n)) for n in range(1, 12)]
    path.write_bytes(written(form, *parts))
    blocks = read(path, form)
    assert sum(map(len, blocks)) == 66
    assert [block.first for block in blocks] == np.cumsum([0, *map(len, blocks)])[:-1].tolist()
    assert [line for block in blocks for line in block.line] == list(range(1, 67) if form == "parquet" else range(2, 68))
    assert [block.names[i].device for block in blocks for i in block.name] == [
        f"d{n}" for n in range(1, 12) for _ in range(n)
    ]


def table(**columns: object) -> pa.Table:
    return pa.table(columns)


def test_parquet_of_others_is_read_whatever_its_widths(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    times = [1_000_000, 2_500_000]
    for time in (
        pa.array(times, pa.timestamp("us")),
        pa.array([t * 1000 for t in times], pa.timestamp("ns", tz="Europe/Rome")),
    ):
        for name in (pa.array(["a", "b"], pa.large_utf8()), pa.array(["a", "b"]).dictionary_encode()):
            for value in (pa.array([1, 2], pa.int8()), pa.array([1.0, 2.0], pa.float32())):
                pq.write_table(table(extra=[None, None], device=name, metric=name, time=time, value=value), path)
                [found] = read(path, "parquet")
                assert found.faults == {}
                assert [found.names[index] for index in found.name] == [Name("a", "a", ""), Name("b", "b", "")]
                assert (found.time.tolist(), found.last.tolist()) == (times, [1.0, 2.0])


def test_a_null_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    time = pa.array([1, None, 1, 1], pa.timestamp("us"))
    device, value = pa.array(["a", "a", None, "a"]), pa.array([1.0, 1.0, 1.0, None])
    for unit in (pa.array([None] * 4, pa.utf8()), pa.nulls(4)):
        pq.write_table(table(device=device, metric=["t"] * 4, time=time, value=value, unit=unit), path)
        [found] = read(path, "parquet")
        assert {found.names[index].unit for index in found.name} == {""}
    assert {index: fault.detail for index, fault in found.faults.items()} == {
        1: "time is null", 2: "device is null", 3: "value is null",
    }  # fmt: skip


def test_csv_of_others_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(
        b'\xef\xbb\xbfvalue,"device",metric,note,time\r\n'
        b"1,a,t,,1970-01-01T00:00:01Z\r\n\r\n"
        b'2e3,a,t,"two\nlines",1970-01-01T01:00:02.5+01:00\r\n'
        b"3,a,t,,1970-01-01 00:00:03\r\n"
    )
    [found] = read(path, "csv")
    assert found.faults == {}
    assert found.line.tolist() == [2, 4, 6]
    assert found.time.tolist() == [1_000_000, 2_500_000, 3_000_000]
    assert found.last.tolist() == [1.0, 2000.0, 3.0]
    assert found.names == [Name("a", "t", "")]


@pytest.mark.parametrize(
    ("form", "content", "said"),
    [
        ("csv", b"", "no column 'device'"),
        ("csv", b"\x00\xff\xfe garbage \x80", "no column 'device'.* found '.x00"),
        ("csv", b"device;metric;time;value\n", "no column 'device'"),
        ("csv", b"device,metric,time,value,value\n", "2 columns 'value'"),
        ("csv", b"device,metric,unit,time,step,count,sum,min,max,last\n", "no column 'last_at'"),
        ("parquet", b"", "is no Parquet file"),
        ("parquet", b"PAR1 garbage PAR1", "is no Parquet file"),
        ("parquet", written("csv"), "is no Parquet file"),
    ],
)
def test_a_file_that_is_none_is_refused_with_what_was_expected(form: str, content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(content)
    with pytest.raises(IsothermError, match=said):
        open_source(path, form)


def test_parquet_of_another_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    for time, value, said in (([1], [1.0], "'time' is of type int64"), (pa.array([1], pa.timestamp("s")), ["1"], "'value'")):
        pq.write_table(table(device=["a"], metric=["t"], time=time, value=value), path)
        with pytest.raises(IsothermError, match=said):
            open_source(path, "parquet")


def test_a_damaged_parquet_file_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    data = bytearray(written("parquet", (Name("a", "t", ""), history(list(range(5000)), 0, list(map(float, range(5000)))))))
    data[100:3000] = b"\xff" * 2900
    path.write_bytes(data)
    with pytest.raises(IsothermError, match="is damaged"):
        read(path, "parquet")


def test_each_bad_row_is_named_with_its_line_and_what_was_expected(tmp_path: Path) -> None:
    good = "1970-01-01T00:00:00Z"
    path, rejects = tmp_path / "rows.csv", tmp_path / "rejects.csv"
    path.write_bytes(
        b"device,metric,time,value\n"
        + f"a,t,{good},1\n".encode()
        + f"a,t,{good}\n".encode()
        + f"a,t,{good},x\n".encode()
        + b"a,t,yesterday,1\n"
        + b"a,t,2026,1\n"
        + f"a,t,{good},nan\n".encode()
        + f'"a,b",t,{good},1\n'.encode()
        + f'a,"t""x",{good},1\n'.encode()
        + f"\xff\xfe,t,{good},1\n".encode("latin-1")
        + b"a,t,1970-01-01T01:00:00Z,1\n"
        + f'a,t,"{good}'.encode()
    )
    found = asyncio.run(survey(open_source(path, "csv"), 0, lambda at: None, rejects))
    assert (found.rows, found.bad) == (11, 10)
    assert [(line, fault.reason) for line, fault in found.faults] == [
        (3, "malformed"), (4, "malformed"), (5, "malformed"), (6, "malformed"), (7, "not_finite"), (8, "name"), (9, "name"),
        (10, "name"), (11, "time"), (12, "malformed"),
    ]  # fmt: skip
    details = [fault.detail for _, fault in found.faults]
    assert details[0] == "3 fields, expected 4"
    assert details[1] == "value is 'x', expected a number"
    assert details[2].startswith("time is 'yesterday', expected date and time")
    assert details[8] == "3600 s ahead, expected at most 600 s"
    assert found.ranges == {"a/t": (0, 0)}
    lines = rejects.read_bytes().split(b"\n")
    assert lines[0] == b"line,reason,detail,device,metric,time,value"
    assert lines[6] == f'8,name,"\'a,b\' is no device name","a,b",t,{good},1'.encode()
    assert b"\xff\xfe" in lines[8]  # bytes as they were
    assert len(lines) == 12


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        ({"last_at": NOW - HOUR + MINUTE - 1}, None),
        ({"step": "7"}, "step"),
        ({"step": "nan"}, "step"),
        ({"step": "-60"}, "step"),
        ({"step": "1e300"}, "step"),
        ({"time": NOW - HOUR + SECOND}, "time"),
        ({"last_at": NOW - HOUR + MINUTE}, "time"),
        ({"last_at": NOW - HOUR - 1}, "time"),
        ({"time": NOW + MAX_FUTURE_US + MINUTE}, "time"),
        ({"time": NOW - 500 * DAY}, "time"),
        ({"count": "0"}, "count"),
        ({"count": "-1"}, "count"),
        ({"count": "4294967296"}, "count"),
        ({"count": "1e3"}, "malformed"),
        ({"count": "99999999999999999999999"}, "malformed"),
        ({"last": "2.5"}, "malformed"),
        ({"min": "3"}, "malformed"),
        ({"sum": "5"}, "malformed"),
        ({"sum": "inf"}, "malformed"),  # no sum of such values
        ({"min": "inf"}, "not_finite"),
        ({"step": "0"}, "malformed"),
        ({"step": "0", "count": "1", "sum": "1", "min": "1", "max": "1", "last": "1", "last_at": NOW - HOUR}, None),
        ({"step": "0", "count": "1", "sum": "1", "min": "1", "max": "1", "last": "1", "last_at": NOW}, "malformed"),
    ],
)
def test_a_slot_that_cannot_be_one_is_bad(changed: dict[str, Any], reason: str | None, tmp_path: Path) -> None:
    row: dict[str, Any] = {"device": "a", "metric": "t", "unit": "", "time": NOW - HOUR, "last_at": NOW - HOUR + 5} | SLOT
    row |= changed
    if "time" in changed and "last_at" not in changed:
        row["last_at"] = row["time"]
    for column in ("time", "last_at"):
        row[column] = np.datetime64(row[column], "us")
    path = tmp_path / "rows.csv"
    path.write_text(",".join(COLUMNS) + "\n" + ",".join(str(row[column]) for column in COLUMNS) + "\n")
    [found] = read(path, "csv")
    good = Checker(NOW).check(found)
    assert [fault.reason for fault in found.faults.values()] == ([] if reason is None else [reason])
    assert good.tolist() == [reason is None]


def test_a_reading_is_held_against_the_limits_of_time_and_a_slot_against_what_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    kept = (NOW - MAX_PAST_US) // (30 * DAY) * 30 * DAY
    for form, time, is_good in (
        (0, NOW - MAX_PAST_US, True), (0, NOW - MAX_PAST_US - 1, False), (HOUR, kept, True), (HOUR, kept - HOUR, False),
    ):  # fmt: skip
        path.write_bytes(written("csv", (Name("a", "t", ""), history([time], form, [1.0]))))
        [found] = read(path, "csv")
        assert Checker(NOW).check(found).tolist() == [is_good], found.faults


def test_a_series_has_one_unit(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    time = np.datetime64(NOW, "us")
    units = ["", "Cel", "K", "", "Cel"]
    path.write_text("device,metric,time,value,unit\n" + "".join(f"a,t,{time},1,{unit}\n" for unit in [*units, "x" * 129]))
    found = asyncio.run(survey(open_source(path, "csv"), NOW, lambda at: None))
    assert [(line, fault.detail[:50]) for line, fault in found.faults] == [
        (4, "the unit is 'K', that of a row before it 'Cel'"),
        (7, "a unit of 129 characters, expected at most 128"),
    ]
    assert found.units == {"a/t": "Cel"}


@given(st.text(max_size=30))
def test_a_text_is_a_time_or_none(text: str) -> None:
    with contextlib.suppress(ValueError):
        iso_us(text)


def test_a_file_is_there_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with pytest.raises(ZeroDivisionError), NewFile(path, replace=False) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    new = NewFile(path, replace=False)
    with new as file:
        file.write(b"whole")
        assert not path.exists()
    assert (path.read_bytes(), new.bytes) == (b"whole", 5)
    with pytest.raises(IsothermError, match="exists; --force replaces it"):
        NewFile(path, replace=False)
    with NewFile(path, replace=True) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    with pytest.raises(IsothermError, match="cannot be written"), NewFile(tmp_path / "no" / "x.csv", replace=False):
        pass
