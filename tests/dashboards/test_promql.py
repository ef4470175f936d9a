"""The subset of PromQL: what is read how, what is refused where, and that no text does harm."""

from __future__ import annotations

import asyncio
import doctest
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dashboards.prometheus import language, windows
from dashboards.prometheus.answers import _texts
from dashboards.prometheus.catalogue import Catalogue, Known
from dashboards.prometheus.engine import Engine, before, is_slow, row_width
from dashboards.prometheus.evaluation import evaluate
from dashboards.prometheus.language import Aggregation, Binary, Call, Expression, Number, Over, Selector, parse
from dashboards.prometheus.names import NAME
from dashboards.prometheus.parameters import Parameters
from dashboards.prometheus.patterns import matching
from dashboards.prometheus.problems import BadQuery, TooMuch, TooSlow
from dashboards.prometheus.tokens import MAX_CHARS
from isotherm.limits import DAY, HOUR, MINUTE, SECOND
from isotherm.settings import Settings
from isotherm.store import client as stores
from isotherm.store.history import EMPTY, History
from isotherm.store.reader import Reader

MODULES = ["tokens", "language", "patterns", "names", "problems", "windows", "evaluation", "parameters", "answers", "engine"]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_are_right(name: str) -> None:
    assert doctest.testmod(import_module(f"dashboards.prometheus.{name}")).failed == 0


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("1 + 2 * 3", 7.0),
        ("2 ^ 3 ^ 2", 512.0),
        ("-2 ^ 2", -4.0),
        ("8 - 4 - 2", 2.0),
        ("(1 + 2) * -3", -9.0),
        ("7 % -4", 3.0),
        ("0x1F + .5e1", 36.0),
        ("1 / 0", np.inf),
        ("2 > bool 1 + 3", 0.0),
        ("inf - INF + NaN", np.nan),
        ("- - 3 # a comment", 3.0),
    ],
)
def test_numbers_are_calculated(query: str, value: float) -> None:
    found = evaluate(parse(query), {}, 2)
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, [value, value], equal_nan=True)


def test_a_selector_is_read_whole() -> None:
    found = parse("""U__a_2f_b{x='1', y!="\\u00b0\\n", "z.z"=~`\\d+`, w!~"a|b",}[1h30m] offset -5m""")
    assert isinstance(found, Selector)
    assert (found.range, found.offset) == (90 * MINUTE, -5 * MINUTE)
    assert [(one.name, one.sign, one.value) for one in found.matchers] == [
        (NAME, "=", "a/b"), ("x", "=", "1"), ("y", "!=", "°\n"), ("z.z", "=~", "\\d+"), ("w", "!~", "a|b"),
    ]  # fmt: skip
    assert parse('{"a/b"}') == parse('{__name__="a/b"}') == parse("U__a_2f_b")


def test_words_of_the_language_may_be_metrics() -> None:
    for word in ("sum", "by", "offset", "bool", "rate"):
        assert parse(f"{word} + 1") == Binary("+", parse(word), Number(1.0), False, "vector")


def test_an_aggregation_says_its_labels_before_or_after() -> None:
    assert parse('SUM BY (a, "b.c",) (x)') == parse('sum(x) by ("b.c", a)')
    found = parse("avg without () (x)")
    assert isinstance(found, Aggregation)
    assert (found.labels, found.is_without) == (frozenset(), True)


