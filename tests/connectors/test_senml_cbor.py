"""SenML in CBOR: labels, versions, every kind of bad input, and inputs made to keep a decoder busy."""

import itertools
import math
import time

import cbor2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.formats import senml
from connectors.formats.decoded import PIECE, Decoded
from connectors.formats.senml_cbor import decode_payload
from isotherm.limits import MAX_PACK_BYTES
from isotherm.pack import NO_SEQ, Attribute
from tests.support.formats import NOW, REASONS, joined, reasons, rows

BVER, BN, BT, BU, BV = -1, -2, -3, -4, -5
N, U, V, VS, VB, S, T, UT, VD = range(9)

RFC_8428_6 = bytes.fromhex(
    "87a721781b75726e3a6465763a6f773a31306532303733613031303830303 63a22fb41d303a15b00106223614120050067766f6c746167650161"
    "5602fb405e066666666666a3006763757272656e74062402fb3ff3333333333333a3006763757272656e74062302fb3ff4cccccccccccda30067"
    "63757272656e74062202fb3ff6666666666666a3006763757272656e74062102f93e00a3006763757272656e74062002fb3ff999999999999aa3"
    "006763757272656e74060002fb3ffb333333333333".replace(" ", "")
)


def decode(data: bytes) -> Decoded:
    return joined(decode_payload(data, NOW))


def test_the_example_of_rfc_8428_6() -> None:
    found = decode(RFC_8428_6)
    base, name = 1_276_020_076_001_000, "urn:dev:ow:10e2073a0108006:"
    currents = [1.2, 1.3, 1.4, 1.5, 1.6, 1.7]
    assert rows(found) == [(f"{name}voltage", base, 120.1)] + [
        (f"{name}current", base + (i - 5) * 1_000_000, value) for i, value in enumerate(currents)
    ]
    assert found.units == {f"{name}voltage": "V", f"{name}current": "A"}


def test_every_label_by_number_and_by_name() -> None:
    by_number = {BN: "d/", BT: 1_790_000_000, BU: "Cel", BV: 20, BVER: 5, N: "t", U: "K", V: 1.5, T: 1, UT: 5, "seq": 7}
    by_name = {
        "bn": "d/",
        "bt": 1_790_000_000,
        "bu": "Cel",
        "bv": 20,
        "bver": 5,
        "n": "t",
        "u": "K",
        "v": 1.5,
        "t": 1,
        "seq": 7,
    }
    for record in (by_number, by_name):
        found = decode(cbor2.dumps([record]))
        assert rows(found) == [("d/t", NOW + 1_000_000, 21.5)]
        assert found.units == {"d/t": "K"}
        assert found.seq is not None and found.seq.tolist() == [7]


def test_booleans_strings_and_data() -> None:
    found = decode(cbor2.dumps([{BN: "d/", N: "on", VB: True}, {N: "fw", VS: "1.2"}, {N: "id", VD: b"\xfb\xff\x00\x01"}]))
    assert rows(found) == [("d/on", NOW, 1.0)]
    assert found.attributes == [Attribute("d/fw", NOW, "1.2"), Attribute("d/id", NOW, "-_8AAQ")]


def test_a_single_map_and_indefinite_lengths_are_taken() -> None:
    record = {N: "d/t", V: 1}
    expected = [("d/t", NOW, 1.0)]
    assert rows(decode(cbor2.dumps(record))) == expected
    assert rows(decode(b"\x9f" + cbor2.dumps(record) + b"\xff")) == expected
    assert rows(decode(b"\x9f\xbf\x00\x63d/t\x02\x01\xff\xff")) == expected
    assert rows(decode(b"\x80")) == [] and not decode(b"\x80").rejects


