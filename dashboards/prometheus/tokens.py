"""PromQL's words: text → tokens, each with its place. No I/O.

Source: Prometheus 3, Querying basics: literals, identifiers, durations, comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dashboards.prometheus.problems import BadQuery, at
from isotherm.limits import DAY, HOUR, MILLISECOND, MINUTE, SECOND

MAX_CHARS = 20_000
"""Length of a query; a list of devices that somebody chose in Grafana is a long regular expression."""

Kind = Literal["number", "duration", "name", "string", "sign", "end"]

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n]+|\#[^\n]*)
  | (?P<duration>(?:[0-9]+(?:ms|[smhdwy]))+(?![A-Za-z0-9_.]))
  | (?P<number>0[xX][0-9a-fA-F]+|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![A-Za-z0-9_:.])
  | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
  | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)
  | (?P<sign>=~|!~|==|!=|<=|>=|[-+*/%^<>=(){}\[\],:@])
    """,
    re.VERBOSE,
)
_PART = re.compile(r"([0-9]+)(ms|[smhdwy])")
_UNITS = {"ms": MILLISECOND, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY, "y": 365 * DAY}
_ORDER = ("y", "w", "d", "h", "m", "s", "ms")
MAX_DURATION = 10 * 365 * DAY

_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\\"'])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.?))", re.DOTALL
)
_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'"}


@dataclass(frozen=True, slots=True)
class Token:
    """A word of a query.

    Attributes:
        kind: What it is.
        text: As it is written.
        position: Where it begins, characters from 0.
    """

    kind: Kind
    text: str
    position: int

    @property
    def said(self) -> str:
        """What it is called in a refusal."""
        return "the end" if self.kind == "end" else repr(self.text[:80])


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of a query, and one of the kind ``end``.

    Raises:
        BadQuery: it is too long, or has what is none.

    >>> [token.text for token in tokens("sum(rate(a[5m])) # all")]
    ['sum', '(', 'rate', '(', 'a', '[', '5m', ']', ')', ')', '']
    """
    if len(text) > MAX_CHARS:
        raise BadQuery(f"the query has {len(text):,} characters, expected at most {MAX_CHARS:,}")
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise at(position, _stray(text, position))
        kind = match.lastgroup
        if kind != "space":
            yield Token(kind, match[0], position)  # type: ignore[arg-type]  # the groups are called like the kinds
        position = match.end()
    yield Token("end", "", len(text))


def duration_us(token: Token) -> int:
    """Return the length of a duration such as ``1h30m``, µs.

    Raises:
        BadQuery: its units do not descend, it is 0, or longer than ten years.

    >>> duration_us(Token("duration", "1h30m", 0)) == 90 * MINUTE
    True
    """
    parts = _PART.findall(token.text)
    order = [_ORDER.index(unit) for _, unit in parts]
    if order != sorted(set(order)):
        raise at(token.position, f"{token.said} is no duration: each unit once, from the greatest to the least")
    if len(token.text) > 40 or (length := sum(int(count) * _UNITS[unit] for count, unit in parts)) > MAX_DURATION:
        raise at(token.position, f"{token.said} is longer than ten years")
    return length


def string_of(token: Token) -> str:
    """Return the text that a string stands for.

    Raises:
        BadQuery: it has an escape that is none.

    >>> string_of(Token("string", r'"a\\\\.b\\u00b0"', 0))
    'a\\\\.b°'
    """
    inner = token.text[1:-1]
    if token.text[0] == "`" or "\\" not in inner:
        return inner

    def meant(match: re.Match[str]) -> str:
        if match[1]:
            return _LETTERS[match[1]]
        code = int(match[2] or match[3] or match[4] or "0", 16) if not match[5] else int(match[5], 8)
        if match[6] is not None or code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise at(token.position + 1 + match.start(), f"{match[0]!r} is no escape of a string")
        return chr(code)

    return _ESCAPE.sub(meant, inner)


def _stray(text: str, position: int) -> str:
    character = text[position]
    if character in "\"'`":
        return f"the string that begins with {character} does not end"
    if character.isdigit() or character == ".":
        found = re.match(r"[A-Za-z0-9_:.]+", text[position:])
        return f"{(found[0] if found else character)[:80]!r} is no number and no duration"
    return f"{character!r} has no meaning here"
