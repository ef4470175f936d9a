"""The main job end to end: what is sent over real protocols is in the store once, and nothing is dropped in silence."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from isotherm.cli import bench
from isotherm.clock import now_us
from isotherm.limits import HOUR
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.history import History
from isotherm.store.reader import Reader
from simulator.load import flood, line
from tests.support.stack import ISOTHERM, Stack

pytestmark = pytest.mark.servers

Tool = Callable[..., str]


ALL = ("--last", "1h", "--points", "100000")


def simulate(stack: Stack, protocol: str, *options: str) -> subprocess.Popen[bytes]:
    command = [*ISOTHERM, "simulate", "--protocol", protocol, "--integers", "--json", *options]
    return subprocess.Popen(command, env=stack.environment, stdout=subprocess.PIPE)


def account_of(process: subprocess.Popen[bytes]) -> dict[str, int]:
    output, _ = process.communicate(timeout=120)
    account: dict[str, int] = json.loads(output)
    assert process.returncode == 0, account
    return account


def history(stack: Stack, device: str, metric: str = "temperature", points: int = 100_000) -> list[dict[str, float]]:
    """Return what `isotherm query` prints, without the second that starting it takes."""
    settings = Settings.load(data_dir=stack.data_dir)

    async def read() -> History:
        async with client.connected(settings) as redis:
            now = now_us()
            return await Reader(redis, settings.partitions).query(f"{device}/{metric}", now - HOUR, now + 1, points)

    found = asyncio.run(read())
    names = ("time", "count", "min", "mean", "max", "last")
    columns = [getattr(found, name).tolist() for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def test_sums_and_counts_in_the_store_equal_what_was_sent(
    tmp_path: Path, broker_settings: dict[str, str], tool: Tool
) -> None:
    with Stack(tmp_path / "stack", "--no-simulator", **broker_settings) as stack:
        fleets = [
            simulate(stack, protocol, "--devices", "4", "--rate", "25", "--for", "8", "--first", str(first))
            for first, protocol in enumerate(("tcp", "mqtt", "coap", "http"), start=0)
            for first in (first * 4,)
        ]
        accounts = [account_of(fleet) for fleet in fleets]
        for account in accounts:
            assert account["sent"] == account["acknowledged"] == 4 * 200
            assert account["resent"] == account["refused"] == 0

        # Other people's clients.
        record = '[{"n":"%s","u":"Cel","v":%d}]'
        mosquitto_pub = tool("mosquitto_pub")
        coap_client = tool("coap-client-notls", "coap-client")
        for value in range(5):
            payload = record % ("temperature", value)
            topic = ["-t", "devices/mosquitto/readings", "-q", "1", "-m", payload]
            subprocess.run([mosquitto_pub, "-h", "127.0.0.1", "-p", str(stack.ports.mqtt), *topic], check=True, timeout=20)
            uri = f"coap://127.0.0.1:{stack.ports.coap}/readings"
            answer = subprocess.run(
                [coap_client, "-m", "post", "-t", "110", "-e", record % ("libcoap/temperature", value), "-v", "6", uri],
                capture_output=True, text=True, check=True, timeout=20,
            )  # fmt: skip
            assert "2.04" in answer.stdout + answer.stderr

        total = stack.ledger_when_settled(4 * 800 + 10)
        assert total == {
            "received": 3210, "accepted": 3210, "rejected": 0, "stored": 3210, "duplicates": 0, "in_flight": 0, "lost": 0,
            "skewed": 0, "reasons": {},
        }  # fmt: skip
        lines = stack.json("ledger")["connectors"]
        assert {name: line["stored"] for name, line in lines.items()} == {"tcp": 800, "mqtt": 805, "coap": 805, "http": 800}

        devices = {row["device"]: row for row in stack.json("devices")}
        assert len(devices) == 18
        for number in range(1, 17):
            device = f"room-{number:03d}"
            raw = history(stack, device) if number > 1 else stack.json("query", device, "temperature", *ALL)
            assert [row["last"] for row in raw] == list(range(200))
            assert devices[device]["value"] == 199
            assert devices[device]["unit"] == "Cel"
            rollups = history(stack, device, points=60)
            assert sum(row["count"] for row in rollups) == 200
            assert sum(row["count"] * row["mean"] for row in rollups) == pytest.approx(sum(range(200)))
            assert min(row["min"] for row in rollups) == 0
            assert max(row["max"] for row in rollups) == 199
            assert rollups[-1]["last"] == 199
        for device in ("mosquitto", "libcoap"):
            assert [row["last"] for row in history(stack, device)] == [0, 1, 2, 3, 4]

        table = list(
            csv.DictReader(io.StringIO(stack.run("query", "room-001", "temperature", "--last", "1h", "--csv").stdout))
        )
        assert len(table) == 200
        tailed = stack.run("tail", "readings", "--last", "1000", "--no-follow", "--json").stdout.splitlines()
        assert len(tailed) == 3210
        assert stack.complaints() == []
        assert {path.name for path in tmp_path.iterdir()} <= {"stack", "kafka"}  # nothing is written elsewhere


def test_without_mosquitto_the_embedded_mqtt_broker_does_it(tmp_path: Path) -> None:
    with Stack(tmp_path / "stack", "--no-simulator", embedded_mqtt="amqtt") as stack:
        account = account_of(simulate(stack, "mqtt", "--devices", "4", "--rate", "20", "--for", "5"))
        assert account["acknowledged"] == account["sent"] == 400
        assert stack.ledger_when_settled(400)["stored"] == 400
        for number in range(1, 5):
            assert [row["last"] for row in history(stack, f"room-{number:03d}")] == list(range(100))
        assert stack.complaints() == []


def test_bad_input_is_counted_and_kept_and_does_not_disturb_others(tmp_path: Path, tool: Tool) -> None:
    with Stack(tmp_path / "stack", "--no-simulator") as stack:
        others = simulate(stack, "tcp", "--devices", "3", "--rate", "20", "--for", "6")
        bad = {
            b'{"n":"d/t","v":': "malformed",
            b"\x00\xff\xfebinary junk\x80": "malformed",
            b'{"n":"d/t","v":"warm"}': "type",
            b'{"n":"d/t","v":NaN}': "malformed",
            b'{"n":"d/t","v":1,"t":99999999999}': "time",
            b'{"n":"d/t","v":1,"t":300000000}': "time",
            b'{"n":"d/t","v":1,"must_":1}': "unknown_field",
            b'{"n":"bad name/t","v":1}': "name",
            b'{"n":"nodevice","v":1}': "no_device",
            b"x" * 100_000: "line_too_long",
        }
        with socket.create_connection(("127.0.0.1", stack.ports.tcp)) as peer:
            peer.sendall(b'{"hello":{"ack":true}}\n')
            answers = peer.makefile("rb")
            for number, (line, reason) in enumerate(bad.items()):
                peer.sendall(line + b"\n" + b'{"n":"good/t","v":%d}\n' % number)  # the connection survives
                told: list[dict[str, dict[str, str]]] = []
                while not any("ack" in one for one in told):
                    told.append(json.loads(answers.readline()))
                assert [one["error"]["reason"] for one in told if "error" in one] == [reason]
            peer.sendall(b'{"n":"good/t","v":99}')  # the last line lacks its newline
            peer.shutdown(socket.SHUT_WR)
            assert json.loads(answers.readline()) == {"ack": len(bad) + 1}
        silent = socket.create_connection(("127.0.0.1", stack.ports.tcp))  # says nothing, holds its place

        mosquitto_pub = [tool("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(stack.ports.mqtt), "-q", "1"]
        for topic, payload in (
            ("devices/m/readings", "junk"),
            ("devices/m/readings", '[{"n":"other/t","v":1}]'),
            ("devices/bad name/readings", '[{"n":"t","v":1}]'),
            ("devices/m/readings", '[{"n":"t","v":1}]'),
        ):
            subprocess.run([*mosquitto_pub, "-t", topic, "-m", payload], check=True, timeout=20)
        coap_client = [tool("coap-client-notls", "coap-client"), "-v", "6", "-m", "post"]
        uri = f"coap://127.0.0.1:{stack.ports.coap}"
        for options, path, code in (
            (["-t", "110", "-e", "junk"], "/readings", "4.00"),
            (["-t", "110", "-e", '[{"n":"c/t","v":1},{"n":"c/u","v":"x"}]'], "/readings", "4.00"),
            (["-t", "0", "-e", "21.5"], "/readings", "4.15"),
            (["-t", "110", "-e", "[]"], "/elsewhere", "4.04"),
        ):
            answer = subprocess.run(
                [*coap_client, *options, uri + path], capture_output=True, text=True, timeout=20, check=False
            )
            assert code in answer.stdout + answer.stderr

        account = account_of(others)
        assert account["acknowledged"] == account["sent"] == 360
        accepted = 360 + len(bad) + 1 + 1 + 1
        total = stack.ledger_when_settled(accepted + len(bad) + 6)
        assert total["stored"] == total["accepted"] == accepted
        assert total["reasons"] == {
            "malformed": 3 + 1 + 1, "type": 1 + 1, "time": 2, "unknown_field": 1, "name": 1 + 1, "no_device": 1,
            "line_too_long": 1, "identity": 1, "format": 1,
        }  # fmt: skip
        assert [row["last"] for row in history(stack, "good", "t")] == [*range(len(bad)), 99]

        rejects = [
            json.loads(line)
            for line in stack.run("tail", "rejects", "--last", "100", "--no-follow", "--json").stdout.splitlines()
        ]
        assert len(rejects) == total["rejected"]
        kept = {one["raw"].encode() for one in rejects if "raw" in one}
        assert {line for line in bad if len(line) < 1000 and b"\xff" not in line} <= kept
        [long] = [one for one in rejects if one["reason"] == "line_too_long"]
        assert (long["size"], long["raw"]) == (100_000, "x" * 65_536)
        [junk] = [one for one in rejects if "raw_base64" in one]
        assert junk["reason"] == "malformed"
        silent.close()
        assert [line for line in stack.complaints("worker", "kafka", "store", "mqtt-broker") if line] == []


def test_history_outlives_a_restart_and_the_new_log_is_not_mistaken_for_the_old(tmp_path: Path) -> None:
    data_dir = tmp_path / "stack"
    for run in (1, 2):
        with Stack(data_dir, "--no-simulator") as stack:
            account = account_of(simulate(stack, "tcp", "--devices", "2", "--rate", "50", "--for", "2"))
            assert account["acknowledged"] == 200
            # Stopped at once: what was acknowledged must still reach the store.
            last = stack.stop()
            assert stack.exit_code == 0
        assert last["total"]["stored"] == last["total"]["accepted"] == run * 200
        assert last["total"]["lost"] == last["total"]["in_flight"] == 0
    with Stack(data_dir, "--no-simulator") as stack:
        for device in ("room-001", "room-002"):
            assert [row["last"] for row in history(stack, device)] == [*range(100)] * 2


ENDS_WITHIN = 15.0
"""A bound, not a figure: 5 s is what parts are given, on a machine that other tests keep busy."""


def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    with Stack(tmp_path / "stack", "--devices", "9", "--rate", "10") as stack:
        family = stack.family()
        assert len(family) >= 10
        began = time.monotonic()
        stack.stop()
        assert time.monotonic() - began < ENDS_WITHIN
        assert stack.exit_code == 0
        assert [member for member in family if _runs(member)] == []
        assert stack.complaints("tcp", "mqtt", "coap", "worker", "web") == []


def _runs(process: psutil.Process) -> bool:
    """Tell whether a process runs; one that has ended stays in the table until init, if there is a real one, looks."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("moment", [0.3, 1.0, 1.8, 3.0])
