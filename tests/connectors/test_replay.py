"""What is refused can be taken in again: by its format's name alone, or through a decoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.decoders import Decoders
from connectors.formats.catalogue import Catalogue
from connectors.identity import only
from connectors.replay import Replayer, load_decoder
from isotherm.clock import now_us
from isotherm.errors import SettingsError
from isotherm.rejects import RejectRecord
from tests.support.intake import Bench

FRAGILE = """
from connectors.decoders import decoder

@decoder("door")
def decode_door(payload):
    yield {"n": "open", "v": 1 / payload[0]}
"""


def catalogue(tmp_path: Path, text: str = FRAGILE) -> Catalogue:
    path = tmp_path / "door.py"
    path.write_text(text)
    return Catalogue.of(["device"], "", Decoders.load([path]).forms)


async def refused(bench: Bench, formats: Catalogue, form: str, payload: bytes) -> list[RejectRecord]:
    """Return the rejects of a payload of device d."""
    pieces = formats.decoder(form)(payload, now_us())
    receipt = await bench.intake.accept(pieces, peer="peer", identity=only("d"), form=form)
    await receipt.durable()
    return bench.producer.rejects


def inputs(records: list[RejectRecord]) -> list[tuple[str, str, bytes]]:
    """Return the inputs that were refused, also those that share a record: reason, format, bytes."""
    return [
        (record.reason, record.form, part)
        for record in records
        for part in (record.original.split(b"\n") if record.count > 1 else [record.original])
    ]


@pytest.fixture
def decoder_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "decode.py"
    path.write_text(
        FRAGILE + "\n@decoder('gate')\ndef other(payload):\n    yield {'n': 'open', 'v': 5}\n\n"
        "def decode(payload):\n    return b'[]'\n"
    )
    yield path


@pytest.mark.parametrize(
    ("form", "payload", "count"),
    [
        ("number:temperature", b"warm", 1),
        ("number:temperature", b"1\n2", 1),
        ("number:_", b"21.5", 1),
        ("thingsboard", b'{"ts":1790000000123,\n"values":{"a":null,"b":null,"c":null}}', 3),
        ("thingsboard", b'[{"a":1,\n"b":null}, {\n}]', 2),
        ("thingsboard", b"{\n", 1),
        ("thingsboard-gateway", b'{"d":[{"a":null,"b":null}, {}],\n"_":[{"a":1}]}', 4),
        ("decoder:door", b"\0\n\xff", 1),
    ],
)
async def test_what_was_refused_is_refused_alike_when_it_is_replayed(
    tmp_path: Path, form: str, payload: bytes, count: int
) -> None:
    bench, formats = Bench(), catalogue(tmp_path)
    async with bench.intake.running():
        before = list(await refused(bench, formats, form, payload))
        assert sum(record.count for record in before) == count
        assert {record.form for record in before} == {form}
        replayer = Replayer(bench.intake, formats, [0])
        for record in before:
            outcome = await replayer.replay(record)
            assert (outcome.accepted, outcome.rejected) == (0, record.count)
        assert inputs(bench.producer.rejects[len(before) :]) == inputs(before)


async def test_what_was_refused_is_accepted_through_a_mended_decoder(tmp_path: Path) -> None:
    bench = Bench()
    async with bench.intake.running():
        [record] = await refused(bench, catalogue(tmp_path), "decoder:door", b"\0")
        mended = catalogue(tmp_path, FRAGILE.replace("1 / payload[0]", "payload[0]"))
        outcome = await Replayer(bench.intake, mended, [0]).replay(record)
    assert (outcome.accepted, outcome.rejected) == (1, 0)
    assert bench.producer.values_of("d/open") == [0.0]


async def test_a_reject_can_be_read_as_another_format(tmp_path: Path) -> None:
    bench, formats = Bench(), catalogue(tmp_path)
    async with bench.intake.running():
        [record] = await refused(bench, formats, "senml-json", b"21.5")
        outcome = await Replayer(bench.intake, formats, [0]).replay(record, form="number:temperature")
    assert (outcome.accepted, outcome.rejected) == (1, 0)
    assert bench.producer.values_of("d/temperature") == [21.5]


@pytest.mark.parametrize(("auth", "accepted"), [("token", 2), ("open", 3)])
async def test_what_was_refused_of_a_device_speaks_for_it_and_its_children_alone(auth: str, accepted: int) -> None:
    bench = Bench(auth=auth)
    bench.registry.add("gw", "child")
    payload = b'[{"n":"t","v":1},{"n":"child/t","v":2},{"n":"victim/t","v":666}]'
    record = RejectRecord("malformed", "", "http", "peer", now_us(), len(payload), device="gw", raw=payload.decode() + "]")
    async with bench.intake.running():
        doorkeeper = bench.site.doorkeeper if auth == "token" else None
        replayer = Replayer(bench.intake, Catalogue.of([], ""), [0], doorkeeper)
        outcome = await replayer.replay(record, correct=lambda raw: raw[:-1])
    assert (outcome.accepted, outcome.rejected) == (accepted, 3 - accepted)
    assert bench.producer.values_of("victim/t") == [666.0] * (accepted - 2)


async def test_a_format_that_is_not_there_any_more_is_an_error(tmp_path: Path) -> None:
    bench, formats = Bench(), catalogue(tmp_path)
    async with bench.intake.running():
        [record] = await refused(bench, formats, "decoder:door", b"\0")
        with pytest.raises(SettingsError, match="there is no format 'decoder:door'"):
            await Replayer(bench.intake, Catalogue.of([], ""), [0]).replay(record)


@pytest.mark.parametrize(
    ("name", "made"), [("", b"[]"), (":decode", b"[]"), (":other", [5]), (":gate", [5]), (":door", [0.5])]
)
def test_a_function_or_a_registered_decoder_of_a_file_can_be_named(decoder_file: Path, name: str, made: object) -> None:
    found = load_decoder(f"{decoder_file}{name}")(b"\x02")
    assert (found if isinstance(found, bytes) else [record["v"] for record in found]) == made  # type: ignore[index]


def test_the_only_registered_decoder_of_a_file_needs_no_name(tmp_path: Path) -> None:
    path = tmp_path / "door.py"
    path.write_text(FRAGILE)
    assert list(load_decoder(str(path))(b"\x02")) == [{"n": "open", "v": 0.5}]


@pytest.mark.parametrize("name", [":smoke", ":DOOR"])
def test_a_function_that_is_not_there_is_an_error(decoder_file: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=f"defines no function '{name[1:]}'"):
        load_decoder(f"{decoder_file}{name}")
