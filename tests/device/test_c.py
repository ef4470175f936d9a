"""The C client, compiled with sanitizers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import isotherm
from connectors import tcp
from isotherm.store.client import Client
from tests.conftest import missing
from tests.connectors.test_tcp import listening
from tests.contracts.commands import dispatching, send, state
from tests.contracts.device import DeviceContract, acknowledge_all, scripted
from tests.device.test_python import commander, hear_one

SOURCE = Path(isotherm.__file__).parent / "device" / "c"
FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-g", "-fsanitize=address,undefined")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory, tool: Callable[..., str]) -> str:
    return build(tmp_path_factory.mktemp("c") / "example", SOURCE / "example.c", tool)


@pytest.fixture(scope="module")
def valve(tmp_path_factory: pytest.TempPathFactory, tool: Callable[..., str]) -> str:
    """Give a program that obeys commands."""
    return build(tmp_path_factory.mktemp("c") / "valve", Path(__file__).with_name("valve.c"), tool)


def build(program: Path, main: Path, tool: Callable[..., str]) -> str:
    """Compile a program that uses the client; returns its path."""
    sources = [str(main), str(SOURCE / "isotherm.c"), f"-I{SOURCE}"]
    built = subprocess.run([tool("gcc", "cc"), *FLAGS, "-o", str(program), *sources, "-lm"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return str(program)


def make_german(directory: Path, localedef: str) -> None:
    """Make a locale in which a comma is the point of numbers."""
    if not Path("/usr/share/i18n/locales/de_DE").exists():
        missing("the package locales is not installed; see tests/prepare.sh")
    subprocess.run([localedef, "-i", "de_DE", "-f", "UTF-8", str(directory / "de_DE.UTF-8")], check=True)


class TestC(DeviceContract):
    @pytest.fixture(autouse=True)
    def _built(self, example: str) -> None:
        self._example = example

    def command(self, tmp_path: Path, tool: Callable[..., str]) -> Sequence[str]:
        return [self._example]

    async def test_numbers_are_the_same_where_a_comma_is_their_point(
        self, tmp_path: Path, tool: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await asyncio.to_thread(make_german, tmp_path, tool("localedef"))
        monkeypatch.setenv("LOCPATH", str(tmp_path))
        monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
        async with listening() as connector, self.running(tmp_path, tool, connector.port) as device:
            await device.say("t Cel 21,5", "t Cel -0,001")  # the example reads as the locale writes
            assert (await device.end())["status"] == 0
        assert connector.producer.values_of("pump-7/t") == [21.5, -0.001]

    async def test_what_cannot_be_sent_is_not_kept(self, tmp_path: Path, tool: Callable[..., str]) -> None:
        async with listening() as connector, self.running(tmp_path, tool, connector.port) as device:
            await device.say("t Cel nan", "t Cel inf", f"{'x' * 159} Cel 1", "t Cel 1")
            counted = await device.end()
        assert (counted["acknowledged"], counted["refused"]) == (1, 1)


async def ran(valve: str, *arguments: str) -> list[int]:
    """Return what the program that obeys has counted: valves opened, commands, readings that are not acknowledged."""
    process = await asyncio.create_subprocess_exec(valve, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, errors = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, errors) == (0, b""), errors.decode()
    return [int(word) for word in out.split()]


async def test_commands_are_carried_out_once_and_answered_each_time(valve: str) -> None:
    first: list[Any] = []
    second: list[Any] = []
    parameters = {"to": 0.5, "why": 'a "quoted" {brace}, \\ ü', "list": [1, {"id": "x"}, []], "none": None}
    opening = {"id": "c1", "device": "valve", "name": "open", "parameters": parameters, "deadline": 1.5}
    others = {"id": "c2", "name": "fails"}, {"id": "c3", "name": "unknown", "parameters": {}}
    scripts = commander(opening, opening, *others, replies=first), commander(opening, replies=second), acknowledge_all
    async with scripted(*scripts) as server:
        assert await ran(valve, str(server.port), "valve", "3") == [1, 3, 0]
    assert server.lines[0][0] == {"hello": {"device": "valve", "ack": True, "commands": True}}
    reply = {"id": "c1", "result": {"opened": parameters}}
    assert first[:3] == [{"id": "c1", "received": True}, reply, reply]
    said = {one["id"]: one["error"] for one in first if "error" in one}
    assert said == {"c2": 'no "wings"\n', "c3": "there is no command unknown"}
    assert second[0] == reply


async def test_a_reply_that_was_cut_off_is_sent_again(valve: str) -> None:
    first: list[Any] = []
    second: list[Any] = []
    asked = {"id": "c1", "name": "open", "parameters": {}}
    async with scripted(commander(asked, replies=first, is_kept=False), hear_one(second), acknowledge_all) as server:
        assert await ran(valve, str(server.port), "valve", "1") == [1, 1, 0]
    assert second == first[1:] == [{"id": "c1", "result": {"opened": {}}}]


@pytest.mark.parametrize(
    "line",
    [
        '{"command":{}}',
        '{"command":7}',
        '{"command":{"id":7,"name":"open"}}',
        '{"command":{"id":"' + "x" * 200 + '","name":"open"}}',
        '{"command":{"id":"a","name":"open","parameters":{"b":',
        '{"command":{"id":"a" "name"',
        '{"command":{"id":"a\\u0062","name":"open"}}',
        '{"command":{"x":[[[[[[[[}}',
        '{"command":' + "{" * 1_000,
        '{"replied":"' + "x" * 200 + '"}',
        '{"replied":null}',
    ],
)
async def test_what_is_no_command_is_left_alone(valve: str, line: str) -> None:
    async def odd(hear: Any, say: Any) -> None:
        await hear()
        say(line.encode())
        say(command={"id": "c1", "name": "open"})
        while (one := await hear()) is not None and one.get("reply", {}).get("result") is None:
            pass
        number = 0
        while await hear() is not None:
            number += 1
            say(ack=number)

    async with scripted(odd) as server:
        assert await ran(valve, str(server.port), "valve", "1") == [1, 1, 0]


@pytest.mark.servers
async def test_it_obeys_a_real_connector(valve: str, redis: Client) -> None:
    async with dispatching(redis) as bench, tcp.listening(bench.site) as where:
        port = re.findall(r":(\d+)", where)[0]
        early = await send(bench, "valve", "open", {"to": 1})
        running = asyncio.create_task(ran(valve, port, "valve", "3"))
        await state(bench.control.table, early, "answered")
        failing = await send(bench, "valve", "fails")
        assert (await state(bench.control.table, failing, "failed")).error == 'no "wings"\n'
        last = await send(bench, "valve", "open", {"text": "x" * 3_000})
        found = await state(bench.control.table, last, "answered")
        assert json.loads(found.result) == {"opened": {"text": "x" * 3_000}}
        assert await running == [2, 3, 0]
    assert bench.producer.rejects == []


def test_the_makefile_builds_it(tmp_path: Path, tool: Callable[..., str]) -> None:
    for source in SOURCE.iterdir():
        if source.suffix in (".c", ".h") or source.name == "Makefile":
            (tmp_path / source.name).write_bytes(source.read_bytes())
    tool("gcc", "cc")
    subprocess.run([tool("make"), "-C", str(tmp_path)], check=True, capture_output=True, env=dict(os.environ))
    assert (tmp_path / "example").exists()