def test_ctrl_c_during_the_start_ends_everything(tmp_path: Path, moment: float) -> None:
    stack = Stack(tmp_path / "stack")
    command = [*ISOTHERM, "up", "--json", "--devices", "6", "--port-base", str(stack.ports.web)]
    with subprocess.Popen(command, env=stack.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        seen: set[psutil.Process] = set()
        supervisor = psutil.Process(process.pid)
        until = time.monotonic() + moment
        while time.monotonic() < until:
            seen.update(supervisor.children(recursive=True))
            time.sleep(0.02)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
        assert time.monotonic() - began < ENDS_WITHIN
    assert b"Traceback" not in errors or b"in main" not in errors  # before `main`, there is only Python's own handler
    seen.update(one for one in psutil.process_iter() if str(tmp_path) in " ".join(_cmdline(one)))
    assert psutil.wait_procs(list(seen), timeout=2)[1] == []


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_killed_supervisor_leaves_no_process_behind(tmp_path: Path) -> None:
    with Stack(tmp_path / "stack", "--devices", "3") as stack:
        family = stack.family()
        stack.process.kill()
        _, alive = psutil.wait_procs(family, timeout=30)  # as long as a connector may wait for Kafka
        assert alive == []


def test_parts_that_die_are_started_again_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    with Stack(tmp_path / "stack", "--no-simulator") as stack:
        plan = ("--devices", "2", "--rate", "20", "--for", "25")
        fleets = [simulate(stack, "tcp", *plan, "--first", "0"), simulate(stack, "mqtt", *plan, "--first", "2")]
        stack.ledger_when_settled(40)  # in the middle of the traffic
        for part in ("tcp", "mqtt", "worker", "store", "web"):
            os.kill(stack.pid_of(part), signal.SIGKILL)
            fallen = stack.wait_for("part", part=part, state="backing off")
            assert "killed by SIGKILL" in fallen["note"]
            stack.wait_for("part", part=part, state="ready")
        for fleet in fleets:
            account = account_of(fleet)
            assert account["acknowledged"] == account["sent"] == 1_000
        total = stack.ledger_when_settled(2_000)
        assert (total["stored"], total["lost"]) == (2_000, 0)
        for number in range(1, 5):
            assert [row["last"] for row in history(stack, f"room-{number:03d}")] == list(range(500))

        os.kill(stack.pid_of("mqtt-broker"), signal.SIGKILL)  # what it has not passed on is gone with it: nothing
        stack.wait_for("part", part="mqtt-broker", state="ready")
        account = account_of(simulate(stack, "mqtt", "--devices", "1", "--rate", "20", "--for", "1", "--first", "9"))
        assert stack.ledger_when_settled(2_020)["stored"] == 2_000 + account["acknowledged"] == 2_020


def test_a_broker_that_dies_takes_its_log_along_and_the_stack_goes_on(tmp_path: Path) -> None:
    with Stack(tmp_path / "stack", "--devices", "3", "--rate", "5") as stack:
        os.kill(stack.pid_of("kafka"), signal.SIGKILL)
        stack.wait_for("part", part="kafka", state="backing off")
        for part in ("tcp", "worker"):
            stack.wait_for("part", part=part, state="ready")
        before = stack.json("ledger")["total"]["stored"]
        deadline = time.monotonic() + 60
        while stack.json("ledger")["total"]["stored"] < before + 50:
            assert time.monotonic() < deadline
        last = stack.stop()
        assert last["total"]["accepted"] == last["total"]["stored"] + last["total"]["lost"]


def test_a_broker_that_has_grown_starts_anew_and_nothing_is_lost(tmp_path: Path) -> None:
    with Stack(tmp_path / "stack", "--no-simulator", broker_memory_mib="26") as stack:
        fleets = [
            simulate(stack, protocol, "--devices", "4", "--rate", "100", "--for", "25", "--first", str(first))
            for protocol, first in (("tcp", 0), ("mqtt", 4))
        ]
        stack.wait_for("part", part="kafka", state="backing off", seconds=40)
        for fleet in fleets:
            assert account_of(fleet)["acknowledged"] == 10_000
        total = stack.ledger_when_settled(20_000)
        assert total["lost"] == 0
        for number in range(1, 9):
            assert {row["last"] for row in history(stack, f"room-{number:03d}")} == set(range(2500))
        assert stack.complaints("tcp", "mqtt", "worker") == []


PLAIN = ("--connections", "0", "--rate", "0")


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("quiet") / "stack", "--no-simulator", reuse_port="True") as stack:
        yield stack


