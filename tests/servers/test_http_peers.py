"""Unmodified programs that know nothing of us: InfluxDB's client, curl, collectd."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write.point import Point
from influxdb_client.client.write_api import SYNCHRONOUS, WriteOptions
from influxdb_client.rest import ApiException

from tests.support.stack import Stack

point: Any = Point  # its author has not said what it takes

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack"), "--no-simulator") as stack:
        yield stack


def readings_of(stack: Stack, device: str) -> dict[str, Any]:
    return {row["metric"]: row["value"] for row in stack.json("devices") if row["device"] == device}


def until(stack: Stack, device: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return a device's newest values when they are so."""
    deadline = time.monotonic() + 60
    while not condition(values := readings_of(stack, device)):
        assert time.monotonic() < deadline, values
        time.sleep(0.1)
    return values


# influxdb-client, of InfluxDB 2.


@pytest.fixture
def influx(stack: Stack) -> Iterator[InfluxDBClient]:
    url = f"http://127.0.0.1:{stack.ports.http}"
    with InfluxDBClient(url, token="any", org="o", timeout=20_000, enable_gzip=True) as client:
        yield client


def test_the_influx_client_finds_a_server_that_is_ready(influx: InfluxDBClient) -> None:
    assert influx.ping()
    with pytest.warns(DeprecationWarning):
        assert influx.health().status == "pass"


def test_the_influx_client_writes_points_one_by_one(stack: Stack, influx: InfluxDBClient) -> None:
    writer = influx.write_api(write_options=SYNCHRONOUS)
    writer.write("bucket", record=point("climate").tag("device", "influx-1").field("temperature", 21.5).field("ok", True))
    writer.write("bucket", record="climate,device=influx-1 humidity=40i")
    expected = {"climate/temperature": 21.5, "climate/ok": 1, "climate/humidity": 40}
    assert until(stack, "influx-1", lambda values: len(values) == 3) == expected


def test_the_influx_client_is_told_which_line_is_bad(influx: InfluxDBClient) -> None:
    writer = influx.write_api(write_options=SYNCHRONOUS)
    with pytest.raises(ApiException) as refused:
        writer.write("bucket", record=["climate,device=influx-2 value=1", "climate value=2"])
    assert refused.value.status == 400
    told = json.loads(refused.value.body)
    assert (told["code"], told["line"]) == ("invalid", 2)
    assert "no_device" in told["message"]


def test_the_influx_client_writes_points_in_batches(stack: Stack, influx: InfluxDBClient) -> None:
    failures: list[object] = []
    with influx.write_api(
        write_options=WriteOptions(batch_size=500, flush_interval=200),
        error_callback=lambda *failure: failures.append(failure),
    ) as writer:
        for i in range(5_000):
            writer.write("bucket", record=point("batch").tag("device", "influx-3").field(f"m{i % 10}", i))
    assert failures == []
    values = until(stack, "influx-3", lambda values: max(values.values(), default=0) == 4_999)
    assert values == {f"batch/m{i}": 4_990 + i for i in range(10)}


# curl.


@pytest.fixture
def curl(stack: Stack, tool: Callable[..., str]) -> Callable[..., tuple[int, str]]:
    program = tool("curl")
    url = f"http://127.0.0.1:{stack.ports.http}/api/v1/readings"

    def run(*options: str) -> tuple[int, str]:
        """Return the status and the whole log of a conversation."""
        command = [program, "-sv", "-m", "20", "-o", "-", "-w", "\n%{http_code}", *options, url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        return int(done.stdout.rpartition("\n")[2]), done.stderr + done.stdout

    return run


def test_the_curl_command_of_the_docs_works(stack: Stack, curl: Callable[..., tuple[int, str]]) -> None:
    status, log = curl("-d", '{"n":"curl-1/temperature","u":"Cel","v":21.5}')
    assert status == 204, log
    assert until(stack, "curl-1", bool) == {"temperature": 21.5}


def test_curl_sends_a_file_of_lines_packed_or_not(
    stack: Stack, curl: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    plain, packed = tmp_path / "lines.ndjson", tmp_path / "lines.ndjson.gz"
    plain.write_text("".join(f'{{"n":"curl-2/m{i % 7}","v":{i}}}\n' for i in range(9_000)))
    packed.write_bytes(gzip.compress(b"".join(b'{"n":"curl-3/m%d","v":%d}\n' % (i % 7, i) for i in range(9_000))))
    status, log = curl("--data-binary", f"@{plain}", "-H", "Content-Type: application/x-ndjson")
    assert status == 204, log
    status, log = curl("--data-binary", f"@{packed}", "-H", "Content-Encoding: gzip")
    assert status == 204, log
    for device in ("curl-2", "curl-3"):
        assert until(stack, device, lambda values: max(values.values(), default=0) == 8_999) == {
            f"m{i % 7}": i for i in range(8_993, 9_000)
        }


@pytest.mark.parametrize("options", [["-H", "Expect: 100-continue"], ["-H", "Transfer-Encoding: chunked"], ["--http1.0"],
                                     ["--http2"]])  # fmt: skip
def test_curl_may_ask_first_or_send_chunks_or_be_old_or_new(
    curl: Callable[..., tuple[int, str]], options: list[str]
) -> None:
    status, log = curl("-d", '{"n":"curl-4/t","v":1}', *options)
    assert status == 204, log
    assert ("100 Continue" in log) == ("Expect: 100-continue" in options), log


def test_curl_is_told_what_is_wrong(curl: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    status, log = curl("-d", "junk")
    assert status == 400, log
    assert '"reason":"malformed"' in log
    large = tmp_path / "large"
    large.write_bytes(b"x" * 3_000_000)
    status, log = curl("--data-binary", f"@{large}")
    assert status == 413, log
    assert "100 Continue" not in log


# collectd, by Graphite's plain text to the TCP connector.


def test_collectds_values_arrive(stack: Stack, tool: Callable[..., str], tmp_path: Path) -> None:
    config = tmp_path / "collectd.conf"
    config.write_text(f"""
        Hostname "collectd-1"
        FQDNLookup false
        BaseDir "{tmp_path}"
        PIDFile "{tmp_path}/collectd.pid"
        Interval 1
        LoadPlugin load
        LoadPlugin memory
        LoadPlugin write_graphite
        <Plugin write_graphite>
          <Node "isotherm">
            Host "127.0.0.1"
            Port "{stack.ports.tcp}"
            Protocol "tcp"
            LogSendErrors true
            EscapeCharacter "_"
          </Node>
        </Plugin>
    """)
    program = tool("collectd")
    with (tmp_path / "log").open("w") as log:
        collectd = subprocess.Popen([program, "-f", "-C", str(config)], stdout=log, stderr=subprocess.STDOUT)
    try:
        values = until(stack, "collectd-1", lambda values: len(values) >= 8)
    finally:
        collectd.send_signal(signal.SIGTERM)
        try:
            collectd.wait(20)
        except subprocess.TimeoutExpired:
            collectd.kill()
            collectd.wait()
    assert {"load.load.shortterm", "load.load.midterm", "load.load.longterm", "memory.memory-free"} <= set(values)
    assert values["memory.memory-free"] > 0
    assert stack.json("ledger")["connectors"]["tcp"]["reasons"] == {}


def test_nobody_complains(stack: Stack) -> None:
    assert [line for line in stack.complaints("http", "tcp") if " WARNING " not in line] == []
