"""The subset of PromQL that we know: a query's text → a tree. No I/O.

    expression   number | selector | function(selector[range]) | function(expression)
                 | aggregation by|without (labels) (expression) | (expression) | - expression
                 | expression + - * / % ^ == != < <= > >= expression, one of which is a number
    selector     metric{label="x", label!="x", label=~"x", label!~"x"} offset duration

Whatever else is PromQL is refused by its name and place. Why not a library: promql-parser 0.12, the only one that is kept,
says of a wrong query that it is wrong and not where, and ends the process on one that is nested deeply.

Source: Prometheus 3, Querying basics, Operators, Functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from dashboards.prometheus.names import NAME, unescaped
from dashboards.prometheus.patterns import matching
from dashboards.prometheus.problems import BadQuery, at
from dashboards.prometheus.tokens import Token, duration_us, string_of, tokens

MAX_DEPTH = 50
"""Expressions within expressions."""

MAX_OPERATIONS = 100
"""Operations of a query."""

RANGE_FUNCTIONS = frozenset(
    [
        "avg_over_time",
        "min_over_time",
        "max_over_time",
        "sum_over_time",
        "count_over_time",
        "last_over_time",
        "rate",
        "increase",
        "delta",
    ]
)
CHANGES = frozenset(["rate", "increase", "delta"])
"""Those that look at the first and the last reading."""

FUNCTIONS = frozenset(["abs", "ceil", "floor", "sqrt", "exp", "ln", "log2", "log10", "sgn"])
AGGREGATIONS = frozenset(["sum", "avg", "min", "max", "count"])
_OTHER_AGGREGATIONS = frozenset(
    ["group", "stddev", "stdvar", "topk", "bottomk", "quantile", "count_values", "limitk", "limit_ratio"]
)

_OR, _AND, _COMPARISON, _SUM, _PRODUCT, _POWER = range(1, 7)
_PRECEDENCE = {
    "or": _OR, "and": _AND, "unless": _AND, "==": _COMPARISON, "!=": _COMPARISON, "<": _COMPARISON, "<=": _COMPARISON,
    ">": _COMPARISON, ">=": _COMPARISON, "+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "%": _PRODUCT,
    "atan2": _PRODUCT, "^": _POWER,
}  # fmt: skip
_UNKNOWN_OPERATORS = ("or", "and", "unless", "atan2")
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_MATCHING = ("on", "ignoring", "group_left", "group_right")

Type = Literal["scalar", "vector", "matrix"]


@dataclass(frozen=True, slots=True)
class Matcher:
    """What a label has to be: ``sign`` is ``=``, ``!=``, ``=~`` or ``!~``. A label that a series has not is empty."""

    name: str
    sign: str
    value: str

    def of(self, texts: set[str]) -> set[str]:
        """Return those of some texts that it lets through.

        Raises:
            BadQuery: its regular expression is none.
        """
        found = matching(self.value, texts) if "~" in self.sign else texts & {self.value}
        return texts - found if "!" in self.sign else found


@dataclass(frozen=True, slots=True)
class Number:
    """A number."""

    value: float
    type: Type = "scalar"


@dataclass(frozen=True, slots=True)
class Selector:
    """Some series: at a time, or over the ``range`` before it, µs; ``offset`` µs earlier."""

    matchers: tuple[Matcher, ...]
    range: int = 0
    offset: int = 0

    @property
    def type(self) -> Type:
        return "matrix" if self.range else "vector"


@dataclass(frozen=True, slots=True)
class Over:
    """What a function, one of RANGE_FUNCTIONS, makes of a range."""

    function: str
    selector: Selector
    type: Type = "vector"


@dataclass(frozen=True, slots=True)
class Call:
    """What a function, one of FUNCTIONS, makes of each value; of the function ``-``, of a number, too."""

    function: str
    operand: Expression
    type: Type


@dataclass(frozen=True, slots=True)
class Aggregation:
    """What one of AGGREGATIONS makes of the series that are alike in ``labels``, or in all others (``is_without``)."""

    function: str
    operand: Expression
    labels: frozenset[str]
    is_without: bool
    type: Type = "vector"


@dataclass(frozen=True, slots=True)
class Binary:
    """An operation of two values, at most one of which is a vector."""

    sign: str
    left: Expression
    right: Expression
    is_bool: bool
    type: Type


Expression = Number | Selector | Over | Call | Aggregation | Binary
Leaf = Selector | Over


def parse(text: str) -> Expression:
    """Read a query.

    Raises:
        BadQuery: it is none, or has what we do not know; says which and where.

    >>> parse("temperature").matchers
    (Matcher(name='__name__', sign='=', value='temperature'),)
    >>> parse("rate(power[5m]) > 2").left.function
    'rate'
    """
    parser = _Parser(text)
    if parser.next.kind == "end":
        raise BadQuery("no expression found in input")
    found = parser.expression()
    parser.end()
    return found


def parse_selector(text: str) -> Selector:
    """Read a selector, as ``match[]`` has one.

    Raises:
        BadQuery: it is another kind of query, or none.
    """
    found = parse(text)
    if not isinstance(found, Selector) or found.range or found.offset:
        raise BadQuery(f'{text[:200]!r} is no selector such as temperature{{device=~"room-.*"}}')
    return found


def leaves(tree: Expression) -> Iterator[Leaf]:
    """Yield what has to be read from the store."""
    match tree:
        case Selector() | Over():
            yield tree
        case Call() | Aggregation():
            yield from leaves(tree.operand)
        case Binary():
            yield from leaves(tree.left)
            yield from leaves(tree.right)


@dataclass(slots=True)
class _Parser:
    text: str
    _tokens: list[Token] = field(init=False)
    _place: int = 0
    _depth: int = 0
    _operations: int = 0

    def __post_init__(self) -> None:
        self._tokens = list(tokens(self.text))

    @property
    def next(self) -> Token:
        return self._tokens[self._place]

    def end(self) -> None:
        """See that nothing follows."""
        self._refuse_unknown()
        if self.next.kind != "end":
            raise at(self.next.position, f"unexpected {self.next.said}, expected an operator or the end")

    def expression(self, least: int = 0) -> Expression:
        """Read operations that bind at least so tightly."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise at(self.next.position, f"the query is nested deeper than {MAX_DEPTH} expressions")
        left = self._operand()
        while (binds := _PRECEDENCE.get(self._word(), 0)) > least or (binds == _POWER == least):
            left = self._operation(left, binds)
        self._depth -= 1
        return left

    def _operation(self, left: Expression, binds: int) -> Expression:
        sign = self._take()
        word = sign.text.lower()
        if word in _UNKNOWN_OPERATORS:
            raise at(sign.position, f"the operator {word} is not supported here")
        self._count(sign)
        is_bool = self._word() == "bool" and self._is_operand_next()
        if is_bool:
            after = self._take()
            if word not in COMPARISONS:
                raise at(after.position, "bool is for comparisons")
        if self._word() in _MATCHING and self._peek("("):
            raise at(self.next.position, f"{self._word()} is not supported here")
        right = self.expression(binds)
        for side in (left, right):
            if side.type == "matrix":
                raise at(sign.position, f"{sign.text} is for numbers and vectors, not for ranges")
        if left.type == right.type == "vector":
            raise at(sign.position, f"{sign.text} between two vectors is not supported here: one side must be a number")
        if left.type == right.type and word in COMPARISONS and not is_bool:
            raise at(sign.position, f"a comparison of two numbers must use bool: {sign.text} bool")
        return Binary(word, left, right, is_bool, "vector" if "vector" in (left.type, right.type) else "scalar")

    def _operand(self) -> Expression:
        token = self.next
        if token.kind == "sign" and token.text in "+-":
            self._count(self._take())
            operand = self.expression(_PRODUCT)
            if operand.type == "matrix":
                raise at(token.position, f"{token.text} is for numbers and vectors, not for ranges")
            return operand if token.text == "+" else Call("-", operand, operand.type)
        if token.kind == "number":
            return Number(_number(self._take()))
        if token.kind == "sign" and token.text == "(":
            self._take()
            found = self.expression_in_parentheses()
            if self._is("["):
                raise at(self.next.position, "a subquery is not supported here")
            return found
        if token.kind == "name":
            return self._named()
        if token.kind == "sign" and token.text == "{":
            return self._selector(())
        if token.kind in ("string", "duration"):
            raise at(token.position, f"a {token.kind} alone is not supported here")
        raise at(token.position, f"unexpected {token.said}, expected a number, a metric or a function")

    def expression_in_parentheses(self) -> Expression:
        """Read what follows an opening parenthesis, and the closing one; operations in it begin anew."""
        found = self.expression()
        self._refuse_unknown()
        self._expect(")")
        return found

    def _named(self) -> Expression:
        token = self._take()
        word = token.text.lower()
        if word in ("inf", "nan"):
            return Number(float(word))
        is_called = self._is("(")
        is_grouped = self._word() in ("by", "without")
        if word in AGGREGATIONS and (is_called or is_grouped):
            return self._aggregation(word)
        if word in _OTHER_AGGREGATIONS and (is_called or is_grouped):
            raise at(token.position, f"the aggregation {word} is not supported here: {_listed(AGGREGATIONS)} are")
        if is_called:
            return self._call(token)
        return self._selector((Matcher(NAME, "=", unescaped(token.text)),))

    def _call(self, name: Token) -> Expression:
        known = RANGE_FUNCTIONS | FUNCTIONS
        if name.text not in known:
            raise at(name.position, f"the function {name.text[:80]} is not supported here: {_listed(known)} are")
        self._take()
        place = self.next.position
        operand = self.expression_in_parentheses()
        if name.text in RANGE_FUNCTIONS:
            if not isinstance(operand, Selector) or not operand.range:
                raise at(place, f"{name.text} is for a range such as temperature[5m], got a {operand.type}")
            return self._no_subquery(Over(name.text, operand))
        if operand.type != "vector":
            raise at(place, f"{name.text} is for a vector such as temperature, got a {operand.type}")
        return self._no_subquery(Call(name.text, operand, "vector"))

    def _aggregation(self, function: str) -> Expression:
        grouping = self._grouping()
        place = self._expect("(").position
        operand = self.expression_in_parentheses()
        if operand.type != "vector":
            raise at(place + 1, f"{function} is for a vector such as temperature, got a {operand.type}")
        labels, is_without = grouping or self._grouping() or (frozenset(), False)
        return self._no_subquery(Aggregation(function, operand, labels, is_without))

    def _grouping(self) -> tuple[frozenset[str], bool] | None:
        if self._word() not in ("by", "without"):
            return None
        is_without = self._take().text.lower() == "without"
        self._expect("(")
        names = []
        while not self._is(")"):
            names.append(self._label_name(self._take()))
            if not self._is(")"):
                self._expect(",")
        self._take()
        return frozenset(names), is_without

    def _selector(self, matchers: tuple[Matcher, ...]) -> Expression:
        start = self.next.position
        if self._is("{"):
            matchers += tuple(self._matchers())
        if sum(one.name == NAME and one.sign == "=" for one in matchers) > 1:
            raise at(start, "the metric is named twice")
        if all(one.of({""}) for one in matchers):
            raise at(start, 'a selector needs something that an empty text does not match: a metric, or device="…"')
        length = self._range() if self._is("[") else 0
        offset = self._offset() if self._word() == "offset" else 0
        return self._no_subquery(Selector(matchers, length, offset))

    def _matchers(self) -> Iterator[Matcher]:
        self._expect("{")
        while not self._is("}"):
            token = self._take()
            if token.kind == "string" and (self._is(",") or self._is("}")):
                yield Matcher(NAME, "=", string_of(token))
            else:
                yield self._matcher(token)
            if not self._is("}"):
                self._expect(",")
        self._take()

    def _matcher(self, token: Token) -> Matcher:
        name, sign, value = self._label_name(token), self._take(), self._take()
        if sign.text not in ("=", "!=", "=~", "!~") or sign.kind != "sign":
            raise at(sign.position, f"unexpected {sign.said}, expected one of = != =~ !~")
        if value.kind != "string":
            raise at(value.position, f"unexpected {value.said}, expected a text in quotes")
        found = Matcher(name, sign.text, string_of(value))
        try:
            found.of({""})
        except BadQuery as problem:
            raise at(value.position, str(problem)) from problem
        return found

    def _label_name(self, token: Token) -> str:
        if token.kind == "string" and (text := string_of(token)):
            return text
        if token.kind != "name" or ":" in token.text:
            raise at(token.position, f"unexpected {token.said}, expected the name of a label")
        return unescaped(token.text)

    def _range(self) -> int:
        bracket = self._expect("[")
        if self.next.kind != "duration":
            raise at(self.next.position, f"unexpected {self.next.said}, expected a duration such as 5m")
        length = duration_us(self._take())
        if self.next.text.startswith(":"):
            raise at(bracket.position, "a subquery is not supported here")
        self._expect("]")
        if not length:
            raise at(bracket.position, "a range is longer than 0")
        return length

    def _offset(self) -> int:
        self._take()
        is_later = self._is("-")
        if is_later:
            self._take()
        if self.next.kind != "duration":
            raise at(self.next.position, f"unexpected {self.next.said}, expected a duration such as 5m")
        length = duration_us(self._take())
        return -length if is_later else length

    def _no_subquery(self, found: Expression) -> Expression:
        self._refuse_unknown()
        if self._is("["):
            raise at(self.next.position, "a subquery is not supported here")
        return found

    def _refuse_unknown(self) -> None:
        if self._is("@"):
            raise at(self.next.position, "the modifier @ is not supported here")
        if self._word() == "offset":
            raise at(self.next.position, "offset follows a selector: rate(power[5m] offset 1h)")

    def _count(self, token: Token) -> None:
        self._operations += 1
        if self._operations > MAX_OPERATIONS:
            raise at(token.position, f"the query has more than {MAX_OPERATIONS} operations")

    def _take(self) -> Token:
        token = self.next
        self._place += token.kind != "end"
        return token

    def _expect(self, text: str) -> Token:
        if not self._is(text):
            raise at(self.next.position, f"unexpected {self.next.said}, expected {text!r}")
        return self._take()

    def _is(self, text: str) -> bool:
        return self.next.kind == "sign" and self.next.text == text

    def _peek(self, text: str) -> bool:
        return self._tokens[min(self._place + 1, len(self._tokens) - 1)].text == text

    def _is_operand_next(self) -> bool:
        """Tell whether an operand follows the next token, which is no metric then."""
        after = self._tokens[min(self._place + 1, len(self._tokens) - 1)]
        return after.kind in ("number", "name") or after.text in ("(", "-", "+", "{")

    def _word(self) -> str:
        return self.next.text.lower() if self.next.kind in ("name", "sign") else ""


def _number(token: Token) -> float:
    try:
        return float(int(token.text, 16)) if token.text[:2].lower() == "0x" else float(token.text)
    except OverflowError:
        return math.inf


def _listed(words: frozenset[str]) -> str:
    return ", ".join(sorted(words))
