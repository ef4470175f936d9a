"""Expressions: what Python would say for what is allowed, and a clear refusal for all else."""

from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isotherm import expression
from isotherm.expression import MAX_CHARS, MAX_DEPTH, MAX_VARIABLES, Expression, ExpressionError, is_true

NAMES = ("a", "b", "temperature")
NUMBERS = st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, -1.0, 0.5])


def _grown(smaller: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.tuples(smaller, st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "and", "or"]), smaller)
    compared = st.tuples(smaller, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), smaller)
    return st.one_of(
        binary.map(lambda parts: "({} {} {})".format(*parts)),
        compared.map(lambda parts: "({} {} {})".format(*parts)),
        st.tuples(smaller, smaller, smaller).map(lambda parts: "({} < {} <= {})".format(*parts)),
        st.tuples(smaller, smaller, smaller).map(lambda parts: "({} if {} else {})".format(*parts)),
        smaller.map("(-{})".format),
        smaller.map("(not {})".format),
        st.tuples(
            st.sampled_from(["abs", "floor", "ceil", "sqrt", "exp", "log", "log10", "sin", "cos", "tan", "round"]), smaller
        ).map(lambda parts: "{}({})".format(*parts)),
        st.tuples(st.sampled_from(["min", "max", "pow", "log"]), smaller, smaller).map(
            lambda parts: "{}({}, {})".format(*parts)
        ),
    )


TEXTS = st.recursive(st.sampled_from(NAMES) | NUMBERS.map(abs).map(repr), _grown, max_leaves=12)

PYTHONS = {name: getattr(math, name) for name in ("sqrt", "exp", "log", "log10", "sin", "cos", "tan", "pow")}
PYTHONS |= {  # whole numbers are floats, too
    "floor": lambda value: float(math.floor(value)),
    "ceil": lambda value: float(math.ceil(value)),
    "round": lambda value: float(round(value)),
}


def python_says(text: str, values: dict[str, float]) -> float:
    """What Python's own evaluation gives; NaN where it raises or leaves the real numbers."""
    try:
        result = eval(text, {"__builtins__": {}, "abs": abs, "min": min, "max": max, **PYTHONS}, values)
        return math.nan if isinstance(result, complex) else float(result)
    except (ArithmeticError, ValueError, TypeError):  # TypeError: a complex number met an operation that takes none
        return math.nan


@settings(max_examples=400)
@given(TEXTS, st.tuples(NUMBERS, NUMBERS, NUMBERS))
@example("((a if b else 2.0) % temperature)", (1.0, 0.0, 0.0))
def test_an_expression_is_what_python_says(text: str, given_values: tuple[float, float, float]) -> None:
    values = dict(zip(NAMES, given_values, strict=True))
    made = Expression.parse(text)
    said, expected = made(*(values[name] for name in made.variables)), python_says(text, values)
    # In Python a root of a negative number is complex, and what is made of it may be real again.
    assert said == expected or (math.isnan(said) and (math.isnan(expected) or "**" in text))


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("temperature > 30 and humidity < 20", (31.0, 19.0), 1.0),
        ("temperature > 30 and humidity < 20", (31.0, 21.0), 0.0),
        ("power / (voltage * current)", (460.0, 230.0, 2.0), 1.0),
        ("(a - b) * 1.8 + 32", (30.0, 10.0), 68.0),
        ("`bme280/temperature` > 30", (31.0,), 1.0),
        ("`in` + in_", (1.0, 2.0), 3.0),
        ("0 < a <= 5", (5.0,), 1.0),
        ("(a > 1) + (b > 1)", (2.0, 2.0), 2.0),
        ("\n  a if a > b\n  else b ", (1.0, 2.0), 2.0),
        ("round(a, 1)", (2.25,), 2.2),
        ("min(a, 1, 0.5)", (7.0,), 0.5),
        ("max > 3", (4.0,), 1.0),
    ],
)
def test_an_expression_has_the_value_one_expects(text: str, values: tuple[float, ...], expected: float) -> None:
    assert Expression.parse(text)(*values) == expected


