"""The worked example of a decoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.decoders import Decoders
from connectors.examples import elsys
from connectors.formats.decoded import Decoded
from tests.support.formats import NOW, joined, reasons, rows

EXAMPLE = Path(elsys.__file__)
FRAME = bytes.fromhex("0100e202290400270506060308070d62")


def decode(frame: bytes) -> Decoded:
    return joined(Decoders.load([EXAMPLE]).forms["decoder:elsys-ers"](frame, NOW))


def test_a_frame_of_the_makers_documentation_is_decoded() -> None:
    found = decode(FRAME)
    assert [(name, value, found.units[name]) for name, _, value in rows(found)] == [
        ("temperature", 22.6, "Cel"),
        ("humidity", 41.0, "%RH"),
        ("light", 39.0, "lx"),
        ("motion", 6.0, "count"),
        ("co2", 776.0, "ppm"),
        ("battery", 3.426, "V"),
    ]
    assert not found.rejects


def test_temperatures_below_zero_are_negative() -> None:
    assert rows(decode(bytes.fromhex("01ff9c"))) == [("temperature", NOW, -10.0)]


@pytest.mark.parametrize("length", range(len(FRAME) + 1))
def test_a_frame_that_was_cut_gives_what_is_whole_in_it(length: int) -> None:
    found = decode(FRAME[:length])
    assert rows(found) == rows(decode(FRAME))[: len(found.names)]
    ends = {0: "no_value"} | dict.fromkeys((3, 5, 8, 10, 13, 16), None)
    assert reasons(found) == [reason for reason in [ends.get(length, "malformed")] if reason]


def test_a_value_that_is_not_known_is_said() -> None:
    assert "byte 3 is 0x2a" in decode(bytes.fromhex("0100e22a00")).rejects[0].detail


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 50
