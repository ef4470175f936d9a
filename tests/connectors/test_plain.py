"""The fast path of small messages, which has to find what the decoder finds."""

from __future__ import annotations

import doctest

import msgspec
import pytest

from connectors import plain
from connectors.formats import senml
from connectors.identity import only
from connectors.plain import merged, plain_records
from tests.support.formats import NOW, joined, rows

ROOM = only("room-1")


def test_examples_in_docstrings_are_true() -> None:
    failures, tried = doctest.testmod(plain)
    assert (failures, tried) == (0, 1)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"n":"t","v":1}',
        b'[{"n":"t","v":1,"u":"Cel","t":1790000000.5}]',
        b'[{"n":"room-1/t","v":1},{"n":"u","v":-2.5,"t":-1}]',
    ],
)
def test_a_plain_message_is_read_as_its_decoder_reads_it(payload: bytes) -> None:
    records = plain_records(payload, ROOM)
    assert records is not None
    found, expected = merged(records, NOW), joined(senml.decode_payload(payload, NOW))
    names = [name if "/" in name else f"room-1/{name}" for name, _, _ in rows(expected)]
    assert rows(found) == [(name, time, value) for name, (_, time, value) in zip(names, rows(expected), strict=True)]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"junk",
        b'[{"n":"t","v":1},{"n":"t","vs":"x"}]',
        b'[{"bn":"room-1/","n":"t","v":1}]',
        b'[{"n":"room-2/t","v":1}]',  # another device's
        b'[{"n":"t","v":1,"seq":-1}]',
    ],
)
def test_what_is_not_plain_is_left_to_the_decoder(payload: bytes) -> None:
    assert plain_records(payload, ROOM) is None


def test_sequence_numbers_go_along() -> None:
    records = plain_records(msgspec.json.encode([{"n": "t", "v": 1, "t": 1.79e9, "seq": 7}, {"n": "t", "v": 2}]), ROOM)
    assert records is not None
    seq = merged(records, NOW).seq
    assert seq is not None and seq[0] == 7
