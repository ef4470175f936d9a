"""Readings out of packs, against naive Python."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents import gather as module
from agents.gather import NEVER, Codes, begins, gather, in_order, matcher, wanted
from isotherm.pack import Pack
from tests.support.readings import BASE, Row, pack_of

NAMES = ["a/t", "a/h", "b/t", "b/bme280/t", "c/x"]
rows = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 9), st.integers(0, 99)), max_size=15)
packs_of_rows = st.lists(rows, max_size=5)


def codes_of(*wanted_names: str) -> Codes:
    numbers = {name: at for at, name in enumerate(wanted_names)}
    return Codes(lambda name: numbers.get(name, -1))


def naive(packs: list[list[Row]], names: list[str], newest: list[int]) -> list[tuple[int, float, float]]:
    """Take in each reading that is newer than all of its series in earlier packs; by series and time."""
    at, taken = dict(zip(names, newest, strict=True)), []
    for pack in packs:
        fresh = [row for row in sorted(pack, key=lambda row: row[1]) if row[0] in at and moment(row[1]) > at[row[0]]]
        at |= {name: moment(time) for name, time, _ in fresh}
        taken += [(names.index(name), time, value) for name, time, value in fresh]
    return sorted(taken, key=lambda row: row[:2])


def moment(seconds: float) -> int:
    return int(BASE + seconds * 1_000_000)


@given(packs_of_rows, st.lists(st.sampled_from(NAMES), unique=True, min_size=1), st.sampled_from([NEVER, BASE + 4_000_000]))
@example([[("a/t", 3, 1), ("a/t", 3, 2), ("a/t", 1, 3)], [("a/t", 2, 4)]], ["a/t"], NEVER)
def test_what_is_gathered_is_what_the_naive_model_takes(packs: list[list[Row]], names: list[str], newest: int) -> None:
    gathered = gather([pack_of(*rows) for rows in packs], codes_of(*names))
    assert len(gathered) == sum(name in names for rows in packs for name, *_ in rows)
    found = in_order(gathered, np.full(len(names), newest))
    times = ((found.time - BASE) // 1_000_000).tolist()
    assert list(zip(found.code.tolist(), times, found.value.tolist(), strict=True)) == naive(
        packs, names, [newest] * len(names)
    )
    assert [found.names[at] for at in found.series.tolist()] == [names[code] for code in found.code.tolist()]


@given(packs_of_rows, st.integers(0, 5))
def test_which_packs_come_together_does_not_matter(packs: list[list[Row]], split: int) -> None:
    newest = np.full(len(NAMES), NEVER)
    whole = in_order(gather([pack_of(*rows) for rows in packs], codes_of(*NAMES)), newest)
    parts = []
    for some in (packs[:split], packs[split:]):
        found = in_order(gather([pack_of(*rows) for rows in some], codes_of(*NAMES)), newest)
        np.maximum.at(newest, found.code, found.time)
        parts += list(zip(found.code.tolist(), found.time.tolist(), found.value.tolist(), strict=True))
    assert sorted(parts, key=lambda row: row[:2]) == list(
        zip(whole.code.tolist(), whole.time.tolist(), whole.value.tolist(), strict=True)
    )


def test_many_codes_are_ordered_as_few_are() -> None:
    names = [f"d{number}/t" for number in range(40_000)]
    pack = pack_of(*((name, at % 7, float(at)) for at, name in enumerate(reversed(names))))
    found = in_order(gather([pack], codes_of(*names)), np.full(len(names), NEVER))
    assert found.code.tolist() == list(range(len(names)))
    assert found.value.tolist() == [float(at) for at in reversed(range(len(names)))]


def test_a_name_is_asked_about_once() -> None:
    asked: list[str] = []

    def code_of(name: str) -> int:
        asked.append(name)
        return -1

    codes = Codes(code_of)
    for _ in range(3):
        assert len(gather([pack_of(("a/t", 1, 1.0)), pack_of(("b/t", 1, 1.0))], codes)) == 0
    assert asked == ["a/t", "b/t"]


def test_rows_become_a_pack_again() -> None:
    rows = gather([pack_of(("a/t", 1, 1.0), ("b/t", 2, 2.0), ("a/t", 3, 3.0))], codes_of("a/t", "b/t"))
    pack: Pack = rows.take(np.array([2, 0])).to_pack("trial")
    assert (pack.names, pack.series.tolist(), pack.value.tolist()) == (["a/t"], [0, 0], [3.0, 1.0])
    assert Pack.from_ipc(pack.to_ipc()).connector == "trial"


@pytest.mark.parametrize(
    ("pattern", "series", "expected"),
    [
        ("*", "a/t", True),
        ("*/t", "a/bme280/t", True),
        ("*/t", "a/t2", False),
        ("a/*, b/t", "b/t", True),
        ("a/*, b/t", "b/h", False),
        ("room-?/t", "room-1/t", True),
        ("room-[12]/t", "room-3/t", False),
        ("a.b/t", "aXb/t", False),
    ],
)
def test_patterns_are_those_of_a_shell(pattern: str, series: str, expected: bool) -> None:
    assert matcher(pattern)(series) is expected


@pytest.mark.parametrize(
    ("output", "series", "expected"),
    [
        ("{metric}_score", "a/t_score", False),
        ("{metric}_score", "a/score", True),
        ("dew_point", "a/dew_point", False),
        ("dew_point", "a/old_dew_point", True),
        ("", "a/anything", True),
    ],
)
def test_an_analytic_does_not_read_what_it_makes(output: str, series: str, expected: bool) -> None:
    assert wanted("*", output)(series) is expected


@given(st.lists(st.integers(-3, 3)))
def test_runs_begin_where_a_value_is_another_than_before(column: list[int]) -> None:
    expected = [at for at, value in enumerate(column) if at == 0 or column[at - 1] != value]
    assert begins(np.array(column, dtype=np.int64)).tolist() == expected


def test_the_examples_are_true() -> None:
    assert doctest.testmod(module).failed == 0
