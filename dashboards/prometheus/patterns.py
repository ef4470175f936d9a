"""Regular expressions of a query. No I/O.

They are run by RE2, which Arrow brings along and which Prometheus uses, too: its time is linear in pattern and text,
whatever somebody writes, and patterns that would need much memory are refused.
"""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from dashboards.prometheus.problems import BadQuery


def matching(pattern: str, texts: Collection[str]) -> set[str]:
    """Return the texts that match a pattern as a whole.

    Raises:
        BadQuery: it is no pattern of RE2.

    >>> sorted(matching("room-.*|hall", {"room-1", "hall", "hallway"}))
    ['hall', 'room-1']
    """
    try:
        pc.match_substring_regex(pa.array([""]), pattern)  # by itself: `a)|(b` would leave the group that follows
        found = pc.match_substring_regex(pa.array(texts, pa.utf8()), f"^(?s:{pattern})$")
    except (pa.ArrowInvalid, UnicodeEncodeError) as error:
        raise BadQuery(f"{pattern[:200]!r} is no regular expression: {error}") from error
    return {text for text, is_match in zip(texts, found.to_pylist(), strict=True) if is_match}