@pytest.mark.parametrize("protocol", ["http", "ws"])
def test_bench_weighs_connections_and_measures_latency(quiet: Stack, protocol: str) -> None:
    options = ("--readings", "2000", "--devices", "100", "--connections", "50", "--rate", "1000", "--seconds", "2")
    figures = quiet.json("bench", "ingest", "--protocol", protocol, *options)
    assert "bytes_per_connection" in figures  # a few connections more or less, and memory that is given back
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p99"]
    assert figures["probes"] == 100
    assert figures["payloads_per_s"] > 0


def test_bench_measures_coap(quiet: Stack) -> None:
    options = ("--readings", "2000", "--devices", "100", "--rate", "500", "--seconds", "1")
    figures = quiet.json("bench", "ingest", "--protocol", "coap", *options)
    assert figures["shards"] == 1  # a stack that runs is measured as it is
    assert figures["payloads_per_s"] > 0
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p99"]
    settings = Settings.load(data_dir=quiet.data_dir)
    with bench._shards(settings, 1) as [shard]:  # what it adds to a stack of its own
        before = quiet.ledger_when_settled(4_000)["received"]
        work = [line(f"shards-{number}", number, time.time()) for number in range(2_000)]
        asyncio.run(flood("127.0.0.1", quiet.ports.coap, work, 32, lambda _: None))
        assert quiet.ledger_when_settled(before + 2_000)["stored"] == before + 2_000
        assert shard.poll() is None


