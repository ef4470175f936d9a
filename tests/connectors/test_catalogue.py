"""Which format an input is of, where nothing but its bytes says so."""

import doctest

import pytest

from connectors.formats import catalogue
from connectors.formats.catalogue import detect_body


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