def test_variables_come_in_the_order_of_their_first_appearance() -> None:
    assert Expression.parse("b + `x/y` + a + b + `x/y`").variables == ("b", "x/y", "a")
    assert Expression.parse("`a` + a").variables == ("a",)


@pytest.mark.parametrize(
    "text", ["1 / a", "a % 0", "sqrt(-1 - a)", "log(a)", "exp(1000 + a)", "(a - 8) ** 0.5", "9**9**9**9 + a"]
)
def test_what_has_no_value_is_nan_and_not_true(text: str) -> None:
    result = Expression.parse(text)(*[0.0] * len(Expression.parse(text).variables))
    assert math.isnan(result)
    assert not is_true(result)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("a.real", "'a.real' at position 1 is not allowed"),
        ("1 + a.b > 3", "'a.b' at position 5 is not allowed"),
        ("  a.b", "'a.b' at position 3"),
        ("a[0]", "'[' at position 2 is not allowed"),
        ("'x'", "position 1 is not allowed"),
        ("lambda: 1", "':' at position 7"),
        ("(a := 3)", "':' at position 4"),
        ("a @ b", "'@' at position 3"),
        ("a | b", "'|' at position 3"),
        ("~a", "'~' at position 1"),
        ("a # b", "'#' at position 3"),
        ("a is b", "'a is b' at position 1"),
        ("a in b", "'a in b' at position 1"),
        ("True", "'True' at position 1"),
        ("3j", "'3j' at position 1"),
        ("(a, b)", "'(a, b)' at position 1"),
        ("open(a)", "'open(a)' at position 1"),
        ("log(a, base=2)", "'log(a, base=2)' at position 1"),
        ("min(*a, 1)", "'*a' at position 5"),
        ("abs(a)(b)", "'abs(a)(b)' at position 1"),
        ("__import__", "'__import__' at position 1 is no name of a metric"),
        ("é > 3", "'é' at position 1"),
        ("a +", "position 3"),
        ("a b", "cannot be read at position"),
        ("a) + (b", "cannot be read at position 2"),
        ("`a", "the backtick at position 1 has no second one"),
        ("a + `b c`", "`b c` at position 5 is no name of a metric"),
        ("min(a)", "min at position 1 got 1 values, expected 2 or more"),
        ("a + log(a, b, c)", "log at position 5 got 3 values, expected 1 or 2"),
        ("a > 1e999", "the number at position 5 is too great"),
        ("9" * 900, "the number at position 1 is too great"),
    ],
)
def test_what_is_not_allowed_is_refused_at_its_position(text: str, said: str) -> None:
    with pytest.raises(ExpressionError) as refused:
        Expression.parse(text)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "a+" * MAX_CHARS + "a",
        "+".join("a" * (MAX_DEPTH + 1)),
        "-" * (MAX_CHARS - 1) + "a",
        "(" * 450 + "a" + ")" * 450,
        "not " * 200 + "a",
        "abs(" * 190 + "a" + ")" * 190,
        "+".join(f"`{number}`" for number in range(MAX_VARIABLES + 1)),
        "max(" + ",".join(f"a{number}" for number in range(MAX_VARIABLES + 1)) + ")",
    ],
)
def test_what_is_too_long_too_deep_or_too_wide_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        Expression.parse(text)


@settings(max_examples=300)
@given(st.text(max_size=60) | st.text("ab1.(`) +-*/<>=![]{}:'\"#\\\n,ifelsandort", max_size=60))
def test_any_text_is_an_expression_or_is_refused(text: str) -> None:
    try:
        made = Expression.parse(text)
    except ExpressionError:
        return
    assert isinstance(made(*[1.5] * len(made.variables)), float)


def test_the_examples_are_true() -> None:
    assert doctest.testmod(expression).failed == 0
