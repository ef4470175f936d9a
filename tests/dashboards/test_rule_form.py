"""Rules as forms: what is typed becomes a rule, and a rule what is typed."""

from typing import Any

import pytest

from dashboards.rules import WrongFields, form_of, rule_of
from isotherm.limits import MINUTE, SECOND
from isotherm.rules import Rule

RULES = [
    Rule(id="hot", kind="threshold", metric="temperature", above=30.0, hysteresis=0.1, hold=5 * MINUTE, severity="major"),
    Rule(id="both", kind="threshold", metric="t", above=3.5, below=-1e-7, clear_above=3.0, clear_below=0.0, enabled=False),
    Rule(id="fast", kind="rate", metric="t", below=-2.0, per="hour", window=90 * SECOND, clear_after=1500_000),
    Rule(id="gone", kind="silence", silence=10 * MINUTE, devices="room-*", label="floor=2", type="probe"),
    Rule(id="true", kind="expression", expression="a > 1", name="A name", message="{device}: {value}"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_the_form_of_a_rule_describes_that_rule(rule: Rule) -> None:
    assert rule_of(form_of(rule)) == rule


def test_what_another_kind_would_need_does_not_count() -> None:
    form = {"id": "gone", "kind": "silence", "silence": "10m", "above": "3", "expression": "a >", "per": "second"}
    assert rule_of(form) == Rule(id="gone", kind="silence", silence=10 * MINUTE)


def test_numbers_are_read_as_people_write_them() -> None:
    form = {"id": "cold", "kind": "threshold", "metric": "t", "below": " −12,5 "}
    assert rule_of(form).below == -12.5


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        ({}, {"id"}),
        ({"id": "x", "kind": "odd"}, {"kind"}),
        (
            {"id": "x", "kind": "threshold", "metric": "t", "above": "nan", "below": "inf", "hold": "5 weeks"},
            {"above", "below", "hold"},
        ),
        ({"id": "x", "kind": "threshold", "metric": "t", "above": "1", "below": "2"}, {"above"}),
        ({"id": "x", "kind": "threshold", "metric": "t", "above": "3", "below": "2", "hysteresis": "1"}, {""}),
        ({"id": "x", "kind": "threshold", "metric": "t", "above": "3", "message": "{x}"}, {"message"}),
    ],
)
def test_what_is_wrong_is_said_of_its_field(form: dict[str, Any], fields: set[str]) -> None:
    with pytest.raises(WrongFields) as refused:
        rule_of(form)
    assert set(refused.value.fields) == fields
