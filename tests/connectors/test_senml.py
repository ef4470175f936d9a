"""SenML in JSON: the fast path, the general path, and every kind of bad input."""

import json
import math
from collections.abc import Callable
from unittest.mock import patch

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.formats import senml
from connectors.formats.decoded import Decoded
from connectors.formats.records import FEW, senml_us, times_us
from isotherm.limits import MAX_SEQ
from isotherm.pack import NO_SEQ, STAMPED, Attribute
from tests.support.formats import NOW, joined, reasons, rows

Decode = Callable[[bytes, int], Decoded]


def decode_lines(data: bytes, now: int) -> Decoded:
    return joined(senml.decode_lines(data, now))


def decode_payload(data: bytes, now: int) -> Decoded:
    return joined(senml.decode_payload(data, now))


both = pytest.mark.parametrize("decode", [decode_lines, decode_payload])


@both
def test_a_plain_record(decode: Decode) -> None:
    found = decode(b'{"n":"room-1/temperature","u":"Cel","v":21.5,"t":1789999999.25}', NOW)
    assert rows(found) == [("room-1/temperature", 1_789_999_999_250_000, 21.5)]
    assert found.units == {"room-1/temperature": "Cel"}
    assert not found.rejects


# The examples of RFC 8428 §5.1.1 to §5.1.4, with absolute times where it has them.


def test_rfc_8428_5_1_1_single_data_point() -> None:
    found = decode_payload(b'[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]', NOW)
    assert rows(found) == [("urn:dev:ow:10e2073a01080063", NOW, 23.1)]


def test_rfc_8428_5_1_2_multiple_data_points() -> None:
    found = decode_payload(
        b"""[{"bn":"urn:dev:ow:10e2073a01080063:","n":"voltage","u":"V","v":120.1},
             {"n":"current","u":"A","v":1.2}]""",
        NOW,
    )
    assert found.names == ["urn:dev:ow:10e2073a01080063:voltage", "urn:dev:ow:10e2073a01080063:current"]
    assert found.units == {found.names[0]: "V", found.names[1]: "A"}

    found = decode_payload(
        b"""[{"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,"n":"voltage","u":"V","v":120.1},
             {"n":"current","t":-5,"v":1.2},{"n":"current","t":-4,"v":1.3},{"n":"current","v":1.7}]""",
        NOW,
    )
    base = 1_276_020_076_001_000
    assert found.time.tolist() == [base, base - 5_000_000, base - 4_000_000, base]
    assert found.units == {"urn:dev:ow:10e2073a0108006:voltage": "V", "urn:dev:ow:10e2073a0108006:current": "A"}


def test_rfc_8428_5_1_3_multiple_measurements() -> None:
    found = decode_payload(
        b"""[{"bn":"urn:dev:ow:10e2073a01080063","bt":1.320067464e+09,"bu":"%RH","v":20},
             {"u":"lon","v":24.30621},{"u":"lat","v":60.07965},{"t":60,"v":20.3}]""",
        NOW,
    )
    assert found.value.tolist() == [20.0, 24.30621, 60.07965, 20.3]
    assert found.time.tolist()[-1] == 1_320_067_524_000_000


def test_base_values_are_added_and_a_record_of_base_fields_alone_is_no_reading() -> None:
    found = decode_payload(b'[{"bn":"d/","bv":100,"bt":1790000000},{"n":"a","v":1},{"n":"b","v":2,"t":1}]', NOW)
    assert rows(found) == [("d/a", NOW, 101.0), ("d/b", NOW + 1_000_000, 102.0)]


@both
def test_relative_and_missing_times_count_from_the_servers_clock(decode: Decode) -> None:
    assert decode(b'{"n":"d/a","v":1,"t":-10}', NOW).time.tolist() == [NOW - 10_000_000]
    assert decode(b'{"n":"d/a","v":1}', NOW).time.tolist() == [NOW]