@pytest.mark.parametrize("exponent", [-400, -2, 0, 3, 400, 2**64 - 1, -(2**64)])
def test_decimal_fractions_are_numbers(exponent: int) -> None:
    fraction = b"\xc4\x82" + cbor2.dumps(exponent) + cbor2.dumps(-2731)
    expected = float(f"-2731e{exponent}")
    for payload in (
        b"\x81\xa2\x00\x63d/t\x02" + fraction,
        b"\xa2\x00\x63d/t\x02" + fraction,
        b"\x9f\xbf\x00\x63d/t\x02" + fraction + b"\xff\xff",
        b"\x98\x01\xb9\x00\x02\x00\x63d/t\x02" + fraction,
    ):
        assert rows(decode(payload)) == [("d/t", NOW, expected)]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", "malformed"),
        (b"\xff", "malformed"),
        (b"[]", "malformed"),
        (b"\x81", "malformed"),
        (b"\x9f\xa2\x00\x61a\x02\x01", "malformed"),
        (b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", "malformed"),
        (b"\x81\x5b\x7f\xff\xff\xff\xff\xff\xff\xff", "malformed"),
        (b"\x81\xbb\x00\x00\x00\x00\xff\xff\xff\xff", "malformed"),
        (cbor2.dumps([{N: "d/t", V: 1}]) + b"\x00", "malformed"),
        (b"\x81\xa3\x00\x61a\x02\x01\x02\x02", "malformed"),  # a label twice
        (b"\x81\xa3\x00\x61a\x02\x01\x61v\x02", "malformed"),  # by number and by name
        (b"\x81\xa2\x00\x61\xff\x02\x01", "malformed"),  # text that is not UTF-8
        (b"\x81" * 100_000, "malformed"),
        (b"\xa1\x00" * 100_000, "malformed"),
        (b"\x9f" * 1_000_000, "malformed"),
        (b"\x81\xa1\xa1\x00\x00\x00", "malformed"),  # a map as label
        (b"\xa1\x81\x00\x00", "malformed"),
        (b"\x81\xa1\xa0\x00", "type"),
        (b"\xa1\x80\x00", "type"),
        (cbor2.dumps([{N: "d/t", V: 1, 1.5: 1}]), "type"),
        (b"\x81\xa1\x80\xc4\x82\x00\x00", "malformed"),
        (b"\x81\xa3\x00\x61a\x02\x01\x02\xc4\x82\x00\x00", "malformed"),
        (b"\x81\xa1\x02\xc4\x82\x00\x61a", "malformed"),
        (b"\x81\xa1\x02\xc4\x83\x00\x00\x00", "malformed"),
        (b"\x81\xa1\x02\xc4\x82\x00\xc2\x41\x01", "malformed"),
        (b"\x81\xa1\x02\xc2\x41\xc4", "malformed"),  # a bignum
        (b"\x81\xd8\x23\x64(\xc4\x82)", "malformed"),  # a regular expression
        (b"\xd8\x1c\x81\xd8\x1d\x00", "malformed"),  # an array that holds itself
        (b"\x81\x9c\xc4", "malformed"),
        (b"\x11", "type"),
        (b"\x61a", "type"),
        (b"\x81\x11", "type"),
        (b"\x81\x80", "type"),
        (cbor2.dumps([{N: 5, V: 1}]), "type"),
        (cbor2.dumps([{N: "d/t", V: "1"}]), "type"),
        (cbor2.dumps([{N: "d/t", V: True}]), "type"),
        (cbor2.dumps([{N: b"d/t", V: 1}]), "type"),
        (cbor2.dumps([{N: "d/t", VB: 1}]), "type"),
        (cbor2.dumps([{N: "d/t", VD: "aGk"}]), "type"),
        (cbor2.dumps([{N: "d/t", V: cbor2.undefined}]), "type"),
        (cbor2.dumps([{N: "d/t", V: 1, "new_": 5}]), "unknown_field"),
        (cbor2.dumps([{N: "d/t", V: 1, BVER: 11}]), "version"),
        (cbor2.dumps([{N: "d/t"}]), "no_value"),
        (cbor2.dumps([{N: "d/t", S: 5}]), "no_value"),
        (cbor2.dumps([{N: "d/t", V: 1, "seq": -1}]), "seq"),
        (cbor2.dumps([{N: "d/t", VS: "x" * 5000}]), "attribute"),
        (cbor2.dumps([{N: "d/t", V: 1}] * 10_001), "too_large"),
        (b"\x9f" + b"\xa1\x02\xc4\x82\x00\x01" * 10_001 + b"\xff", "too_large"),
        (b"\x80" + b"\x00" * MAX_PACK_BYTES, "too_large"),
    ],
)
def test_bad_input_is_refused_with_its_reason_and_its_bytes(bad: bytes, reason: str) -> None:
    found = decode(bad)
    assert reasons(found) == [reason]
    assert found.rejects[0].raw == bad
    assert found.rejects[0].detail
    assert rows(found) == []


def test_unknown_fields_that_need_not_be_understood_are_passed_over() -> None:
    assert rows(decode(cbor2.dumps([{N: "d/t", V: 1, "extra": b"x", 99: None, -99: 1.5}]))) == [("d/t", NOW, 1.0)]


def test_good_records_beside_bad_ones_are_kept_and_say_where_they_were() -> None:
    found = decode(cbor2.dumps([{BN: "d/", N: "a", V: 1}, {N: "b", V: "x"}, 17, {N: "c", V: 3}]))
    assert [row[0] for row in rows(found)] == ["d/a", "d/c"]
    assert [(one.at, one.reason, cbor2.loads(one.raw)) for one in found.rejects] == [
        (2, "type", {N: "b", V: "x"}),
        (3, "type", 17),
    ]
    assert found.source(1)[0] == 4


