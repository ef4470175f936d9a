"""A payload that is one number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.formats.number import NumberDecoder
from isotherm.errors import InvalidReading
from isotherm.names import series_name
from tests.support.formats import NOW, joined, reasons, rows


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        *[(b"21.5", 21.5), (b"-3", -3.0), (b"1e3", 1000.0), (b"+.5", 0.5), (b"7.", 7.0), (b"007", 7.0), (b"-0", 0.0)],
        *[(b" 21.5\r\n", 21.5), (b"\t1", 1.0), (b"1\0", 1.0)],
        *[(word, 1.0) for word in (b"on", b"ON", b"true", b"True")],
        *[(word, 0.0) for word in (b"off", b"OFF\n", b"false", b"FALSE")],
    ],
)
def test_a_number_or_a_switch_is_a_reading_of_the_channels_metric(payload: bytes, value: float) -> None:
    found = joined(NumberDecoder("temperature")(payload, NOW))
    assert rows(found) == [("temperature", NOW, value)]
    assert found.source(0) == (0, payload)
    assert not found.rejects


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        *[(text, "malformed") for text in (b"", b" ", b"warm", b"21,5", b"21.5 Cel", b"1_0", b"0x1", b"1 2", b"--1", b"e1")],
        *[(text, "malformed") for text in (b'{"v":1}', b"unavailable", b"\xff", "١".encode(), b"1" * 200, b"1\n2")],
        *[(text, "not_finite") for text in (b"nan", b"NaN", b"inf", b"-Infinity", b"1e999", b"-1e999")],
    ],
)
def test_what_is_no_finite_number_is_refused_with_its_bytes(payload: bytes, reason: str) -> None:
    found = joined(NumberDecoder("temperature")(payload, NOW))
    assert not found.names
    assert [(one.reason, one.raw) for one in found.rejects] == [(reason, payload)]
    assert found.rejects[0].detail


@pytest.mark.parametrize(
    ("metric", "series"),
    [
        ("temperature", "d/temperature"),
        ("Temp °C", "d/Temp_20_C2_B0C"),
        ("power:L1", "d/power_3AL1"),
        ("room-1/rack/power:L1", "room-1/rack/power:L1"),
        ("room-1/Temp in", "room-1/Temp_20in"),
    ],
)
def test_the_channels_name_makes_the_series(metric: str, series: str) -> None:
    assert series_name(NumberDecoder(metric).name, "d") == series


@given(st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), max_size=20))
def test_a_bare_metric_is_never_taken_for_another_devices(metric: str) -> None:
    try:
        assert series_name(NumberDecoder(metric).name, "d").startswith("d/")
    except InvalidReading as error:
        assert error.reason == "name"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_comes_back(value: float) -> None:
    assert rows(joined(NumberDecoder("t")(repr(value).encode(), NOW))) == [("t", NOW, value)]


@given(st.binary(max_size=20))
def test_any_payload_is_one_reading_or_one_reject(payload: bytes) -> None:
    found = joined(NumberDecoder("t")(payload, NOW))
    assert len(found.names) + len(reasons(found)) == 1