def test_booleans_become_0_and_1() -> None:
    assert decode_payload(b'[{"n":"d/a","vb":true},{"n":"d/a","vb":false}]', NOW).value.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"n":"d/a","v":', "malformed"),
        (b"bogus", "malformed"),
        (b"\x80\x81\xff\x00", "malformed"),
        (b'{"n":"d\xff/a","v":1}', "malformed"),
        (b"17", "type"),
        (b'"text"', "type"),
        (b'{"n":"d/a","v":"21.5"}', "type"),
        (b'{"n":7,"v":1}', "type"),
        (b'{"n":"d/a","v":1,"t":"now"}', "type"),
        (b'{"n":"d/a","v":NaN}', "malformed"),
        (b'{"n":"d/a","v":Infinity}', "malformed"),
        (b'{"n":"d/a"}', "no_value"),
        (b"{}", "no_value"),
        (b'{"n":"d/a","s":1}', "no_value"),
        (b'{"n":"d/a","vs":"%s"}' % (b"x" * 4097), "attribute"),
        (b'{"n":"d/a","v":1,"seq":-1}', "seq"),
        (b'{"n":"d/a","v":1,"seq":9223372036854775807}', "seq"),
        (b'{"n":"d/a","v":1,"new_":true}', "unknown_field"),
        (b'{"bver":11,"n":"d/a","v":1}', "version"),
        (b"[" * 100_000, "malformed"),
        (b'{"n":"d/a","v":1,"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "malformed"),
    ],
)
def test_bad_input_is_refused_with_its_reason_and_its_bytes(bad: bytes, reason: str) -> None:
    for decode in (decode_lines, decode_payload):
        found = decode(bad, NOW)
        assert reasons(found) == [reason]
        assert found.rejects[0].raw == bad
        assert len(found.names) == 0


def test_unknown_fields_that_need_not_be_understood_are_passed_over() -> None:
    assert rows(decode_lines(b'{"n":"d/a","v":1,"extra":{"deep":[1]}}\n', NOW)) == [("d/a", NOW, 1.0)]


def test_a_good_line_beside_a_bad_one_is_kept() -> None:
    found = decode_lines(b'{"n":"d/a","v":1}\nbogus\n\n{"n":"d/a","v":"x"}\r\n[{"n":"d/b","v":2}]\n{"n":"d/a","v":3}', NOW)
    assert [row[0::2] for row in rows(found)] == [("d/a", 1.0), ("d/b", 2.0), ("d/a", 3.0)]
    assert [(one.reason, one.raw) for one in found.rejects] == [("malformed", b"bogus"), ("type", b'{"n":"d/a","v":"x"}')]


def test_a_good_record_beside_a_bad_one_is_kept() -> None:
    found = decode_payload(b'[{"bn":"d/","n":"a","v":1},{"n":"b","v":"x"},{"n":"c","v":3}]', NOW)
    assert [row[0] for row in rows(found)] == ["d/a", "d/c"]
    assert found.rejects[0].raw == b'{"n":"b","v":"x"}'


def test_records_after_a_bad_one_with_base_fields_are_refused() -> None:
    found = decode_payload(b'[{"bn":"d/","n":"a","v":1},{"bn":5,"n":"b","v":2},{"n":"c","v":3}]', NOW)
    assert [row[0] for row in rows(found)] == ["d/a"]
    assert reasons(found) == ["type", "base"]


def test_too_many_records_and_too_large_payloads_are_refused() -> None:
    record = b'{"n":"d/a","v":1},'
    assert reasons(decode_payload(b"[" + record * 10_000 + record[:-1] + b"]", NOW)) == ["too_large"]
    assert reasons(decode_payload(b'[{"n":"d/a","v":1}]' + b" " * 2**20, NOW)) == ["too_large"]


def test_every_reading_can_show_its_own_bytes() -> None:
    lines = b'{"n":"d/a","v":1}\n\n{"n":"d/b","v":2}\n'
    assert [decode_lines(lines, NOW).source(i)[1] for i in (0, 1)] == [b'{"n":"d/a","v":1}', b'{"n":"d/b","v":2}']
    pack = decode_payload(b'[{"bn":"d/","bt":1790000000,"n":"a","v":1},{"n":"b","v":2}]', NOW)
    assert json.loads(pack.source(1)[1]) == {"n": "d/b", "v": 2.0, "t": 1790000000.0}


