"""Every key of the store is in a backup, or it is said why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from isotherm.backup.families import BACKED_UP, LOOKED_FOR, NOT_BACKED_UP, family_of, reason_of, single_keys
from isotherm.store.layout import ROLLUPS

ROOT = Path(__file__).parents[2]
ROOMS = ("isotherm", "connectors", "agents", "dashboards")
LEAST = 60
"""Keys that are found in the sources; there are more."""

TIER = ROLLUPS[0].name

_TABLED = re.compile(r"``(iso:[^`\s]+)``")
_WRITTEN = re.compile(r"\bf\"(iso:[^\"]+)\"|\"(iso:[^\"]+)\"")
_CHANNELS = (":live", ":kick")


def _sources() -> list[Path]:
    return [path for room in ROOMS for path in (ROOT / room).rglob("*.py") if path.parent != ROOT / "isotherm" / "backup"]


def _keys() -> dict[str, str]:
    """Return an example of each key that the sources name, in a table or where it is made, and where that is."""
    found = {}
    for path in _sources():
        text = path.read_text()
        for tabled in _TABLED.findall(text):
            if "…" not in tabled:
                example = tabled.replace("{p}", "{3}").replace("TIER", TIER)
                found[re.sub(r"[A-Z]{2,}", "x", example)] = path.name
        for made, written in _WRITTEN.findall(text):
            key = made or written
            if made:
                key = re.sub(r"\{\{\{\w+\}\}\}", "{3}", made).replace("{{", "{").replace("}}", "}")
                key = key.replace("{tier.name}", TIER)
                key = re.sub(r"(?<!iso:)\{[^}]*\}", "x", key)
            if not key.endswith((":", "*")) and "*" not in key:
                found[key] = path.name
    return {key: where for key, where in found.items() if not key.endswith(_CHANNELS)}


def test_every_key_that_the_sources_name_is_in_one_of_the_lists() -> None:
    keys = _keys()
    assert len(keys) >= LEAST
    unknown = {
        key: where
        for key, where in keys.items()
        if family_of(key.encode()) is None and reason_of(key.encode()) is None and family_of(f"{key}:x".encode()) is None
    }
    assert not unknown, "say in isotherm/backup/families.py whether these are backed up"


@pytest.mark.parametrize(
    ("key", "is_backed_up"),
    [
        ("iso:{registry}:device:lamp", True),
        ("iso:{registry}:device:", False),
        ("iso:{registry}:running", False),
        ("iso:{12}:configuration", True),
        ("iso:{12}:configuration:desired:lamp", True),
        ("iso:{12}:configuration:live", False),
        ("iso:{x}:configuration", False),
        ("iso:{3}:agent:alarms:state", True),
        ("iso:{3}:agent:alarms", False),
        ("iso:{3}:agent:presence:state", False),
        ("iso:{3}:raw:lamp/attributes:1", False),
    ],
)
def test_a_key_is_of_the_family_whose_pattern_it_matches(key: str, is_backed_up: bool) -> None:
    assert (family_of(key.encode()) is not None) == is_backed_up


def test_what_is_looked_for_finds_every_family() -> None:
    single = set(single_keys(1))
    for family in BACKED_UP:
        example = family.pattern.replace("#", "0").replace("*", "x")
        assert example in single or any(
            re.fullmatch(glob.replace("{", r"\{").replace("*", ".*"), example) for glob in LOOKED_FOR
        ), family.pattern


def test_the_page_tells_of_every_family_and_of_every_reason() -> None:
    page = (ROOT / "docs" / "backup.md").read_text()
    named = {name.replace("{p}", "{#}") for name in re.findall(r"`(iso:[^`]+)`", page)}
    assert named == {family.pattern for family in BACKED_UP} | set(NOT_BACKED_UP)
    for reason in NOT_BACKED_UP.values():
        assert reason in page