@pytest.mark.parametrize("bad", [{BN: 5, N: "b", V: 2}, {"bt": "now"}, {BVER: 11}, {BV: 1, "new_": 1}])
def test_records_after_a_bad_one_with_base_fields_are_refused(bad: dict[object, object]) -> None:
    found = decode(cbor2.dumps([{BN: "d/", N: "a", V: 1}, bad, {N: "c", V: 3}]))
    assert [row[0] for row in rows(found)] == ["d/a"]
    assert reasons(found)[1:] == ["base"]


def test_what_is_refused_later_can_be_sent_again_by_itself() -> None:
    found = decode(cbor2.dumps([{BN: "d/", BT: 1_790_000_000, BU: "Cel", N: "a", V: 1, "seq": 3}, {N: "b", V: 2}]))
    for i, row in enumerate(rows(found)):
        again = decode(found.source(i)[1])
        assert rows(again) == [row] and again.units == {row[0]: "Cel"}
        assert again.seq is None if i else again.seq is not None and again.seq.tolist() == [3]
    refused = decode(cbor2.dumps([{N: "d/a", V: 1}, {N: "d/b", VD: b"\xff\x01" * 2000}])).rejects[0]
    assert refused.reason == "attribute"
    assert cbor2.loads(refused.raw) == {N: "d/b", VD: b"\xff\x01" * 2000}


def test_pieces_are_bounded_and_base_fields_hold_across_them() -> None:
    records = [{BN: "d/", N: "a", V: 0}, *({N: "a", V: i} for i in range(1, 2 * PIECE + 50))]
    pieces = list(decode_payload(cbor2.dumps(records), NOW))
    assert [len(piece.names) for piece in pieces] == [PIECE, PIECE, 50]
    assert {name for piece in pieces for name in piece.names} == {"d/a"}
    assert pieces[2].source(49)[0] == 2 * PIECE + 50


def test_labels_whose_hashes_collide_take_no_time() -> None:
    """hash((-1,)) == hash((-2,)): a megabyte of such arrays as labels would keep a dictionary busy for a minute."""
    labels = itertools.islice(itertools.product(b"\x20\x21", repeat=16), 50_000)
    members = b"".join(b"\x90" + bytes(label) + b"\x00" for label in labels)
    attack = b"\xb9\xc3\x50" + members
    for payload in (
        b"\x81" + attack,
        attack,
        b"\x81" + attack + b"\xc4\x82\x00\x00",
        b"\x82\xa1\x02\xc4\x82\x00\x00" + attack,
    ):
        begun = time.process_time()
        assert reasons(decode(payload)) == ["malformed"]
        assert time.process_time() - begun < 0.5


_records = st.fixed_dictionaries(
    {N: st.text(max_size=8)},
    optional={
        BN: st.text(max_size=8),
        BT: st.integers(0, 2**31) | st.floats(0, 2**31),
        U: st.sampled_from(["Cel", "%RH"]),
        V: st.integers(-(2**64), 2**64 - 1) | st.floats(allow_nan=False),
        VS: st.text(max_size=5),
        VB: st.booleans(),
        T: st.integers(-1000, 2**31) | st.floats(-1000, 2**31),
        "seq": st.integers(0, 2**63 - 2),
    },
)
_NAMES = dict(enumerate(["n", "u", "v", "vs", "vb", "s", "t"])) | {BN: "bn", BT: "bt", "seq": "seq"}


@given(st.lists(_records, max_size=6))
def test_cbor_means_what_json_means(records: list[dict[int | str, object]]) -> None:
    by_name = [{_NAMES[label]: value for label, value in record.items()} for record in records]
    if any(isinstance(value, float) and math.isinf(value) for record in by_name for value in record.values()):
        return  # JSON has no such number
    found = decode(cbor2.dumps(records))
    json = joined(senml.decode_payload(msgspec.json.encode(by_name), NOW))
    assert rows(found) == rows(json)
    assert (found.units, reasons(found)) == (json.units, reasons(json))
    assert list(found.attributes) == list(json.attributes)
    assert np.array_equal(_seq(found), _seq(json))


def _seq(found: Decoded) -> list[int]:
    return [NO_SEQ] * len(found.names) if found.seq is None else found.seq.tolist()


_mutations = st.builds(
    lambda payload, at, bit: payload[: at % len(payload)] + bit + payload[at % len(payload) + 1 :],
    st.sampled_from(
        [RFC_8428_6, cbor2.dumps([{N: "d/t", VD: b"x", "seq": 1}]), b"\x81\xa2\x00\x63d/t\x02\xc4\x82\x21\x19\x0a\xab"]
    ),
    st.integers(0, 200),
    st.binary(max_size=3),
)


@given(st.binary(max_size=60) | _mutations)
def test_any_bytes_become_readings_or_rejects_with_a_known_reason(data: bytes) -> None:
    found = decode(data)
    assert all(one.reason in REASONS and one.detail for one in found.rejects)
    assert len(found.names) == len(found.time) == len(found.value)
    assert all(decode(found.source(i)[1]).names for i in range(len(found.names)))