REFUSED = {
    "rate(a)": "char 6: rate is for a range such as temperature[5m], got a vector",
    "a[5m] + 1": "char 7: + is for numbers and vectors, not for ranges",
    "abs(1)": "char 5: abs is for a vector such as temperature, got a scalar",
    "sum(1)": "char 5: sum is for a vector such as temperature, got a scalar",
    "a + histogram_quantile(0.9, b)": "char 5: the function histogram_quantile is not supported here",
    "topk(3, a)": "char 1: the aggregation topk is not supported here",
    "a / b": "char 3: / between two vectors is not supported here",
    "a / on(x) b": "char 5: on is not supported here",
    "a and b": "char 3: the operator and is not supported here",
    "avg_over_time(a[1h:5m])": "char 16: a subquery is not supported here",
    "sum(a)[5m]": "char 7: a subquery is not supported here",
    "a @ 17": "char 3: the modifier @ is not supported here",
    "rate(a[5m]) offset 5m": "char 13: offset follows a selector",
    "1 == 1": "char 3: a comparison of two numbers must use bool",
    "1 + bool 1": "char 5: bool is for comparisons",
    '"text"': "char 1: a string alone is not supported here",
    "{}": "char 1: a selector needs something",
    'a{__name__="b"}': "char 2: the metric is named twice",
    'a{b=~"(?=c)"}': "char 6: '(?=c)' is no regular expression",
    'a{b=~"c)|(d"}': "char 6: 'c)|(d' is no regular expression",
    "a{b}": "char 4: unexpected '}', expected one of = != =~ !~",
    "a{b=c}": "char 5: unexpected 'c', expected a text in quotes",
    "a[5]": "char 3: unexpected '5', expected a duration such as 5m",
    "a[0s]": "char 2: a range is longer than 0",
    "a[5m30h]": "char 3: '5m30h' is no duration",
    "a[99y]": "char 3: '99y' is longer than ten years",
    "a[5mm]": "char 3: '5mm' is no number and no duration",
    'a{b="c': 'char 5: the string that begins with " does not end',
    'a{b="\\q"}': "char 6: '\\\\q' is no escape of a string",
    "a b": "char 3: unexpected 'b', expected an operator or the end",
    "a ! b": "char 3: '!' has no meaning here",
    "a)": "char 2: unexpected ')', expected an operator or the end",
    " ": "no expression found in input",
    "(" * 51 + "1": "char 51: the query is nested deeper than 50 expressions",
    "1" + "+1" * 101: "the query has more than 100 operations",
    "a" * (MAX_CHARS + 1): "the query has 20,001 characters, expected at most 20,000",
}


@pytest.mark.parametrize("query", REFUSED)
def test_what_is_unknown_or_wrong_is_refused_by_name_and_place(query: str) -> None:
    with pytest.raises(BadQuery) as refused:
        parse(query)
    assert REFUSED[query] in str(refused.value)


_names = st.sampled_from(["a", "rate_of", "by", "U__a_2f_b", "sum"])
_texts_of = st.text(max_size=5).map(lambda text: text.replace("\\", "").replace('"', "").replace("\n", ""))
_matchers = st.tuples(st.sampled_from(["x", '"y.z"']), st.sampled_from(["=", "!="]), _texts_of)


@st.composite
def selectors(draw: st.DrawFn) -> str:
    inside = ", ".join(f'{name}{sign}"{text}"' for name, sign, text in draw(st.lists(_matchers, max_size=3)))
    return draw(_names) + (f"{{{inside}}}" if inside else "")