def test_the_benches_of_commands_and_configuration_measure_what_devices_do(quiet: Stack) -> None:
    figures = quiet.json("bench", "commands", "--count", "10")
    for protocol in ("tcp", "ws", "http", "mqtt", "coap"):
        told = figures[f"{protocol}_ms"]
        assert 0 < told["p50"] <= told["p95"] <= told["p99"], protocol
    figures = quiet.json("bench", "configuration", "--devices", "50")
    assert figures["devices"] == 50
    assert 0 < figures["half_reported_s"] <= figures["all_reported_s"]


def test_bench_measures_and_everything_it_sends_is_stored(quiet: Stack) -> None:
    before = quiet.ledger_when_settled(0)["stored"]
    figures = quiet.json("bench", "ingest", "--readings", "50000", "--devices", "500", *PLAIN)
    assert figures["readings"] == 50_000
    assert figures["readings_per_s"] > 0
    assert figures["cpu_us_per_reading"] >= max(figures["cpu_us_by_part"].values())
    assert set(figures["cpu_us_by_part"]) >= {"tcp", "worker", "valkey-server"}
    total = quiet.ledger_when_settled(before + 52_000)
    assert (total["stored"] - before, total["rejected"]) == (52_000, 0)  # 2,000 of them to warm up
    rows = history(quiet, "load-477")  # the other measurements have less devices
    assert sum(row["count"] for row in rows) == 100
    assert sum(row["count"] * row["mean"] for row in rows) == sum(15 + turn % 10 + 0.5 for turn in range(100))


