"""Expressions of people over metrics: ``temperature > 30 and humidity < 20``, ``power / (voltage * current)``.

The text is read with Python's own parser, and only what is listed in ALLOWED is taken over, node by node, into a new
function: nothing of the text itself is ever run, so there is nothing to escape from. Numbers are floats, so none grows;
length, depth and variables are bounded. A call takes about 0.1 µs.

A metric whose name is no Python identifier stands in backticks: `` `bme280/temperature` > 30 ``.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from isotherm.errors import SettingsError
from isotherm.names import is_metric_name

MAX_CHARS = 1_000
"""Length of an expression."""

MAX_DEPTH = 60
"""Operations within operations."""

MAX_VARIABLES = 32
"""Metrics in an expression."""

_CHARACTERS = re.compile(r"[A-Za-z0-9_.+\-*/%<>=!(), ]*")
_BACKTICKS = re.compile(r"`([^`]*)`")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def _round(value: float, digits: float = 0.0) -> float:
    return float(round(value, int(digits)))


def _floor(value: float) -> float:
    return float(math.floor(value))


def _ceil(value: float) -> float:
    return float(math.ceil(value))


_MANY = 100
FUNCTIONS: dict[str, tuple[Callable[..., float], int, int]] = {
    "abs": (abs, 1, 1),
    "ceil": (_ceil, 1, 1),
    "cos": (math.cos, 1, 1),
    "exp": (math.exp, 1, 1),
    "floor": (_floor, 1, 1),
    "log": (math.log, 1, 2),
    "log10": (math.log10, 1, 1),
    "max": (max, 2, _MANY),
    "min": (min, 2, _MANY),
    "pow": (math.pow, 2, 2),
    "round": (_round, 1, 2),
    "sin": (math.sin, 1, 1),
    "sqrt": (math.sqrt, 1, 1),
    "tan": (math.tan, 1, 1),
}
"""Name → function, and how many arguments it takes: at least, at most. Angles are in radians."""

ALLOWED = (
    "numbers, metrics (in backticks where the name is more than letters, digits and _), + - * / // % **, < <= > >= == !=, "
    f"and, or, not, A if CONDITION else B, and {' '.join(FUNCTIONS)}"
)

_BINARY = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)
_UNARY = (ast.UAdd, ast.USub, ast.Not)
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)


class ExpressionError(SettingsError):
    """A text is no expression; says where, and what is allowed."""


@dataclass(frozen=True, slots=True, repr=False)
class Expression:
    """An expression, ready to be called.

    Attributes:
        text: As it was written.
        variables: The metrics in it, in order of their first appearance.
        function: Takes a float for each of ``variables`` and returns a float, see :meth:`__call__`.
    """

    text: str
    variables: tuple[str, ...]
    function: Callable[..., float] = field(compare=False)

    @classmethod
    def parse(cls, text: str) -> Expression:
        """Read an expression.

        Raises:
            ExpressionError: it is none, or too long or too deep.

        >>> heat = Expression.parse("temperature > 30 and `bme280/humidity` < 20")
        >>> heat.variables
        ('temperature', 'bme280/humidity')
        >>> heat(31.0, 12.0), heat(31.0, 40.0)
        (1.0, 0.0)
        """
        if len(text) > MAX_CHARS:
            raise ExpressionError(f"an expression of {len(text):,} characters, expected at most {MAX_CHARS:,}")
        plain, quoted = _without_backticks(text)
        indent = len(plain) - len(plain.lstrip())
        reader = _Translation(text, quoted, indent)
        body = reader.translated(_parsed(text, plain, indent), depth=1)
        return cls(text, tuple(reader.variables), _compiled(body, len(reader.variables)))

    def __call__(self, *values: float) -> float:
        """Return what comes of these values of ``variables``.

        What is true is 1.0 and what is not is 0.0; ``and`` and ``or`` give one of their sides, as in Python. What has no
        value (a division by zero, the root of a negative number, an overflow) makes the whole result NaN.
        """
        return self.function(*values)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


def is_true(result: float) -> bool:
    """Tell whether a result counts as true: it is a number and not 0. NaN, for want of a value, is not true."""
    return result != 0.0 and result == result


def _without_backticks(text: str) -> tuple[str, dict[str, str]]:
    """Put an identifier of the same length in the place of each name in backticks, so that positions stay what they are.

    Returns:
        The text, and identifier → metric.
    """
    names: dict[str, str] = {}  # metric → its number among those in backticks

    def stand_in(match: re.Match[str]) -> str:
        name = match[1]
        if not is_metric_name(name):
            raise ExpressionError(f"{match[0]} at position {match.start() + 1} is no name of a metric")
        digit = names.setdefault(name, _DIGITS[len(names) % len(_DIGITS)])
        if len(names) > MAX_VARIABLES:
            raise ExpressionError(f"more than {MAX_VARIABLES} metrics")
        return f"_{digit}".ljust(len(match[0]), "_")

    spaced = re.sub(r"\s", " ", text)
    if (open_at := _BACKTICKS.sub(lambda match: " " * len(match[0]), spaced).find("`")) >= 0:
        raise ExpressionError(f"the backtick at position {open_at + 1} has no second one")
    plain = _BACKTICKS.sub(stand_in, spaced)
    if (end := _CHARACTERS.match(plain).end()) < len(plain):  # type: ignore[union-attr]  # it matches at least nothing
        raise _refused(repr(plain[end]), end)
    return plain, {f"_{digit}".ljust(len(name) + 2, "_"): name for name, digit in names.items()}


def _parsed(text: str, plain: str, indent: int) -> ast.expr:
    if indent == len(plain):
        raise ExpressionError("an expression is empty, expected one such as temperature > 30")
    try:
        return ast.parse(plain[indent:], mode="eval").body
    except SyntaxError as error:
        at = min(indent + error.offset, len(text)) if error.offset else len(text)  # none: it ends too early
        raise ExpressionError(f"{text!r} cannot be read at position {at}: {error.msg}; allowed are {ALLOWED}") from error
    except (RecursionError, MemoryError, ValueError) as error:
        raise ExpressionError(f"an expression nested deeper than {MAX_DEPTH} operations") from error


def _refused(what: str, offset: int) -> ExpressionError:
    return ExpressionError(f"{what} at position {offset + 1} is not allowed in an expression; allowed are {ALLOWED}")


class _Translation:
    """Takes a tree over, node by node."""

    def __init__(self, text: str, quoted: dict[str, str], indent: int) -> None:
        self.variables: dict[str, int] = {}
        self._text = text
        self._quoted = quoted
        self._indent = indent
        self._kinds: dict[type[ast.expr], Callable[..., ast.expr]] = {
            ast.Constant: self._number,
            ast.Name: self._variable,
            ast.BinOp: self._binary,
            ast.UnaryOp: self._unary,
            ast.Compare: self._comparison,
            ast.BoolOp: self._logical,
            ast.IfExp: self._conditional,
            ast.Call: self._call,
        }

    def translated(self, node: ast.expr, depth: int) -> ast.expr:
        """Return a new tree for one that consists of what is allowed."""
        if depth > MAX_DEPTH:
            raise ExpressionError(f"an expression nested deeper than {MAX_DEPTH} operations")
        translate = self._kinds.get(type(node))
        if translate is None:
            raise self._refuse(node)
        return translate(node, partial(self.translated, depth=depth + 1))

    def _refuse(self, node: ast.expr) -> ExpressionError:
        first, after = node.col_offset, node.end_col_offset or node.col_offset + 1
        return _refused(repr(self._text[self._indent :][first:after]), self._indent + first)

    def _position(self, node: ast.expr) -> str:
        return f"position {self._indent + node.col_offset + 1}"

    def _number(self, node: ast.Constant, _: _Down) -> ast.expr:
        if type(node.value) not in (int, float):
            raise self._refuse(node)
        try:
            value = float(node.value)  # type: ignore[arg-type]
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise ExpressionError(f"the number at {self._position(node)} is too great")
        return ast.Constant(value)

    def _variable(self, node: ast.Name, _: _Down) -> ast.expr:
        name = self._quoted.get(node.id, node.id)
        if not is_metric_name(name):
            raise ExpressionError(f"{name!r} at {self._position(node)} is no name of a metric")
        number = self.variables.setdefault(name, len(self.variables))
        if len(self.variables) > MAX_VARIABLES:
            raise ExpressionError(f"more than {MAX_VARIABLES} metrics")
        return _name(f"v{number}")

    def _binary(self, node: ast.BinOp, down: _Down) -> ast.expr:
        if isinstance(node.op, ast.Pow):  # math.pow knows no complex numbers
            return ast.Call(_name("pow"), [down(node.left), down(node.right)], [])
        if not isinstance(node.op, _BINARY):
            raise self._refuse(node)
        return ast.BinOp(down(node.left), node.op, down(node.right))

    def _unary(self, node: ast.UnaryOp, down: _Down) -> ast.expr:
        if not isinstance(node.op, _UNARY):
            raise self._refuse(node)
        return ast.UnaryOp(node.op, down(node.operand))

    def _comparison(self, node: ast.Compare, down: _Down) -> ast.expr:
        if not all(isinstance(operator, _COMPARISONS) for operator in node.ops):
            raise self._refuse(node)
        return ast.Compare(down(node.left), node.ops, [down(one) for one in node.comparators])

    def _logical(self, node: ast.BoolOp, down: _Down) -> ast.expr:
        return ast.BoolOp(node.op, [down(one) for one in node.values])

    def _conditional(self, node: ast.IfExp, down: _Down) -> ast.expr:
        return ast.IfExp(down(node.test), down(node.body), down(node.orelse))

    def _call(self, node: ast.Call, down: _Down) -> ast.expr:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in FUNCTIONS or node.keywords:
            raise self._refuse(node)
        _, least, most = FUNCTIONS[name]
        if not least <= len(node.args) <= most:
            expected = f"{least}" if least == most else f"{least} or more" if most == _MANY else f"{least} or {most}"
            raise ExpressionError(f"{name} at {self._position(node)} got {len(node.args)} values, expected {expected}")
        return ast.Call(_name(name), [down(one) for one in node.args], [])


_Down = Callable[[ast.expr], ast.expr]


def _name(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def _compiled(body: ast.expr, variables: int) -> Callable[..., float]:
    """Return ``def function(v0, …)`` that gives the value of ``body``, as a float, or NaN where it has none."""
    arguments = ", ".join(f"v{number}" for number in range(variables))
    module = ast.parse(f"def function({arguments}):\n try: return 0.0 + 0\n except Wrong: return nan")
    [function] = module.body
    assert isinstance(function, ast.FunctionDef) and isinstance(function.body[0], ast.Try)
    [answer] = function.body[0].body
    assert isinstance(answer, ast.Return) and isinstance(answer.value, ast.BinOp)
    answer.value.right = body
    known: dict[str, object] = {name: function for name, (function, _, _) in FUNCTIONS.items()}
    known |= {"__builtins__": {}, "Wrong": (ArithmeticError, ValueError), "nan": math.nan}
    exec(compile(ast.fix_missing_locations(module), "<expression>", "exec"), known)
    made = known["function"]
    assert callable(made)
    return made
