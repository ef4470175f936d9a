"""The pipeline in figures: what adds up, how fast it goes, and who reports."""

import dataclasses

import pytest

from dashboards.pages.pipeline import Pipeline
from dashboards.parts import FORGOTTEN_US, SILENT_US, local_parts, reporting
from dashboards.pipeline import RATE_SECONDS, SAMPLES, Figures, Meter
from dashboards.rejects import MAX_TEXT_CHARS, row_of
from dashboards.verdict import STILL_SECONDS, verdict
from isotherm import stackfile
from isotherm.ledger import Ledger, Line
from isotherm.rejects import Rejected, RejectRecord
from isotherm.settings import Settings
from isotherm.store import client

GOOD = Line(received=12, accepted=10, rejected=2, stored=7, duplicates=1, in_flight=2)


def said(line: Line, *, still: float = 0.0, log_is_known: bool = True) -> list[tuple[str, str]]:
    return [(one.level, one.text) for one in verdict({"tcp": line}, still=still, log_is_known=log_is_known)]


def test_a_ledger_that_adds_up_is_said_to() -> None:
    assert said(GOOD) == [("good", "It adds up: 12 received, 10 accepted, 2 are in flight")]
    assert said(Line()) == [("good", "Nothing has been received yet")]


def test_a_ledger_that_does_not_add_up_says_where_and_by_how_much() -> None:
    assert said(dataclasses.replace(GOOD, received=15)) == [
        ("bad", "tcp: 15 received, but 10 accepted and 2 rejected (+3)"),
    ]
    assert said(dataclasses.replace(GOOD, stored=9)) == [
        ("bad", "tcp: 10 accepted, but 12 stored, sent again, in flight or lost (-2)"),
    ]


def test_what_is_lost_and_what_stands_still_is_odd() -> None:
    lost = dataclasses.replace(GOOD, in_flight=0, lost=2)
    assert said(lost)[0][0] == "odd" and "2 readings are lost" in said(lost)[0][1]
    assert said(GOOD, still=STILL_SECONDS - 1)[0][0] == "good"
    assert "nothing was stored for 30 s: is a worker running?" in said(GOOD, still=STILL_SECONDS)[0][1]
    assert "may be lost" in said(GOOD, log_is_known=False)[0][1]


def take(meter: Meter, second: float, accepted: int, stored: int) -> None:
    line = Line(received=accepted, accepted=accepted, stored=stored, in_flight=accepted - stored)
    meter.take({"tcp": line}, line, now=second, at=int(second * 1e6))


def test_a_rate_is_that_of_the_last_seconds() -> None:
    meter = Meter()
    for second in range(0, 20, 2):
        take(meter, second, accepted=100 * second, stored=90 * second)
    assert [round(one.accepted) for one in meter.samples] == [100] * 9
    assert [round(one.stored) for one in meter.samples] == [90] * 9
    for second in range(20, 20 + 2 * int(RATE_SECONDS), 2):
        take(meter, second, accepted=1800, stored=1620)
    assert meter.samples[-1].accepted == 0
    assert meter.samples[-1].connectors == {"tcp": 0}


def test_a_store_that_fell_back_is_no_negative_rate_and_samples_are_bounded() -> None:
    meter = Meter()
    take(meter, 0, accepted=100, stored=100)
    take(meter, 2, accepted=50, stored=50)
    assert (meter.samples[-1].accepted, meter.samples[-1].stored) == (0, 0)
    for second in range(SAMPLES + 10):
        take(meter, 10 + second, accepted=100, stored=100)
    assert len(meter.samples) == SAMPLES


def test_what_is_in_flight_stands_still_from_when_nothing_more_is_stored() -> None:
    meter = Meter()
    take(meter, 0, accepted=10, stored=10)
    take(meter, 10, accepted=12, stored=10)
    assert meter.still == 0
    take(meter, 30, accepted=15, stored=10)
    assert meter.still == 20
    take(meter, 32, accepted=15, stored=11)
    assert meter.still == 0
    take(meter, 60, accepted=15, stored=15)
    assert meter.still == 0


def test_connectors_report_are_silent_and_are_forgotten() -> None:
    now = 2 * FORGOTTEN_US
    seen = {"tcp/a": now - 1, "http/b": now - SILENT_US - 1, "mqtt/c": now - FORGOTTEN_US - 1, "coap/d": 0}
    figures = Figures(Ledger({}, [], seen), Line(), (), 0.0, {}, (), ["host-1"])
    assert [(one.name, one.state) for one in reporting(figures, now)] == [
        ("host-1", "ready"),
        ("tcp/a", "ready"),
        ("http/b", "silent"),
    ]


@pytest.mark.servers
async def test_what_was_not_asked_yet_is_not_said_to_be_ready(settings: Settings) -> None:
    away = settings.model_copy(update={"kafka": "127.0.0.1:1"})
    async with client.connected(away) as redis:
        sources = Pipeline.of(redis, away)
        states = {one.name: one.state for one in await sources.parts._parts()}
        assert states == {"kafka": "unknown", "store": "unknown"}
        await sources.log._look()
        await sources.figures._look()
        states = {one.name: one.state for one in await sources.parts._parts()}
        assert (states["kafka"], states["store"]) == ("not ready", "ready")


def test_the_parts_of_a_local_stack_are_known_to_its_own_web_process_only(settings: Settings) -> None:
    assert local_parts(settings) == []
    with stackfile.held(settings.data_dir, {"web_port": settings.web_port}):
        names = [part.name for part in local_parts(settings)]
        assert "worker" in names and "tcp" in names
        assert "store" not in names  # the tests have one of their own
        assert local_parts(settings.model_copy(update={"web_port": settings.web_port + 1})) == []


def test_a_reject_of_a_stranger_is_bounded() -> None:
    reject = Rejected("malformed", "x" * 10_000, b"y" * 5_000, "d" * 1_000)
    record = RejectRecord.of([reject], protocol="tcp", peer="p" * 1_000, received_at=1)
    row = row_of("0/1", record)
    assert max(len(text) for text in row.values() if isinstance(text, str)) == MAX_TEXT_CHARS
    assert (row["size"], row["kept"]) == (5_000, 2_000)
    assert record.shown(2_000) == "y" * 2_000


def test_bytes_are_shown_as_text_or_as_a_dump() -> None:
    def shown(raw: bytes) -> str:
        return RejectRecord.of([Rejected("r", "d", raw)], protocol="tcp", peer="p", received_at=1).shown(20)

    assert shown("21,5 °C".encode()) == "21,5 °C"
    assert shown(b"T\xff") == f"00000000  54 ff{' ' * 42}  T."
    assert shown(b"a\0b").startswith("00000000  61 00 62")
    assert shown("1234567890123456789°".encode()) == "1234567890123456789"  # not half of a character