def test_busy_ports_are_named(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack")
    with socket.create_server(("127.0.0.1", stack.ports.kafka)):
        command = [*ISOTHERM, "up", "--port-base", str(stack.ports.web), "--data-dir", str(tmp_path / "stack")]
        failed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert failed.returncode == 1
    assert re.search(
        rf"isotherm: busy: port {stack.ports.kafka} \(kafka\), used by \S+ \(pid {os.getpid()}\)", failed.stderr
    )
    assert "Traceback" not in failed.stderr


def test_a_reader_that_leaves_does_not_keep_the_stack_from_stopping_in_order(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack")
    up = f"{' '.join(ISOTHERM)} up --for 3 --devices 3 --json --port-base {stack.ports.web}"
    piped = ["bash", "-c", f"{up} | head -n 1; exit ${{PIPESTATUS[0]}}"]
    ran = subprocess.run(piped, env=stack.environment, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0
    assert ran.stderr == ""
    assert len(ran.stdout.splitlines()) == 1
    assert "stopping" in stack.log_of("tcp")


def test_up_for_some_seconds_ends_by_itself_with_an_account(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack", "--for", "6", "--devices", "6", "--rate", "2")
    with stack:
        stack.exit_code = stack.process.wait(timeout=60)
        assert stack.exit_code == 0
        assert stack.wait_for("ended")["total"]["stored"] > 30
