"""The worked example of a connector: its decoder, and the connector beside a stack as its reader would start it."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from connectors.examples import statsd
from isotherm.clock import now_us
from tests.support.ports import free_port
from tests.support.stack import ISOTHERM, Stack

EXAMPLE = Path(statsd.__file__)


def test_gauges_counters_and_timings_are_decoded_and_the_rest_is_refused() -> None:
    decode = statsd.StatsDecoder()
    found = decode(b"a.t:21.5|g\na.n:1|c|@0.1\nnonsense\na.n:1|c|@0.0\na.n:2|c\na.x.y:320|ms\n", 5)
    assert found.names == ["a/t", "a/n", "a/n", "a/x.y"]
    assert found.value.tolist() == [21.5, 10.0, 12.0, 320.0]
    assert found.units["a/x.y"] == "ms"
    assert [(one.at, one.reason, one.raw) for one in found.rejects] == [
        (3, "malformed", b"nonsense"),
        (4, "malformed", b"a.n:1|c|@0.0"),
    ]
    assert decode(b"a.n:1|c", 6).value.tolist() == [13.0]


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 100


@pytest.mark.servers
def test_the_example_runs_beside_a_stack(tmp_path: Path) -> None:
    with Stack(tmp_path / "data", "--no-simulator") as stack:
        port = free_port()
        command = [*ISOTHERM, "connect", str(EXAMPLE)]
        environment = {**stack.environment, "STATSD_PORT": str(port)}
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as connector:
            try:
                assert connector.stderr is not None
                assert "listening on statsd://" in connector.stderr.readline()
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
                    device.sendto(b"kitchen.temperature:21.5|g\njunk", ("127.0.0.1", port))
                begun = now_us()
                while not (rows := stack.json("devices")):
                    assert now_us() - begun < 30_000_000
                assert [(row["device"], row["metric"], row["value"]) for row in rows] == [("kitchen", "temperature", 21.5)]
            finally:
                connector.terminate()
        assert connector.returncode == 0
        line = stack.json("ledger")["connectors"]["statsd"]
        assert (line["stored"], line["reasons"]) == (1, {"malformed": 1})
