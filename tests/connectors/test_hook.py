"""A stranger's function as a decoder: what it yields, and everything that it may do wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from connectors.formats.decoded import PIECE, Decoded
from connectors.formats.hook import HookDecoder
from isotherm.limits import MAX_ATTRIBUTE_CHARS, MAX_PACK_BYTES, MAX_PACK_READINGS
from isotherm.pack import Attribute
from tests.support.formats import NOW, joined, reasons, rows

PAYLOAD = b"\x01\x00\xe2"
GOOD = {"n": "good", "v": 1}


class Broken(dict[str, object]):
    """A record that cannot be asked."""

    def keys(self) -> Any:
        raise KeyError("broken")


class Mute(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise ValueError


def decode(*items: object, payload: bytes = PAYLOAD) -> Decoded:
    """Decode with a function that yields these."""
    return joined(HookDecoder("door", lambda _: items)(payload, NOW))  # type: ignore[arg-type, return-value]


def test_records_become_readings_and_attributes() -> None:
    found = decode(
        {"n": "temperature", "u": "Cel", "v": 22.6, "t": -10},
        {"n": "open", "vb": True},
        {"n": "child/count", "v": 3, "t": 1_789_999_999.5, "seq": 7},
        {"n": "fw", "vs": "1.2"},
    )
    assert rows(found) == [("temperature", NOW - 10_000_000, 22.6), ("open", NOW, 1.0), ("child/count", NOW - 500_000, 3.0)]
    assert found.units == {"temperature": "Cel"}
    assert found.seq is not None and int(found.seq[2]) == 7
    assert found.attributes == [Attribute("fw", NOW, "1.2")]
    assert [found.source(i) for i in range(3)] == [(1, PAYLOAD), (2, PAYLOAD), (3, PAYLOAD)]
    assert not found.rejects


def test_the_function_is_given_the_payload() -> None:
    def decode_it(payload: bytes) -> Iterator[dict[str, object]]:
        yield {"n": "temperature", "v": int.from_bytes(payload[1:], "big") / 10}

    assert rows(joined(HookDecoder("door", decode_it)(PAYLOAD, NOW))) == [("temperature", NOW, 22.6)]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (17, "it yielded int, expected a dict"),
        (None, "it yielded NoneType"),
        ("n", "it yielded str"),
        ({"n": "a", "value": 1}, "a field 'value', expected n, u, v"),
        ({"bn": "d/", "n": "a", "v": 1}, "a field 'bn'"),
        ({1: 2}, "a field '1'"),
        ({"n": "a", "v": "21.5"}, "it yielded n='a', v='21.5': Expected `float | null`, got `str`"),
        ({"n": "a", "v": b"1"}, "v=b'1'"),
        ({"n": "a"}, "none of v, vb, vs, vd"),
        ({}, "is no metric name"),
        ({"v": 1}, "is no metric name"),
        ({"n": "a b", "v": 1}, "'a b' is no metric name"),
        ({"n": "no device/a", "v": 1}, "'no device' is no device name"),
        ({"n": "_", "vs": "x"}, "'_' is no metric name"),
        ({"n": "a", "v": float("nan")}, "value nan, expected a finite number"),
        ({"n": "a", "v": float("-inf")}, "value -inf"),
        ({"n": "a", "v": 1, "t": 1e300}, "in the future"),
        ({"n": "a", "v": 1, "t": -1e9}, "in the past"),
        ({"n": "a", "v": 1, "t": float("nan")}, "in the past"),
        ({"n": "a", "v": 1, "seq": -1}, "sequence number -1"),
        ({"n": "a", "vs": "x" * (MAX_ATTRIBUTE_CHARS + 1)}, "4097 characters"),
        ({"n": "a", "v": 10**400}, "v=1000"),
        ({"n": "a", "vs": "\ud800"}, "surrogates not allowed"),
        ({"n": "a", "v": 1, "u": "\ud800"}, "surrogates not allowed"),
        ({"n": "\ud800", "v": 1}, "is no metric name"),
        (Broken(n="a", v=1), "KeyError: 'broken'"),
    ],
)
def test_what_is_no_reading_makes_one_reject_and_the_others_are_kept(item: object, said: str) -> None:
    found = decode(GOOD, item, item, GOOD)
    assert rows(found) == [("good", NOW, 1.0)] * 2
    [one] = found.rejects
    assert (one.reason, one.raw) == ("malformed", PAYLOAD)
    assert one.detail.startswith("decoder door: ") and one.detail.endswith(" (and 1 more)")
    assert said in one.detail


def raising(error: BaseException) -> Callable[[bytes], Any]:
    def function(payload: bytes) -> Iterator[dict[str, object]]:
        yield {"n": "good", "v": 1}
        raise error

    return function


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (raising(ValueError("byte 0 is 0x2a")), "ValueError: byte 0 is 0x2a"),
        (raising(RecursionError()), "RecursionError: "),
        (raising(MemoryError()), "MemoryError: "),
        (raising(SystemExit(1)), "SystemExit: 1"),
        (raising(StopIteration()), "RuntimeError: generator raised StopIteration"),
        (raising(Mute()), "Mute: ?"),
        (raising(ValueError("\ud800" * 10_000)), "ValueError: \\ud800"),
    ],
)
def test_what_it_raises_makes_a_reject_and_what_it_yielded_before_is_kept(
    function: Callable[[bytes], Any], said: str
) -> None:
    found = joined(HookDecoder("door", function)(PAYLOAD, NOW))
    assert rows(found) == [("good", NOW, 1.0)]
    [one] = found.rejects
    assert (one.reason, one.raw) == ("malformed", PAYLOAD)
    assert f"decoder door: {said}" in one.detail
    assert len(one.detail.encode()) < 300


@pytest.mark.parametrize("made", [None, 17, {"n": "a", "v": 1}])
def test_a_function_that_returns_something_else_makes_a_reject(made: Any) -> None:
    assert reasons(joined(HookDecoder("door", lambda _: made)(PAYLOAD, NOW))) == ["malformed"]


def test_whoever_stops_the_process_is_let_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        list(HookDecoder("door", raising(KeyboardInterrupt()))(PAYLOAD, NOW))


def test_a_payload_in_which_it_finds_nothing_is_refused() -> None:
    [one] = decode().rejects
    assert (one.reason, one.raw, one.detail) == ("no_value", PAYLOAD, "decoder door found nothing in it")


def test_a_payload_that_is_too_large_is_refused_unseen() -> None:
    assert reasons(decode(GOOD, payload=bytes(MAX_PACK_BYTES + 1))) == ["too_large"]


def test_what_it_yields_is_taken_in_pieces_and_has_an_end() -> None:
    def forever(payload: bytes) -> Iterator[dict[str, object]]:
        while True:
            yield {"n": "a", "v": 1}

    pieces = list(HookDecoder("door", forever)(PAYLOAD, NOW))
    assert [len(piece.names) for piece in pieces] == [PIECE] * (MAX_PACK_READINGS // PIECE) + [0]
    assert f"more than {MAX_PACK_READINGS} records" in pieces[-1].rejects[0].detail


def test_a_decoder_that_goes_to_pieces_on_everything_makes_one_reject() -> None:
    found = decode(*[{"n": "a"}] * 1000)
    assert [one.detail for one in found.rejects] == [
        "decoder door: none of v, vb, vs, vd in a record with a name (and 999 more)"
    ]
