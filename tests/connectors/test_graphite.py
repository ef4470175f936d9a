"""Graphite's plain text: the fast path and the careful one, names, tags, errors, and that no line is lost."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connectors.formats import escape
from connectors.formats.decoded import Decoded
from connectors.formats.graphite import GraphiteDecoder
from connectors.formats.lines import LineFramer
from tests.support.formats import NOW, REASONS, Row, cases, joined, reasons, rows

CASES = cases("graphite")


def decode(data: bytes, decoder: GraphiteDecoder | None = None) -> Decoded:
    return joined((decoder or GraphiteDecoder())(data, NOW))


def test_all_cases_are_found() -> None:
    assert len(CASES) == 10


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_gives_what_is_expected(case: Path) -> None:
    expected = json.loads((case / "expected.json").read_text())
    decoder = GraphiteDecoder(prefix=expected["prefix"])
    for _ in range(2):  # once with nothing remembered, once with every name
        found = decode((case / "input.txt").read_bytes(), decoder)
        assert [
            [name, time, value if math.isfinite(value) else str(value)] for name, time, value in rows(found)
        ] == expected["readings"]
        assert list(found.attributes) == expected["attributes"]
        assert [[one.at, one.reason, one.raw.decode("latin-1")] for one in found.rejects] == expected["rejects"]


def test_a_prefix_may_have_many_components_and_a_last_dot() -> None:
    for prefix in ("a.b", "a.b."):
        assert rows(decode(b"a.b.host.x 1 5", GraphiteDecoder(prefix))) == [("host/x", 5_000_000, 1.0)]


@pytest.mark.parametrize("number", ["1_0", "١", "0x1", "1e", ".", "", "--1", "1\u00a0", "1,5", "e1", "nane", "1\x0b"])
def test_what_is_no_number_is_refused_whatever_python_thinks(number: str) -> None:
    assert len(reasons(decode(f"host.x {number} 5".encode()))) == 1
    assert len(reasons(decode(f"host.x 5 {number}".encode()))) == 1


def test_both_paths_give_the_same() -> None:
    lines = [f"host{i % 7}.load {i / 8} {1_790_000_000 + i / 4}" for i in range(900)]
    plain = decode("\n".join(lines).encode())
    careful = decode("\n".join(f" {line}\t" for line in lines).encode())
    assert rows(plain) == rows(careful)
    assert [careful.source(i)[0] for i in range(900)] == [plain.source(i)[0] for i in range(900)] == list(range(1, 901))


def test_every_reading_can_show_its_line() -> None:
    data = b"\r\nhost.x 1 5\r\nbogus\nhost.x 2 5\n"
    found = decode(data)
    assert [found.source(i) for i in range(2)] == [(2, b"host.x 1 5"), (4, b"host.x 2 5")]
    many = list(GraphiteDecoder()(b"host.x 1 5\n" * 2001 + b"host.x 2 5\r\n", NOW))
    assert many[1].source(1) == (2002, b"host.x 2 5")


def test_pieces_are_bounded_and_complete() -> None:
    good = b"host.x 1 5\n"
    assert [len(piece.names) for piece in GraphiteDecoder()(good * 4500, NOW)] == [2000, 2000, 500]
    pieces = list(GraphiteDecoder()(good * 2100 + b"bogus\n" + good * 2100, NOW))
    assert sum(len(piece.names) for piece in pieces) == 4200
    assert {len(piece.names) for piece in pieces if piece.rejects} == {199}


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(escape, "MAX_CACHED_NAMES", 3)
    decoder = GraphiteDecoder()
    data = "\n".join([f"host{i}.x 1 5" for i in range(8)] + [f"host.{'x' * 600} 1 5"]).encode()
    for _ in range(2):
        assert rows(decode(data, decoder))[7][0] == "host7/x"
        assert 0 < len(decoder._names) <= 3


_component = st.text(st.characters(exclude_characters=" \n\r\t.;=", exclude_categories=["Cs"]), min_size=1, max_size=6)
_point = st.tuples(
    st.lists(_component, min_size=2, max_size=4),
    st.dictionaries(_component, _component, max_size=3),
    st.floats(allow_nan=False),
    st.none() | st.integers(0, 2**32),
)


@given(st.lists(_point, max_size=8))
def test_what_a_client_writes_is_read_back(points: list[tuple[list[str], dict[str, str], float, int | None]]) -> None:
    lines, expected = [], []
    for components, tags, value, time in points:
        path = ".".join(components) + "".join(f";{key}={tags[key]}" for key in tags)
        lines.append(f"{path} {value!r} {-1 if time is None else time}")
        metric = [".".join(components[1:]), *(f"{key}:{tags[key]}" for key in sorted(tags))]
        name = "/".join([escape.escape_device(components[0]), *map(escape.escape_metric, metric)])
        expected.append((name, NOW if time is None else time * 1_000_000, value))
    found = decode("\n".join(lines).encode())
    assert not found.rejects
    assert rows(found) == expected


def feed(data: bytes, sizes: list[int]) -> tuple[list[Row], list[tuple[str, bytes]]]:
    """Decode a stream that arrives in chunks."""
    decoder, framer, found = GraphiteDecoder(), LineFramer(), []
    while data:
        size = sizes.pop() if sizes else 1
        found.append(decode(framer.feed(data[:size])[0], decoder))
        data = data[size:]
    found.append(decode(framer.finish()[0], decoder))
    return [row for part in found for row in rows(part)], [(one.reason, one.raw) for part in found for one in part.rejects]


_LINES = [b"host.x 1 5", b"host.x;a=b 2.5 -1\r", b"", b"bogus", b"host 1 5", b"host.\xff 1 5", b"  host.x\t1 5 "]


@given(st.lists(st.sampled_from(_LINES), max_size=8), st.lists(st.integers(1, 50), max_size=20))
def test_a_stream_gives_the_same_however_it_is_cut(lines: list[bytes], sizes: list[int]) -> None:
    data = b"\n".join(lines)
    assert feed(data, []) == feed(data, sizes) == feed(data, [len(data) or 1])


_mutations = st.builds(
    lambda line, at, bit: line[: at % len(line)] + bit + line[at % len(line) + 1 :],
    st.sampled_from([b"host.x 1 5", b"host.x.y;a=b;c=d -1e5 -1", b"host.x nan 1.5"]),
    st.integers(0, 100),
    st.sampled_from([b"", b" ", b";", b"=", b".", b"\xff", b"\xc2\xb0", b"\t", b"\r", b"_", b"-", b"\x00"])
    | st.binary(max_size=3),
)


@given(st.lists(st.binary(max_size=30) | _mutations, max_size=6))
@example([b"host.x\t1 5 5"])
@example([b"host.x 1 5\r\r"])
@example([b"", b"host.x 1 \r5"])
def test_every_line_becomes_a_reading_or_exactly_one_reject(lines: list[bytes]) -> None:
    lines = [line.replace(b"\n", b"") for line in lines]
    parts = [decode(line) for line in lines]
    for line, found in zip(lines, parts, strict=True):
        assert len(found.names) + len(found.rejects) == bool(line.strip(b" \t\r"))
        for one in found.rejects:
            assert one.reason in REASONS and one.detail and one.raw == line.removesuffix(b"\r")
    whole = decode(b"\n".join(lines))
    assert str(rows(whole)) == str([row for part in parts for row in rows(part)])  # as text: nan is nan
    assert [one.raw for one in whole.rejects] == [one.raw for part in parts for one in part.rejects]
