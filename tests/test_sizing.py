"""What a fleet needs in pods: the page is what the command says, and the estimate behaves as one would."""

from __future__ import annotations

import doctest
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from isotherm import sizing
from isotherm.cli import app
from isotherm.clock import now_us
from isotherm.pack import Pack
from isotherm.sizing import Fleet, Part, plan

TOLERANCE = 0.1


def _script() -> Any:
    path = Path(__file__).parents[1] / "infra" / "capacity_page.py"
    spec = importlib.util.spec_from_file_location("capacity_page", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


capacity_page = _script()


def asked(*arguments: str) -> dict[str, Any]:
    shown = CliRunner().invoke(app, ["capacity", *arguments, "--json"])
    assert shown.exit_code == 0, shown.output
    found: dict[str, Any] = json.loads(shown.stdout)
    return found


def part(fleet: Fleet, name: str, **options: float) -> Part:
    return next(one for one in plan(fleet, **options).parts if one.name.endswith(name))  # type: ignore[arg-type]


def test_the_examples_are_true() -> None:
    assert doctest.testmod(sizing).failed == 0


def test_the_page_has_what_the_script_writes() -> None:
    page = capacity_page.PAGE.read_text()
    assert capacity_page.BEGIN + "\n" + capacity_page.tables() + "\n" + capacity_page.END in page


@pytest.mark.parametrize("protocol", capacity_page.PROTOCOLS)
def test_every_row_of_the_page_is_what_the_command_says(protocol: str) -> None:
    _, _, rest = capacity_page.PAGE.read_text().partition(f"### {protocol.upper()}\n\n")
    head, _, *rows = re.findall(r"^\| (.*) \|$", rest.partition("\n\n")[0], re.MULTILINE)
    names = head.split(" | ")
    assert len(rows) == len(capacity_page.DEVICES) * len(capacity_page.RATES)
    for row in rows:
        cells = dict(zip(names, row.split(" | "), strict=True))
        said = asked("--devices", cells["devices"].replace(",", ""), "--rate", cells["Hz"], "--protocol", protocol)
        assert cells["readings/s"] == f"{said['readings_per_second']:,.10g}"
        assert cells["partitions"] == str(said["partitions"])
        for one in said["parts"]:
            told = cells["connector" if one["name"].endswith("connector") else one["name"]]
            assert told == ("no" if one["problem"] else f"{one['pods']} × {one['cpu']:g}"), row


def test_more_load_never_needs_less() -> None:
    for protocol in sizing.CONNECTORS:
        cores = [plan(Fleet(devices, 1.0, protocol=protocol)).cores for devices in (1, 100, 2_000, 8_000)]
        assert cores == sorted(cores)
    assert plan(Fleet(1_000, 1.0, metrics=5)).cores > plan(Fleet(1_000, 1.0)).cores


def test_less_headroom_needs_fewer_pods() -> None:
    fleet = Fleet(50_000, 1.0)
    assert part(fleet, "connector", headroom=0.2).pods < part(fleet, "connector", headroom=0.6).pods


def test_a_connector_has_no_more_connections_than_it_may() -> None:
    found = part(Fleet(200_000, 0.001), "connector")
    assert found.pods == 4
    assert found.memory > 50_000 * sizing.CONNECTORS["tcp"].connection


def test_topics_have_a_partition_for_every_worker() -> None:
    made = plan(Fleet(100_000, 10.0))
    assert made.partitions == max(one.pods for one in made.parts if one.name in ("worker", "analytics"))


def test_where_every_connector_is_sent_every_message_more_of_them_do_not_help_for_ever() -> None:
    found = part(Fleet(100_000, 10.0, protocol="mqtt"), "connector")
    assert "divide the devices among brokers" in found.problem


@pytest.mark.parametrize("count", [1, 10, 100, 1_000])
def test_a_reading_takes_on_the_log_what_it_is_said_to(count: int) -> None:
    pack = Pack(
        names=[f"sensor-{number:05}/temperature" for number in range(count)],
        series=np.arange(count, dtype=np.int32),
        time=np.full(count, now_us(), dtype=np.int64),
        value=np.random.default_rng(1).random(count),
        connector="tcp/1a2b",
        received_at=now_us(),
    )
    assert len(pack.to_ipc()) / count == pytest.approx(sizing.record_bytes(count), rel=TOLERANCE)


def test_the_log_keeps_every_replica_for_as_long_as_the_topic_says() -> None:
    fleet = Fleet(1_000, 1.0)
    kafka = part(fleet, "kafka")
    assert kafka.pods == 3
    week = 7 * 86_400 * fleet.readings
    assert week * sizing.READING_BYTES < kafka.disk < week * sizing.record_bytes(1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--rate", "1"), "how many --devices, by which --protocol"),
        (("--rate", "1", "--protocol", "tcp"), "how many are there"),
        (("--rate", "1", "--protocol", "lora", "--devices", "3"), "'lora', expected one of tcp, http, mqtt, coap"),
        (("--rate", "1", "--protocol", "tcp", "--devices", "3", "--series", "9"), "give --devices and --metrics instead"),
        (("--rate", "0", "--protocol", "tcp", "--devices", "3"), "expected more than 0"),
        (("--rate", "1", "--protocol", "tcp", "--devices", "3", "--headroom", "1"), "--headroom"),
    ],
)
def test_what_is_wrong_is_named(arguments: tuple[str, ...], said: str) -> None:
    shown = CliRunner().invoke(app, ["capacity", *arguments])
    assert shown.exit_code == 2
    assert said in " ".join(shown.output.replace("│", " ").split())


def test_people_get_a_table() -> None:
    shown = CliRunner().invoke(app, ["capacity", "--devices", "1000", "--rate", "1", "--protocol", "mqtt"])
    assert shown.exit_code == 0
    assert re.search(r"mqtt connector\s+2\s", shown.stdout)
    assert "1,000 readings/s;" in shown.stdout
    assert Path(capacity_page.PAGE).exists()
