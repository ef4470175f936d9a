"""ThingsBoard's JSON: what names come out, what becomes of every kind of value, and that nothing is lost."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.formats.catalogue import THINGSBOARD, THINGSBOARD_GATEWAY
from connectors.formats.decoded import PIECE, Decoded
from connectors.formats.thingsboard import decode_gateway_payload, decode_payload
from isotherm.limits import MAX_ATTRIBUTE_CHARS, MAX_PACK_BYTES, MAX_PACK_READINGS
from isotherm.names import series_name
from isotherm.pack import Attribute
from tests.support.formats import NOW, REASONS, cases, joined, reasons, rows

DECODERS = {THINGSBOARD: decode_payload, THINGSBOARD_GATEWAY: decode_gateway_payload}
CASES = [(form, case) for form in DECODERS for case in cases(form)]


def decode(payload: bytes, form: str = THINGSBOARD) -> Decoded:
    return joined(DECODERS[form](payload, NOW))


def test_all_cases_are_found() -> None:
    assert [len(cases(form)) for form in DECODERS] == [16, 6]


@pytest.mark.parametrize(("form", "case"), CASES, ids=lambda part: getattr(part, "name", part))
def test_a_case_gives_what_is_expected(form: str, case: Path) -> None:
    expected = json.loads((case / "expected.json").read_text())
    for _ in range(2):  # once with nothing remembered, once with every name
        found = decode((case / "input.txt").read_bytes(), form)
        assert [list(row) for row in rows(found)] == expected["readings"]
        assert [list(one) for one in found.attributes] == expected["attributes"]
        assert [[one.at, one.reason, one.raw.decode("latin-1")] for one in found.rejects] == expected["rejects"]
        assert set(reasons(found)) <= REASONS


@pytest.mark.parametrize(("form", "case"), CASES, ids=lambda part: getattr(part, "name", part))
def test_what_is_refused_or_shown_means_the_same_by_itself(form: str, case: Path) -> None:
    found = decode((case / "input.txt").read_bytes(), form)
    for one in found.rejects:
        again = decode(one.raw, form)
        assert not again.names and not again.attributes
        assert [(other.reason, other.raw) for other in again.rejects] == [(one.reason, one.raw)]
    for i, row in enumerate(rows(found)):
        assert rows(decode(found.source(i)[1], form)) == [row]


def test_a_device_and_its_gateway_give_a_metric_the_same_name() -> None:
    values = {"temperature": 1, "Temp °C": 2, "rack/power:L1": 3}
    own = decode(json.dumps(values).encode())
    childs = decode(json.dumps({"d": [values]}).encode(), THINGSBOARD_GATEWAY)
    assert [series_name(name, "d") for name in own.names] == [series_name(name, "gateway") for name in childs.names]


def test_text_of_the_greatest_length_is_an_attribute_and_longer_text_is_refused() -> None:
    text = "x" * MAX_ATTRIBUTE_CHARS
    assert decode(json.dumps({"fw": text}).encode()).attributes == [Attribute("fw", NOW, text)]
    assert reasons(decode(json.dumps({"fw": text + "x", "list": [text]}).encode())) == ["attribute", "attribute"]


def test_values_beyond_the_greatest_number_are_refused_and_those_before_are_kept() -> None:
    most = json.dumps({f"m{i}": i for i in range(MAX_PACK_READINGS - 1)}).encode()
    for form, wrapped in ((THINGSBOARD, b"[%b]"), (THINGSBOARD_GATEWAY, b'{"d":[%b]}')):
        found = decode(wrapped % b",".join([most, b'{"a":1,"b":2}', b'{"a":3}']), form)
        assert len(found.names) == MAX_PACK_READINGS
        assert [(one.reason, one.at, one.raw) for one in found.rejects] == [("too_large", 2, wrapped % b'{"a":1,"b":2}')]


def test_too_many_objects_and_too_large_payloads_are_refused() -> None:
    for form, wrapped in ((THINGSBOARD, b"[%b]"), (THINGSBOARD_GATEWAY, b'{"d":[%b]}')):
        assert len(decode(wrapped % b",".join([b'{"a":1}'] * MAX_PACK_READINGS), form).names) == MAX_PACK_READINGS
        for element in (b'{"a":1}', b"7"):
            assert reasons(decode(wrapped % b",".join([element] * (MAX_PACK_READINGS + 1)), form)) == ["too_large"]
        assert reasons(decode(b" " * (MAX_PACK_BYTES + 1), form)) == ["too_large"]
    devices = {f"d{i}": {"a": 1} for i in range(MAX_PACK_READINGS + 1)}
    assert reasons(decode(json.dumps(devices).encode(), THINGSBOARD_GATEWAY)) == ["too_large"]


@pytest.mark.parametrize("member", [b'{"a":1}', b'{"a":null}', b'{"a":""}', b"7"])
def test_pieces_are_bounded_and_complete(member: bytes) -> None:
    pieces = list(decode_payload(b"[" + b",".join([member] * 1000) + b"]", NOW))
    sizes = [len(piece.names) + len(piece.attributes) + len(piece.rejects) for piece in pieces]
    assert sizes == [PIECE] * 5


@pytest.mark.parametrize("form", DECODERS)
def test_deep_nesting_is_refused_and_not_followed(form: str) -> None:
    for payload in (b"[" * 100_000, b'{"a":' * 50_000, b'{"d":[{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}]}"):
        assert len(decode(payload, form).rejects) >= 1


_values = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**64),
    st.booleans(),
    st.none(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from("ab"), st.none(), max_size=2),
)
_keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4).map(lambda key: "k" + key)
_mappings = st.dictionaries(_keys, _values, min_size=1, max_size=4)
_stamps = st.integers(NOW // 1000 - 10**9, NOW // 1000 + 10**5)


@given(st.lists(st.tuples(st.none() | _stamps, _mappings), min_size=1, max_size=4), st.booleans())
def test_every_value_becomes_a_reading_an_attribute_or_a_reject(
    elements: list[tuple[int | None, dict[str, Any]]], one: bool
) -> None:
    sent = [values if stamp is None else {"ts": stamp, "values": values} for stamp, values in elements]
    values = [
        (NOW if stamp is None else stamp * 1000, value)
        for stamp, values in elements[: 1 if one else None]
        for value in values.values()
    ]
    for form, payload in ((THINGSBOARD, sent[0] if one else sent), (THINGSBOARD_GATEWAY, {"d": sent[0] if one else sent})):
        found = decode(json.dumps(payload, indent=1).encode(), form)
        assert [(row[1], row[2]) for row in rows(found)] == [
            (time, float(value)) for time, value in values if isinstance(value, int | float)
        ]
        assert [(one.time, one.text) for one in found.attributes] == [
            (time, value if isinstance(value, str) else json.dumps(value, separators=(",", ":")))
            for time, value in values
            if isinstance(value, str | list | dict)
        ]
        assert len(found.rejects) == sum(value is None for _, value in values)