def test_records_that_share_a_line_or_take_several_can_be_shown_too() -> None:
    for lines in (b'{"n":"d/a","v":1}{"n":"d/b","v":2}', b'{"n":"d/a",\n"v":1}\n{"n":"d/b",\n\n"v":2}\n{"n":"d/c","v":3}'):
        found = decode_lines(lines, NOW)
        assert [json.loads(found.source(i)[1])["n"] for i in range(2)] == ["d/a", "d/b"]


def decode_generally(data: bytes, now: int) -> Decoded:
    """Decode a payload as if nothing were plain."""
    with patch.object(senml, "_plain_payload", return_value=None):
        return decode_payload(data, now)


_PLAIN = st.fixed_dictionaries(
    {
        "n": st.from_regex(r"[a-z]{1,5}/[a-z]{1,5}", fullmatch=True) | st.sampled_from(["", "d/a", "d/b"]),
        "v": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70),
    },
    optional={
        "t": st.floats(-1e9, 4e9).map(lambda time: time + 0.0) | st.sampled_from([0, -5, 2**28, 1e300]),
        "u": st.sampled_from(["Cel", "%RH", ""]),
    },
)
_SEQ = st.none() | st.integers(0, 9) | st.sampled_from([-1, MAX_SEQ, MAX_SEQ + 1])
_NUMBERED = st.builds(lambda record, seq: record | {"seq": seq}, _PLAIN, _SEQ)
_SPECIAL = st.builds(
    lambda record, more: record | more,
    _PLAIN,
    st.sampled_from([{"bn": "d/"}, {"bt": 1.79e9}, {"bv": 1}, {"vb": True}, {"vs": "x"}, {"v": None}, {"v": "x"}, {"new": 1},
                     {"new_": 1}, {"u": None}, {"t": "now"}, {"n": 7}, {"bver": 11}]),
)  # fmt: skip


@given(st.lists(_PLAIN, max_size=20))
def test_lines_and_an_array_of_the_same_records_agree(records: list[dict[str, object]]) -> None:
    lines = b"\n".join(msgspec.json.encode(record) for record in records)
    fast, general = decode_lines(lines, NOW), decode_generally(msgspec.json.encode(records), NOW)
    assert list(fast.names) == list(general.names)
    np.testing.assert_array_equal(fast.time, general.time)
    np.testing.assert_array_equal(fast.value, general.value)
    assert fast.units == general.units
    assert not fast.rejects


_ARRAYS = st.one_of(
    st.lists(_PLAIN, max_size=30),
    st.lists(_PLAIN | _NUMBERED, max_size=5),
    st.lists(_PLAIN | _NUMBERED | _SPECIAL, max_size=5),
)


@given(_ARRAYS, st.sampled_from([None, 1]), st.booleans())
def test_the_fast_and_the_general_path_agree(records: list[dict[str, object]], indent: int | None, one: bool) -> None:
    payload = json.dumps(records[0] if one and len(records) == 1 else records, indent=indent).encode()
    assert everything(decode_payload(payload, NOW)) == everything(decode_generally(payload, NOW))


def everything(found: Decoded) -> list[object]:
    """Return all that is in a piece; floats as text, so that -0.0 is not 0.0."""
    return [
        *(list(found.names), found.time.tolist(), list(map(repr, found.value.tolist()))),
        None if found.seq is None else found.seq.tolist(),
        *(found.units, list(found.attributes), list(found.rejects)),
        [found.source(i) for i in range(len(found.names))],
    ]


@pytest.mark.parametrize("extra", [b"", b',"seq":7'])
def test_a_plain_array_of_many_records_comes_in_pieces_that_know_where_they_are_from(extra: bytes) -> None:
    records = [b'{"n":"d/a","v":%d%b}' % (i, extra) for i in range(4500)]
    pieces = list(senml.decode_payload(b"[" + b",".join(records) + b"]", NOW))
    assert [len(piece.names) for piece in pieces] == [2000, 2000, 500]
    assert [None if piece.seq is None else len(piece.seq) for piece in pieces] == (
        [2000, 2000, 500] if extra else [None] * 3
    )
    at, raw = pieces[2].source(499)
    assert (at, json.loads(raw)["v"]) == (4500, 4499.0)