def _grown(smaller: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    duration = st.sampled_from(["5m", "1h30m", "10ms"])
    return st.one_of(
        st.tuples(smaller, st.sampled_from(["+", "*", ">", "/"]), st.sampled_from(["2", "0.5e3"])).map(" ".join),
        st.tuples(st.sampled_from(sorted(language.FUNCTIONS)), smaller).map(lambda one: f"{one[0]}({one[1]})"),
        st.tuples(st.sampled_from(sorted(language.RANGE_FUNCTIONS)), selectors(), duration).map(
            lambda one: f"{one[0]}({one[1]}[{one[2]}] offset 1m)"
        ),
        st.tuples(st.sampled_from(sorted(language.AGGREGATIONS)), smaller).map(lambda one: f"{one[0]} by (x) ({one[1]})"),
        smaller.map(lambda one: f"-({one})"),
    )


@given(st.recursive(selectors(), _grown, max_leaves=8))
def test_what_is_written_of_known_parts_is_read_and_reads_the_same_with_other_spaces(query: str) -> None:
    found = parse(query)
    assert found.type == "vector"
    assert parse(f" ( {query} ) # end") == found
    assert list(language.leaves(found))


_PIECES = [*"abx0159.,:+-*/%^<>=!~(){}[]@#\"'`\\ \n", "sum", "by", "rate", "offset", "5m", "bool"]


@settings(max_examples=500)
@given(st.lists(st.sampled_from(_PIECES)))
@example(["a", "{", "b", "=", "~", '"', "\ud800", '"', "}"])
def test_any_text_is_read_or_refused(parts: list[str]) -> None:
    text = "".join(parts)
    try:
        found = parse(text)
    except BadQuery:
        return
    assert isinstance(found, Number | Selector | Over | Call | Aggregation | Binary)
    assert _depth(found) < 1_000


def _depth(tree: Expression) -> int:
    return 1 + max((_depth(one) for one in _parts(tree)), default=0)


def _parts(tree: Expression) -> Iterator[Expression]:
    for name in ("operand", "left", "right"):
        if (part := getattr(tree, name, None)) is not None:
            yield part


def test_a_pattern_is_of_the_whole_text_and_takes_no_time_to_fail() -> None:
    assert matching("a.c|d", {"abc", "abcd", "a\nc", "d", "dd"}) == {"abc", "a\nc", "d"}
    assert matching("(a+)+", {"a" * 50_000 + "b"}) == set(), "a backtracking engine would not end"
    with pytest.raises(BadQuery):
        matching("((a{1,100}){1,100}){1,100}", {"a"})


def history(time: list[int], value: list[float], width: int = 0) -> History:
    """Rows of one reading each, at times in s."""
    at, values = np.array(time, dtype=np.int64) * SECOND, np.array(value)
    return History(
        time=at // width * width if width else at, width=np.full(len(at), width), count=np.ones(len(at), dtype=np.int64),
        sum=values, min=values, max=values, last=values, last_at=at,
    )  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(0, 2_000), st.floats(-1e6, 1e6)), unique_by=lambda one: one[0], max_size=40),
    st.integers(1, 600),
    st.integers(1, 100),
)
def test_windows_are_what_a_loop_over_readings_finds(points: list[tuple[int, float]], length: int, step: int) -> None:
    points.sort()
    rows = history([time for time, _ in points], [value for _, value in points]) if points else EMPTY
    times = np.arange(0, 2_200, step, dtype=np.int64) * SECOND
    inside = [[value for time, value in points if at // SECOND - length < time <= at // SECOND] for at in times.tolist()]
    ways: dict[str, Callable[[list[float]], float]] = {
        "avg": lambda some: sum(some) / len(some),
        "min": min,
        "max": max,
        "sum": sum,
        "count": len,
        "last": lambda some: some[-1],
    }
    for function, of in ways.items():
        values, there = windows.over(f"{function}_over_time", rows, times, length * SECOND)
        assert there.tolist() == [bool(some) for some in inside]
        expected = [of(some) for some in inside if some]
        assert np.allclose(values[there], expected, rtol=1e-9, atol=1e-6)


def test_a_counter_that_begins_anew_has_not_fallen() -> None:
    rows = history([0, 60, 120, 180, 240, 300], [100.0, 110.0, 120.0, 5.0, 15.0, 25.0])
    values, there = windows.over("increase", rows, np.array([300 * SECOND]), 301 * SECOND)
    assert there.all()
    assert values[0] == pytest.approx(45.0 * 301 / 300)


def test_rows_wider_than_a_range_give_their_mean_but_no_sum() -> None:
    rows = history([3_590, 7_190], [20.0, 21.0], width=HOUR)
    times = np.array([3_600, 5_400, 7_200]) * SECOND
    mean, there = windows.over("avg_over_time", rows, times, 5 * MINUTE)
    assert there.tolist() == [True, True, True]
    assert mean.tolist() == [20.0, 20.0, 21.0]
    assert not windows.over("sum_over_time", rows, times, 5 * MINUTE)[1].any()


@pytest.mark.parametrize(("apart", "holds"), [(10 * SECOND, 5 * MINUTE), (HOUR, 2 * HOUR), (DAY, 25 * HOUR)])
def test_a_value_holds_as_long_as_its_series_is_slow(apart: int, holds: int) -> None:
    rows = history([at * apart // SECOND for at in range(5)], [1.0] * 5)
    assert windows.lookback(rows) == holds
    assert is_slow(rows) == (apart > MINUTE)
    _, there = windows.newest(rows, np.array([4 * apart + holds - 1, 4 * apart + holds]), holds)
    assert there.tolist() == [True, False]


def test_earlier_rows_end_where_the_others_begin() -> None:
    earlier, later = history([0, 60, 120], [1.0, 2.0, 3.0]), history([120, 130], [3.0, 4.0])
    assert before(earlier, later).last.tolist() == [1.0, 2.0]
    assert before(earlier, EMPTY).last.tolist() == [1.0, 2.0, 3.0]


async def test_a_query_has_its_time_and_no_more() -> None:
    class Stuck(Reader):
        async def rows(self, *_: object) -> dict[str, History]:
            await asyncio.sleep(60)
            return {}

    class One(Catalogue):
        async def select(self, *_: object) -> list[Known]:
            return [Known("a/t", {NAME: "t"}, 0)]

    redis = stores.connect(Settings.load(redis="redis://127.0.0.1:1/0"))
    reader = Stuck(redis, 1)
    engine = Engine(One(redis, reader), reader)
    for _ in range(3):  # more than AT_ONCE: none keeps its turn
        with pytest.raises(TooSlow, match=r"within 0\.01 s"):
            await engine.value(parse("t"), [0], 0, 0.01)
    with pytest.raises(TooMuch, match="4,000,000 values"):
        await engine.value(parse("t"), range(4_000_001), 1, 1)


@pytest.mark.parametrize(
    ("function", "length", "start", "step", "width"),
    [
        ("", 0, 0, 0, 0),
        ("", 0, 7, 15 * SECOND, 10 * SECOND),
        ("", 0, 7, 2 * HOUR, HOUR),
        ("avg_over_time", MINUTE, 0, MINUTE, MINUTE),
        ("avg_over_time", MINUTE, 7, MINUTE, 0),
        ("rate", MINUTE, 0, MINUTE, 0),
        ("rate", HOUR, 0, 15 * SECOND, 10 * SECOND),
        ("avg_over_time", 30 * DAY, 7, SECOND, HOUR),
    ],
)
def test_rows_are_as_wide_as_steps_and_ranges_allow(function: str, length: int, start: int, step: int, width: int) -> None:
    assert row_width(function, length, start, step) == width


@given(
    st.dictionaries(st.sampled_from(["start", "end", "step", "time", "limit"]), st.text(max_size=30) | st.floats().map(str))
)
@example({"start": "2026-02-30T00:00:00Z"})
@example({"start": "2026-11-23T00:00:00Z", "end": "1e300", "step": "1e-9"})
def test_parameters_are_read_or_refused(said: dict[str, str]) -> None:
    given = Parameters(list(said.items()))
    for read in (given.steps, lambda: range(given.time("time")), lambda: range(given.limit())):
        with suppress(BadQuery):
            found = read()
            assert isinstance(found, range) and len(found) >= 0 and abs(found.stop) < 2**62


def test_numbers_are_written_as_prometheus_writes_them() -> None:
    assert _texts(np.array([1.0, -0.25, 1e22, np.nan, -np.inf])) == ["1", "-0.25", "1e+22", "NaN", "-Inf"]
