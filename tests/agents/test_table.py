"""A table of rows against a dict."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agents.table import FIRST_CAPACITY, Table

DEFAULT = np.array((7, 0.5), dtype=np.dtype([("count", "<i8"), ("mean", "<f8")]))
OTHER = np.array((7.0, 5), dtype=np.dtype([("mean", "<f8"), ("count", "<i8")]))

steps = st.lists(st.one_of(st.tuples(st.integers(0, 200), st.integers(-9, 9)), st.sampled_from(["changes", "restart"])))


@given(steps)
def test_it_holds_what_a_dict_would_over_restarts(steps: list[tuple[int, int] | str]) -> None:
    table, stored = Table(DEFAULT), dict[str, bytes]()
    model: dict[str, tuple[int, float]] = {}
    changed: set[str] = set()
    for step in steps:
        if isinstance(step, tuple):
            key = f"key-{step[0]}"
            code = np.array([table.code(key)])
            table.rows["count"][code] += step[1]
            table.rows["mean"][code] /= 2
            table.touch(code)
            count, mean = model.get(key, (7, 0.5))
            model[key] = (count + step[1], mean / 2)
            changed.add(key)
        else:
            found = table.changes()
            assert found.rows.keys() == changed
            assert not found.gone
            stored |= found.rows
            changed.clear()
            if step == "restart":
                table = Table(DEFAULT)
                table.load(stored)
    assert {key: tuple(table.rows[code].tolist()) for key, code in table.codes.items()} == model
    assert [table.codes[key] for key in table.keys] == list(range(len(table)))


def test_a_new_row_is_the_default_beyond_the_first_capacity_too() -> None:
    table = Table(DEFAULT)
    for number in range(3 * FIRST_CAPACITY):
        table.code(str(number))
    assert table.rows.tolist() == [(7, 0.5)] * (3 * FIRST_CAPACITY)
    assert table.changes().rows == {}


def test_rows_of_another_layout_begin_anew_even_where_they_are_as_long() -> None:
    table, other = Table(DEFAULT), Table(OTHER)
    other.touch(np.array([other.code("a")]))
    assert OTHER.dtype.itemsize == DEFAULT.dtype.itemsize
    table.load({**other.changes().rows, "b": b"", "c": bytes(20)})
    assert len(table) == 0