@given(st.lists(st.floats() | st.floats(-1e10, 1e10), max_size=FEW), st.sampled_from([NOW, 0]))
def test_times_are_the_same_one_by_one_and_as_a_column(seconds: list[float], now: int) -> None:
    assert times_us(seconds, now).tolist() == senml_us(np.array(seconds, dtype=np.float64), now).tolist()


@given(st.binary(max_size=300))
def test_no_bytes_make_a_decoder_raise_or_lose_a_line(junk: bytes) -> None:
    found = decode_lines(junk, NOW)
    lines = [line for line in junk.splitlines() if line.strip()]
    assert len(found.names) + len(found.rejects) >= min(1, len(lines))
    assert all(math.isfinite(value) for value in found.value.tolist())
    decode_payload(junk, NOW)


@given(st.floats())
def test_no_time_overflows(time: float) -> None:
    line = msgspec.json.encode({"n": "d/a", "v": 1, "t": time})
    found = decode_lines(line, NOW)
    assert len(found.names) + len(found.rejects) == 1


def test_string_and_data_values_become_attributes() -> None:
    found = decode_payload(
        b'[{"bn":"d/","bt":1790000000,"n":"fw","vs":"1.2"},{"n":"id","vd":"aGk","t":5},{"n":"t","v":1}]', NOW
    )
    assert found.attributes == [Attribute("d/fw", NOW, "1.2"), Attribute("d/id", NOW + 5_000_000, "aGk")]
    assert rows(found) == [("d/t", NOW, 1.0)]


@both
def test_sequence_numbers_are_carried_where_there_are_any(decode: Decode) -> None:
    assert decode(b'{"n":"d/a","v":1}', NOW).seq is None
    assert decode(b'{"n":"d/a","v":1,"t":1790000000,"seq":0}', NOW).seq == [0]
    found = decode(b'{"n":"d/a","v":1,"t":1790000000,"seq":9223372036854775806}', NOW)
    assert found.seq is not None
    assert found.seq.tolist() == [2**63 - 2]


@both
@pytest.mark.parametrize("time", [b"", b',"t":0', b',"t":-5'])
def test_a_sequence_number_without_a_time_of_its_own_is_marked(decode: Decode, time: bytes) -> None:
    assert decode(b'{"n":"d/a","v":1,"seq":7%b}' % time, NOW).seq == [7 | STAMPED]


def test_a_reading_without_a_sequence_number_beside_one_with() -> None:
    found = decode_lines(b'{"n":"d/a","v":1,"t":1790000000,"seq":7}\n{"n":"d/a","v":2}', NOW)
    assert found.seq is not None
    assert found.seq.tolist() == [7, NO_SEQ]


def test_a_reject_says_which_line_or_record_it_was() -> None:
    assert [one.at for one in decode_lines(b'{"n":"d/a","v":1}\n\njunk\n{"n":"d/a"}', NOW).rejects] == [3, 4]
    assert [one.at for one in decode_payload(b'[{"n":"d/a","v":1},{"n":"d/a"}]', NOW).rejects] == [2]


def test_garbage_comes_in_pieces_and_costs_only_its_slice() -> None:
    lines = [b'{"n":"d/a","v":%d}' % i for i in range(1000)]
    lines[500] = b"junk"
    pieces = list(senml.decode_lines(b"\n".join(lines), NOW))
    assert [len(piece.names) for piece in pieces] == [200, 200, 199, 200, 200]
    assert [one.at for piece in pieces for one in piece.rejects] == [501]
    assert pieces[3].source(0) == (601, lines[600])


def test_an_array_of_many_records_comes_in_pieces() -> None:
    pack = json.dumps([{"bn": "d/", "bt": 1_790_000_000}, *({"n": "a", "v": i} for i in range(999))]).encode()
    pieces = list(senml.decode_payload(pack, NOW))
    assert max(len(piece.names) for piece in pieces) <= 200
    assert [value for piece in pieces for value in piece.value.tolist()] == list(range(999))
    assert {time for piece in pieces for time in piece.time.tolist()} == {NOW}


def test_a_refused_record_of_an_array_is_kept_with_its_base_fields_resolved() -> None:
    found = decode_payload(b'[{"bn":"d/","bt":1790000000,"n":"a","v":1},{"n":"b","t":5}]', NOW)
    assert json.loads(found.rejects[0].raw) == {"n": "d/b", "t": 1790000005.0}
