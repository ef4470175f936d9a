"""Which format an input is of, where nothing but its bytes says so."""

import doctest

import pytest

from connectors.formats import catalogue
from connectors.formats.catalogue import Catalogue, detect_body, is_joinable, split
from connectors.formats.decoded import Decoded
from isotherm.errors import SettingsError
from tests.support.formats import NOW, joined, rows

ALL = Catalogue.of(["device"], "", {"decoder:door": lambda data, now: iter([Decoded.nothing()])})


def test_the_examples_are_true() -> None:
    assert doctest.testmod(catalogue).failed == 0


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (b'[{"n":"a/t","v":1}]', "senml-json"),
        (b' [\n {"n":"a/t","v":1}\n]\n', "senml-json"),
        (b'[{"n":"a/t","v":1}]\n', "senml-json"),
        (b'[{"n":"a/t","v":1}]\n{"n":"a/t","v":1}', "ndjson"),
        (b'{"n":"a/t","v":1}', "ndjson"),
        (b"t,device=a value=1", "influx"),
        (b"a.t 1 1790000000", "graphite"),
        (b"", "ndjson"),
        (b"junk", "ndjson"),
    ],
)
def test_the_first_line_shows_the_format(body: bytes, form: str) -> None:
    assert detect_body(body) == form


@pytest.mark.parametrize(
    ("form", "payload", "name"),
    [
        ("senml-json", b'[{"n":"d/t","v":1}]', "d/t"),
        ("influx", b"t,device=d value=1", "d/t"),
        ("thingsboard", b'{"t":1}', "t"),
        ("thingsboard-gateway", b'{"d":[{"t":1}]}', "d/t"),
        ("number:t", b"1", "t"),
        ("number:d/t", b"1", "d/t"),
    ],
)
def test_a_format_is_found_by_its_name(form: str, payload: bytes, name: str) -> None:
    assert rows(joined(ALL.decoder(form)(payload, NOW))) == [(name, NOW, 1.0)]


def test_a_decoder_of_the_users_is_found_by_its_name() -> None:
    assert list(ALL.decoder("decoder:door")(b"", NOW))


@pytest.mark.parametrize("form", ["", "smoke", "number", "decoder:smoke", "influx-"])
def test_an_unknown_format_is_an_error_that_says_which_there_are(form: str) -> None:
    with pytest.raises(SettingsError, match=r"decoder:door, graphite, influx, .*, number:METRIC"):
        ALL.decoder(form)


def test_only_inputs_that_can_be_told_apart_again_are_kept_together() -> None:
    assert [form for form in [*ALL.decoders, "number:t", ""] if not is_joinable(form)] == [
        "senml-cbor",
        "decoder:door",
        "number:t",
        "",
    ]


@pytest.mark.parametrize("form", ["thingsboard", "thingsboard-gateway"])
def test_messages_that_were_kept_together_are_taken_one_by_one(form: str) -> None:
    assert split(form, b'{"a":\n1}', 1) == [b'{"a":\n1}']
    assert split(form, b'{"a":null}\n{"b":null}', 2) == [b'{"a":null}', b'{"b":null}']
    assert split("influx", b"a\nb", 2) == [b"a\nb"]
