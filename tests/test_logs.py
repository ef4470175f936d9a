"""The log: libraries cannot fill it, we can say what we have to."""

import json
import logging
from collections.abc import Iterator

import pytest

from isotherm import logs
from isotherm.settings import Settings


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_a_librarys_complaint_is_logged_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Settings(), "test")
    for port in range(1000):
        logging.getLogger("coap-server").warning("Ignoring unparsable message from %s", port)
    logging.getLogger("coap-server").warning("another")
    for number in range(3):
        logging.getLogger("connectors.tcp").info("ours %d", number)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == [
        "Ignoring unparsable message from 0", "another", "ours 0", "ours 1", "ours 2",
    ]  # fmt: skip


def test_the_throttle_counts_what_it_held_back() -> None:
    throttle = logs.Throttle(seconds=0.0)
    assert throttle("a") == 0
    patient = logs.Throttle(seconds=1000.0)
    assert [patient("a") for _ in range(3)] == [0, None, None]
    assert patient("b") == 0


def test_json_lines_can_be_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Settings(log_json=True), "test")
    try:
        raise ValueError("because")
    except ValueError:
        logging.getLogger("isotherm").exception("it failed")
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["process"], line["message"]) == ("error", "test", "it failed")
    assert "ValueError: because" in line["exception"]
