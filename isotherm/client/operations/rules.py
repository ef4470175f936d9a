"""Rules: when alarms are raised."""

from __future__ import annotations

from typing import Any

import msgspec

from isotherm.client.exchange import Listing, Steps, decoded, deleted, got, put, segment, tagged
from isotherm.client.model import Rule


class _Broken(msgspec.Struct):
    broken: list[str] = []


def rules() -> Listing[Rule]:
    """Go through rules, ascending by id."""
    return Listing("/rules", Rule)


def broken_rules() -> Steps[list[str]]:
    """Return what is wrong with rules in the store that cannot be used."""
    return decoded((yield got("/rules", ("limit", "1"))).body, _Broken).broken


def rule(id: str) -> Steps[Rule]:
    """Return a rule, with its ETag.

    Raises:
        NotFound: there is none.
    """
    return tagged((yield got(_path(id))), Rule)


def create_rule(rule: Rule) -> Steps[Rule]:
    """Keep a new rule.

    Raises:
        PreconditionFailed: there is one with this id.
        Invalid: it is impossible; its faults say which field.
    """
    return tagged((yield put(_path(rule.id), _form(rule), is_new=True)), Rule)


def update_rule(rule: Rule) -> Steps[Rule]:
    """Keep a rule in the place of the one with its id, whose alarms are cleared when it changes.

    One that was read by itself (`replace(isotherm.rule("hot"), above=31.0)`) has an ETag and takes the place of that only;
    any other, of whatever is there.

    Raises:
        PreconditionFailed: it has changed since it was read.
        Invalid: it is impossible; its faults say which field.
    """
    return tagged((yield put(_path(rule.id), _form(rule), etag=rule.etag)), Rule)


def delete_rule(id: str, *, etag: str = "") -> Steps[None]:
    """Forget a rule; its alarms are cleared.

    Args:
        id: Of the rule.
        etag: Of the rule as it was seen; by default whatever it is now.
    """
    yield deleted(_path(id), etag)


def _path(id: str) -> str:
    return f"/rules/{segment(id)}"


def _form(rule: Rule) -> dict[str, Any]:
    form: dict[str, Any] = msgspec.to_builtins(rule)
    return {name: value for name, value in form.items() if name not in ("id", "etag")}
