"""A trial of a payload says what a connector would make of it."""

from __future__ import annotations

import pytest

from connectors.examples import elsys
from connectors.trial import Bench, Reading
from isotherm.errors import SettingsError
from isotherm.settings import Settings
from tests.support.formats import NOW

BENCH = Bench(Settings(decoders=elsys.__file__))


@pytest.mark.parametrize(
    ("payload", "form", "reading"),
    [
        (b'[{"n":"d/t","u":"Cel","v":1,"seq":7}]', "senml-json", Reading("d/t", 1.0, "Cel", NOW, 7)),
        (b'{"n":"d/t","v":1}', "ndjson", Reading("d/t", 1.0, "", NOW)),
        (b"t,device=d value=1", "influx", Reading("d/t", 1.0, "", NOW)),
        (b"d.t 1 1790000000", "graphite", Reading("d/t", 1.0, "", NOW)),
    ],
)
def test_the_format_is_seen(payload: bytes, form: str, reading: Reading) -> None:
    trial = BENCH.attempt(payload, NOW)
    assert (trial.form, trial.readings, trial.rejects) == (form, [reading], [])


@pytest.mark.parametrize(
    ("type", "form"),
    [
        ("elsys-ers", "decoder:elsys-ers"),
        ("decoder:elsys-ers", "decoder:elsys-ers"),
        ("number:t", "number:t"),
        ("influx",) * 2,
    ],
)
def test_a_type_is_a_decoders_name_or_a_format(type: str, form: str) -> None:
    assert BENCH.form_of(type) == form


def test_an_unknown_type_is_an_error_that_says_which_there_are() -> None:
    with pytest.raises(SettingsError, match="there is no format 'smoke'; there are decoder:elsys-ers, graphite"):
        BENCH.form_of("smoke")


def test_what_intake_would_refuse_is_refused() -> None:
    payload = (
        b'[{"n":"d/good","v":1},{"n":"a b","v":1},{"n":"d/far","v":1,"t":1},{"n":"d/far","v":1,"t":1e11},'
        b'{"n":"d/bad name","vs":"x"},{"n":"d/fw","vs":"1.2"},{"n":"d/inf","v":1e308,"bv":1e308}]'
    )
    trial = BENCH.attempt(payload, NOW, "senml-json")
    assert [one.name for one in trial.readings] == ["d/good", "d/far"]
    assert [one.series for one in trial.attributes] == ["d/fw"]
    assert sorted(one.reason for one in trial.rejects) == ["name", "name", "not_finite", "time"]
