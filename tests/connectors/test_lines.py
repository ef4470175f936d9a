"""Cutting a stream into lines."""

from hypothesis import given
from hypothesis import strategies as st

from connectors.formats.lines import MAX_CHUNK_BYTES, LineFramer
from isotherm.limits import MAX_LINE_BYTES


def feed_all(stream: bytes, size: int) -> tuple[list[bytes], list[int | None]]:
    """Return the lines found and the lengths of those refused."""
    framer = LineFramer()
    lines: list[bytes] = []
    refused: list[int | None] = []
    chunks = [stream[i : i + size] for i in range(0, len(stream), size)]
    for found, rejects in [*map(framer.feed, chunks), framer.finish()]:
        lines += [line for line in found.split(b"\n") if line]
        refused += [one.size for one in rejects]
    return lines, refused


@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))), st.integers(1, 60))
def test_lines_are_the_same_however_the_stream_is_cut(lines: list[bytes], size: int) -> None:
    found, refused = feed_all(b"\n".join(lines), size)
    assert found == [line for line in lines if line]
    assert refused == []


@given(st.sampled_from([1, 7, 1000, MAX_CHUNK_BYTES]), st.integers(1, 3))
def test_the_line_after_a_too_long_one_is_found(size: int, excess: int) -> None:
    long = b"x" * (MAX_LINE_BYTES + excess)
    if size == 1:
        size = 4099  # a byte at a time is the same code and takes long
    found, refused = feed_all(b"before\n" + long + b"\nafter\n" + long, size)
    assert found == [b"before", b"after"]
    assert refused == [len(long), len(long)]


def test_the_longest_line_is_taken() -> None:
    line = b"x" * MAX_LINE_BYTES
    assert feed_all(line + b"\n", MAX_CHUNK_BYTES) == ([line], [])
    assert feed_all(line, 1000) == ([line], [])


def test_a_line_without_end_holds_no_more_than_its_head() -> None:
    framer = LineFramer()
    for _ in range(100):
        assert framer.feed(b"x" * MAX_CHUNK_BYTES) == (b"", [])
    assert len(framer._rest) <= 2 * MAX_LINE_BYTES
    assert framer.is_inside_line
    [reject] = framer.finish()[1]
    assert (reject.reason, reject.size) == ("line_too_long", 100 * MAX_CHUNK_BYTES)
