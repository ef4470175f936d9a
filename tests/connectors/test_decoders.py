"""Decoders of the user's own: how they are registered, found and asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.decoders import Decoders, decoder, run_file
from connectors.formats.catalogue import Catalogue
from connectors.process import catalogue_of, decoders_of
from isotherm.errors import SettingsError
from isotherm.settings import Settings
from tests.support.formats import NOW, joined, rows

DOOR = """
from connectors.decoders import decoder

@decoder("door", topic="doors/{device}/up")
def decode(payload):
    yield {"n": "open", "vb": payload[0] == 1}
    yield {"n": "battery", "u": "V", "v": payload[1] / 10}
"""


def written(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text)
    return path


def loaded(directory: Path, *texts: str) -> Decoders:
    return Decoders.load([written(directory, f"file{i}.py", text) for i, text in enumerate(texts)])


def test_a_decoder_is_a_function_of_ten_lines(tmp_path: Path) -> None:
    assert len(DOOR.strip().splitlines()) <= 10
    decoders = loaded(tmp_path, DOOR)
    assert decoders.topics == ["doors/+/up"]
    assert decoders.by_topic("doors/front/up") == ("front", "decoder:door")
    assert decoders.by_type("door") == "decoder:door"
    found = joined(Catalogue.of([], "", decoders.forms).decoder("decoder:door")(b"\x01\x21", NOW))
    assert rows(found) == [("open", NOW, 1.0), ("battery", NOW, 3.3)]
    assert found.units == {"battery": "V"}


def test_without_files_there_are_none() -> None:
    decoders = Decoders.load([])
    assert (decoders.topics, decoders.forms) == ([], {})
    assert decoders.by_topic("doors/front/up") is None
    assert decoders.by_type("") is None


def test_several_decoders_of_several_files_are_found(tmp_path: Path) -> None:
    more = (
        "from connectors.decoders import decoder\n"
        "def made(metric):\n"
        "    return lambda payload: [{'n': metric, 'v': payload[0]}]\n"
        "for metric in ('a', 'b'):\n"
        "    decoder(metric, topic=f'{metric}/+/{{device}}')(made(metric))\n"
    )
    decoders = loaded(tmp_path, DOOR, more)
    assert list(decoders.forms) == ["decoder:door", "decoder:a", "decoder:b"]
    assert decoders.topics == ["doors/+/up", "a/+/+", "b/+/+"]
    assert rows(joined(decoders.forms["decoder:b"](b"\x07", NOW))) == [("b", NOW, 7.0)]


@pytest.mark.parametrize(
    ("pattern", "topic", "device"),
    [
        ("doors/{device}/up", "doors/front/up", "front"),
        ("doors/{device}/up", "doors/front/down", None),
        ("doors/{device}/up", "doors/front/up/more", None),
        ("doors/{device}/up", "doors/a/b/up", None),
        ("doors/{device}/up", "doors//up", ""),
        ("doors/{device}/up", "Doors/front/up", None),
        ("{device}", "front", "front"),
        ("{device}", "a/b", None),
        ("+/{device}", "any/front", "front"),
        ("+/{device}", "$SYS/front", None),
        ("$site/{device}", "$site/front", "front"),
        ("application/+/device/{device}/event/up", "application/7/device/a8-17/event/up", "a8-17"),
        ("a.b/{device}", "axb/front", None),
        ("a/{device}", "a/line\nfeed", "line\nfeed"),
    ],
)
def test_a_topic_names_the_device(tmp_path: Path, pattern: str, topic: str, device: str | None) -> None:
    decoders = loaded(tmp_path, DOOR.replace("doors/{device}/up", pattern))
    assert decoders.by_topic(topic) == (None if device is None else (device, "decoder:door"))


def test_a_decoder_may_be_for_a_type_of_devices_alone(tmp_path: Path) -> None:
    decoders = loaded(tmp_path, DOOR.replace(', topic="doors/{device}/up"', ""))
    assert decoders.topics == []
    assert decoders.by_type("door") == "decoder:door"


def test_the_first_of_two_decoders_for_a_topic_counts(tmp_path: Path) -> None:
    every = DOOR.replace('"door"', '"every"').replace("doors/", "+/")
    assert loaded(tmp_path, DOOR, every).by_topic("doors/front/up") == ("front", "decoder:door")
    assert loaded(tmp_path, every, DOOR).by_topic("doors/front/up") == ("front", "decoder:every")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 / 0", "file0.py cannot be loaded: ZeroDivisionError: division by zero"),
        ("def", "file0.py cannot be loaded: SyntaxError"),
        ("raise SystemExit('bye')", "file0.py cannot be loaded: SystemExit: bye"),
        ("def decode(payload): pass", "file0.py registers no decoder"),
        (DOOR + DOOR, "file0.py registers a decoder 'door', and there is one of that name already"),
        (DOOR + DOOR.replace('"door"', '"gate"'), "decoders 'door' and 'gate' are both for topic 'doors/{device}/up'"),
        (DOOR.replace('"door"', '"no door"'), "'no door' is no name of a decoder"),
        (DOOR.replace('"door"', '"a:b"'), "'a:b' is no name of a decoder"),
        (DOOR.replace("{device}", "+"), "needs one level {device}"),
        (DOOR.replace("/up", "/{device}"), "needs one level {device}"),
        (DOOR.replace("/up", "/#"), "has a level '#'"),
        (DOOR.replace("doors/", "doors+/"), "has a level 'doors+'"),
        (DOOR.replace("doors/", "{gate}/"), "has a level '{gate}'"),
        (DOOR.replace("def decode", "async def decode"), "decoder 'door' is async"),
        (DOOR.replace("@decoder(", "@decoder(kind="), "TypeError"),
    ],
)
def test_what_cannot_be_loaded_is_an_error_that_names_the_file_and_the_cause(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, text)
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_two_files_with_a_decoder_of_one_name_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"file1\.py registers a decoder 'door'"):
        loaded(tmp_path, DOOR, DOOR)


def test_a_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.py cannot be loaded: FileNotFoundError"):
        Decoders.load([Path("nowhere.py")])


def test_outside_of_loading_a_registered_function_is_only_a_function() -> None:
    @decoder("door")
    def decode(payload: bytes) -> list[dict[str, object]]:
        return [{"n": "open", "v": payload[0]}]

    assert decode(b"\x01") == [{"n": "open", "v": 1}]


def test_a_failed_file_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        run_file(written(tmp_path, "broken.py", DOOR + "1 / 0"))
    assert run_file(written(tmp_path, "empty.py", ""))[1] == []


def test_the_setting_names_the_files(tmp_path: Path) -> None:
    first, second = written(tmp_path, "a.py", DOOR), written(tmp_path, "b.py", DOOR.replace("door", "gate"))
    settings = Settings(decoders=f"{first}, {second},")
    assert decoders_of(settings).topics == ["doors/+/up", "gates/+/up"]
    assert list(catalogue_of(settings).decoder("decoder:gate")(b"\x01\x21", NOW))
