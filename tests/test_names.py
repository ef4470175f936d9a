"""Names of devices, metrics and series."""

import doctest

import pytest

from isotherm import names
from isotherm.errors import InvalidReading
from isotherm.names import series_name


def test_the_examples_in_the_docstrings_are_true() -> None:
    failures, tried = doctest.testmod(names)
    assert tried > 0
    assert failures == 0


@pytest.mark.parametrize(
    ("name", "series"),
    [
        ("room-1/temperature", "room-1/temperature"),
        ("room-1/air/temperature", "room-1/air/temperature"),
        ("urn:dev:ow:10e2073a01080063:voltage", "urn:dev:ow:10e2073a01080063/voltage"),
        ("urn:dev:ow:10e2073a01080063", "urn:dev:ow:10e2073a01080063/value"),
        ("urn:dev:mac:0024befffe804ff1_temp", "urn:dev:mac:0024befffe804ff1/temp"),
        ("pump:1:flow", "pump:1/flow"),
        ("a/b", "a/b"),
        ("x" * 128 + "/" + "y" * 128, "x" * 128 + "/" + "y" * 128),
    ],
)
def test_a_full_name_is_split_into_device_and_metric(name: str, series: str) -> None:
    assert series_name(name) == series


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("temperature", "no_device"),
        ("", "no_device"),
        ("/temperature", "name"),
        ("room-1/", "name"),
        ("room 1/temperature", "name"),
        ("room-1/tempé", "name"),
        ("-room/temperature", "name"),
        ("room-1/t\n", "name"),
        ("x" * 129 + "/t", "name"),
        ("d/" + "y" * 129, "name"),
        ("<script>/t", "name"),
    ],
)
def test_what_can_name_no_series_is_refused_with_its_reason(name: str, reason: str) -> None:
    with pytest.raises(InvalidReading) as caught:
        series_name(name)
    assert caught.value.reason == reason


def test_the_channels_device_names_a_bare_metric() -> None:
    assert series_name("temperature", device="room-1") == "room-1/temperature"
    assert series_name("room-1/temperature", device="room-1") == "room-1/temperature"


def test_a_bare_name_belongs_to_the_channels_device() -> None:
    assert series_name("temperature", device="room-1") == "room-1/temperature"
    assert series_name("room-2/temperature", device="room-1") == "room-2/temperature"  # who may say so is intake's to decide
