"""Intake as an operator meets it: rejects that are looked at and taken in after all, tokens, workers."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from connectors.examples import elsys
from simulator.load import CoapLink, TcpLink, line
from tests.support.intake import eventually
from tests.support.ports import free_port
from tests.support.stack import ISOTHERM, Stack

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack"), "--no-simulator") as stack:
        yield stack


async def post(stack: Stack, body: bytes, path: str = "api/v1/readings", **headers: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{stack.ports.http}/{path}", data=body, headers=headers) as answer,
    ):
        return answer.status, await answer.text()


def rejects(stack: Stack, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.json("rejects", "list", *options)
    return found


def newest(stack: Stack, device: str) -> dict[str, float]:
    return {row["metric"]: row["value"] for row in stack.json("devices") if row["device"] == device}


def until_stored(stack: Stack, device: str, values: dict[str, float]) -> None:
    deadline = time.monotonic() + 60
    while (found := newest(stack, device)) != values:
        assert time.monotonic() < deadline, found


async def test_a_reject_is_listed_shown_and_taken_in_through_a_corrected_decoder(stack: Stack, tmp_path: Path) -> None:
    assert (await post(stack, b"21.5;47", **{"Content-Type": "text/csv"}))[0] == 415
    assert (await post(stack, b'[{"n":"other/t","v":"x"}]'))[0] == 400
    [kept] = rejects(stack, "--reason", "format")
    assert (kept["raw"], kept["protocol"], kept["replayed"]) == ("21.5;47", "http", False)
    assert rejects(stack, "--reason", "type", "--protocol", "http", "--last", "10m")
    assert rejects(stack, "--protocol", "tcp") == []
    shown = stack.run("rejects", "show", kept["id"]).stdout
    assert "text/csv" in shown
    assert shown.endswith("raw\n21.5;47\n")

    decoder = tmp_path / "csv.py"
    decoder.write_text(
        "def decode(raw):\n"
        "    temperature, humidity = raw.decode().split(';')\n"
        "    return [{'n': 'temperature', 'u': 'Cel', 'v': float(temperature)}, {'n': 'humidity', 'v': float(humidity)}]\n"
    )
    options = ("--reason", "format", "--decoder", str(decoder), "--as-device", "csv-1")
    assert stack.json("rejects", "replay", *options, "--dry-run")["accepted"] == 0
    assert stack.json("rejects", "replay", *options) == {
        "rejects": 1, "cut": 0, "stored": 0, "strangers": 0, "replayed_before": 0,
        "accepted": 2, "rejected": 0, "errors": [],
    }  # fmt: skip
    until_stored(stack, "csv-1", {"temperature": 21.5, "humidity": 47.0})
    [row] = [row for row in stack.json("devices") if row["device"] == "csv-1" and row["metric"] == "humidity"]
    assert row["time"] == kept["received_at"]  # a missing time is when it came, not when it was replayed
    assert rejects(stack, "--reason", "format")[0]["replayed"] is True
    assert stack.json("rejects", "replay", *options)["rejects"] == 0
    assert stack.json("rejects", "replay", kept["id"], "--decoder", str(decoder), "--as-device", "csv-1", "--again")[
        "accepted"
    ] == 2  # fmt: skip


async def test_many_bad_lines_are_one_reject_and_come_in_when_their_device_is_named(stack: Stack) -> None:
    lines = b"".join(b'{"n":"bare","v":%d,"t":-%d}\n' % (i, 100 - i) for i in range(100))
    assert (await post(stack, lines))[0] == 400
    [kept] = rejects(stack, "--reason", "no_device")
    assert kept["count"] == 100
    figures = stack.json("rejects", "replay", "--reason", "no_device", "--as-device", "named")
    assert figures["accepted"] == 100
    until_stored(stack, "named", {"bare": 99.0})
    assert len(stack.json("query", "named", "bare", "--last", "10m")) == 100


async def test_what_is_refused_again_is_a_reject_again(stack: Stack) -> None:
    await post(stack, b'[{"n":"again/t","v":"x"}]')
    before = len(rejects(stack, "--reason", "type"))
    [kept] = [one for one in rejects(stack, "--reason", "type") if "again" in one["raw"]]
    figures = stack.json("rejects", "replay", kept["id"])
    assert (figures["accepted"], figures["rejected"]) == (0, 1)
    assert "type" in figures["errors"][0]
    assert len(rejects(stack, "--reason", "type")) == before + 1
    assert "1 passed over because they were replayed before (--again)" in stack.run("rejects", "replay", kept["id"]).stdout
    assert "a new reject" in stack.run("rejects", "replay", kept["id"], "--again").stdout


async def test_binary_rejects_are_shown_as_a_hex_dump(stack: Stack) -> None:
    await post(stack, b"\xff\x00hello\xfe", **{"Content-Type": "application/senml+cbor"})
    [kept] = [one for one in rejects(stack, "--reason", "malformed") if "raw_base64" in one]
    assert "ff 00 68 65 6c 6c 6f fe" in stack.run("rejects", "show", kept["id"]).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rejects", "show", "0/999"), "there is no reject '0/999'"),
        (("rejects", "replay", "x"), "there is no reject 'x'"),
        (("rejects", "replay", "--decoder", "/nowhere.py"), "cannot be loaded"),
        (("devices", "token", "nobody"), "there is no device 'nobody'"),
        (("devices", "add", "no name"), "is no device name"),
        (("devices", "add", "child", "--via", "nobody"), "is no gateway"),
        (("devices", "show", "nobody"), "there is no device 'nobody'"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(stack: Stack, arguments: tuple[str, ...], said: str) -> None:
    failed = stack.run(*arguments, check=False)
    assert failed.returncode == 1
    assert said in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


async def test_devices_that_were_seen_are_registered(stack: Stack) -> None:
    await post(stack, b'{"n":"seen-1/t","v":1}')
    deadline = time.monotonic() + 60
    while "seen-1" not in stack.json("devices", "list"):
        assert time.monotonic() < deadline


async def test_workers_share_a_port_and_acknowledge_what_they_took_in_when_they_stop(stack: Stack) -> None:
    port = free_port()
    environment = {**stack.environment, "ISOTHERM_TCP_PORT": str(port)}
    command = [*ISOTHERM, "connect", "tcp", "--workers", "2"]
    process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
    try:
        assert process.stderr is not None
        for _ in range(2):
            assert b"listening on tcp://" in await process.stderr.readline()
        links = [TcpLink() for _ in range(40)]
        for number, link in enumerate(links):
            await link.open("127.0.0.1", port)
            await link.send(line(f"worker-{number}", number, time.time()))
            await link.acknowledge(1)
        workers = psutil.Process(process.pid).children()
        assert len(workers) == 2
        shares = [
            sum(one.laddr.port == port and one.status == "ESTABLISHED" for one in w.net_connections()) for w in workers
        ]
        assert sum(shares) == 40
        assert min(shares) > 0
        for number, link in enumerate(links):
            await link.send(line(f"worker-{number}", 1000, time.time()))
        process.send_signal(signal.SIGTERM)
        for link in links:
            await link.acknowledge(2)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
    assert psutil.wait_procs(workers, timeout=10)[1] == []


async def test_coap_workers_share_a_port_and_what_they_acknowledge_is_stored_though_they_are_stopped(stack: Stack) -> None:
    before = stack.json("ledger")["connectors"].get("coap", {"stored": 0})["stored"]
    port, tcp_port = free_port(), free_port()
    environment = {**stack.environment, "ISOTHERM_COAP_PORT": str(port), "ISOTHERM_COAP_TCP_PORT": str(tcp_port)}
    command = [*ISOTHERM, "connect", "coap", "--workers", "2"]
    process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
    links = [CoapLink() for _ in range(20)]
    try:
        assert process.stderr is not None
        for _ in range(2):
            assert b"listening on coap://" in await process.stderr.readline()
        workers = psutil.Process(process.pid).children()
        assert len(workers) == 2
        for number, link in enumerate(links):
            await link.open("127.0.0.1", port)
            for value in range(50):
                await link.send(line(f"coap-worker-{number}", value, time.time()))
            await link.acknowledge(50)
        for number, link in enumerate(links):
            for value in range(50):
                await link.send(line(f"coap-worker-{number}", value, time.time()))
        process.send_signal(signal.SIGTERM)  # most are on their way now
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
    acknowledged = sum(link.acknowledged for link in links)
    for link in links:
        await link.close()
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    deadline = time.monotonic() + 60
    while (stored := stack.json("ledger")["connectors"]["coap"]["stored"] - before) < acknowledged:
        assert time.monotonic() < deadline, (stored, acknowledged)
    assert stored >= acknowledged >= 1_000


async def test_workers_end_with_the_process_that_started_them(stack: Stack) -> None:
    environment = {**stack.environment, "ISOTHERM_TCP_PORT": str(free_port())}
    command = [*ISOTHERM, "connect", "tcp", "--workers", "2"]
    process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    for _ in range(2):
        await process.stderr.readline()
    workers = psutil.Process(process.pid).children()
    process.kill()
    await process.wait()
    assert psutil.wait_procs(workers, timeout=20)[1] == []


async def test_with_tokens_strangers_are_refused_and_devices_with_one_are_not(
    tmp_path: Path, tool: Callable[..., str]
) -> None:
    with Stack(tmp_path / "stack", "--devices", "4", "--rate", "5", auth="token") as stack:
        stack.ledger_when_settled(40)  # the simulated fleet has registered itself
        body = b'{"n":"kitchen/t","v":1}'
        status, text = await post(stack, body)
        assert (status, json.loads(text)["reason"]) == (401, "auth")
        stack.run("devices", "add", "kitchen", "cellar")
        token = stack.run("devices", "token", "kitchen").stdout.strip()
        bearer = {"Authorization": f"Bearer {token}"}
        assert (await post(stack, body, **bearer))[0] == 204
        assert (await post(stack, b'{"n":"cellar/t","v":1}', **bearer))[0] == 400
        refused = stack.run("simulate", "--protocol", "coap", "--devices", "1", "--for", "1", check=False)
        assert refused.returncode == 1
        assert "4.01" in refused.stdout
        reasons = stack.json("ledger")["connectors"]["http"]["reasons"]
        assert reasons == {"auth": 1, "identity": 1}
        refused_then = ("rejects", "replay", "--reason", "auth", "--protocol", "http")
        assert "1 passed over because their sender did not show for whom it may speak" in stack.run(*refused_then).stdout
        assert stack.json(*refused_then, "--strangers")["accepted"] == 1
        until_stored(stack, "kitchen", {"t": 1.0})

        def mqtt_answer(topic: str, *shown: str) -> str:
            command = [tool("mosquitto_pub"), "-p", str(stack.ports.mqtt), "-V", "5", "-q", "1", *shown]
            command += ["-t", topic, "-m", "2"]
            return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stderr

        with_token = ("-u", "kitchen", "-P", token)
        await eventually(lambda: not mqtt_answer("devices/kitchen/mqtt", *with_token))  # the broker hears of the token
        assert "Not authorized" in mqtt_answer("devices/cellar/mqtt", *with_token)
        assert "Not authorized" in mqtt_answer("devices/kitchen/mqtt")
        until_stored(stack, "kitchen", {"t": 1.0, "mqtt": 2.0})
        assert not stack.json("devices", "show", "cellar")["metrics"]


def test_users_of_the_broker_need_a_user_for_the_connectors(stack: Stack, tmp_path: Path) -> None:
    failed = stack.run("mqtt", "users", str(tmp_path), check=False)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "ISOTHERM_MQTT_USERNAME" in failed.stderr


def test_an_open_door_on_an_address_that_others_can_reach_is_refused(tmp_path: Path) -> None:
    environment = {**Stack(tmp_path).environment, "ISOTHERM_AUTH": "open", "ISOTHERM_HOST": "0.0.0.0"}
    command = [*ISOTHERM, "connect", "tcp"]
    failed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert failed.returncode == 1
    assert "set ISOTHERM_AUTH=token" in failed.stderr


def test_a_port_that_is_taken_is_said_in_a_line(stack: Stack) -> None:
    command = [*ISOTHERM, "connect", "http"]
    failed = subprocess.run(command, env=stack.environment, capture_output=True, text=True, timeout=60, check=False)
    assert failed.returncode == 1
    assert "cannot listen" in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr


def test_a_devices_type_is_shown_and_stays_until_another_is_said(stack: Stack) -> None:
    for options, type in ((("--type", "elsys-ers"), "elsys-ers"), ((), "elsys-ers"), (("--type", ""), None)):
        stack.run("devices", "add", "typed", *options)
        assert stack.json("devices", "show", "typed")["type"] == type
    stack.run("devices", "add", "typed", "--type", "door")
    assert stack.run("devices", "show", "typed").stdout.startswith("typed: 0 tokens, a door\n")


async def test_what_was_refused_is_taken_in_through_a_registered_decoder(stack: Stack) -> None:
    await post(stack, b"\x01\xff\x9c", **{"Content-Type": "application/x-elsys"})
    [kept] = [one for one in rejects(stack, "--reason", "format") if "x-elsys" in one["detail"]]
    figures = stack.json("rejects", "replay", kept["id"], "--decoder", elsys.__file__, "--as-device", "elsys-1")
    assert (figures["accepted"], figures["rejected"]) == (1, 0)
    until_stored(stack, "elsys-1", {"temperature": -10.0})


async def test_a_decoder_that_fails_is_said_in_a_line(stack: Stack, tmp_path: Path) -> None:
    await post(stack, b'[{"n":"fails/t","v":"x"}]')
    decoder = tmp_path / "broken.py"
    decoder.write_text("def decode(raw):\n    return 1 / 0\n")
    failed = stack.run("rejects", "replay", "--reason", "type", "--decoder", str(decoder), "--again", check=False)
    assert failed.returncode == 1
    assert "the decoder failed on" in failed.stderr
    assert "Traceback" not in failed.stderr
