"""The device's client for MicroPython: under the real one, where it is installed, and under CPython."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import isotherm
from connectors import tcp
from isotherm.store.client import Client
from tests.conftest import missing
from tests.contracts.commands import configured, dispatching, send, state
from tests.contracts.device import DeviceContract, acknowledge_all, scripted
from tests.device.test_python import commander, hear_one

FILE = Path(isotherm.__file__).parent / "device" / "micropython" / "isotherm.py"
MICROPYTHON = Path(sys.executable).with_name("micropython")

COMMANDS = """
import sys
from isotherm import Device

done = []

def open_valve(parameters):
    done.append(parameters)
    return {"opened": parameters["to"]}

device = Device("127.0.0.1", "valve", int(sys.argv[1]))
device.on_command("open", open_valve)
device.on_command("fails", lambda _: 1 // 0)
device.work(6000)
device.add("position", 0.5)
device.work(3000)
print(len(done), device.pending())
"""


def micropython() -> str:
    """Return MicroPython, or skip."""
    if not MICROPYTHON.exists():
        missing("MicroPython is not installed: make .venv/ready-dev does, on Linux on x86-64")
    return str(MICROPYTHON)


def copied_to(directory: Path) -> str:
    """Copy the file to where no other program takes it for the package of its name."""
    (directory / "device").mkdir(exist_ok=True)
    return str(shutil.copy(FILE, directory / "device"))


class TestMicroPython(DeviceContract):
    def command(self, tmp_path: Path, tool: Callable[..., str]) -> Sequence[str]:
        return [micropython(), "-X", "heapsize=8M", copied_to(tmp_path)]


class TestCPython(DeviceContract):
    def command(self, tmp_path: Path, tool: Callable[..., str]) -> Sequence[str]:
        return [sys.executable, "-I", copied_to(tmp_path)]


async def test_commands_are_carried_out_once_and_answered_each_time(tmp_path: Path) -> None:
    first: list[Any] = []
    second: list[Any] = []
    opening = {"id": "c1", "name": "open", "parameters": {"to": 0.5}}
    others = {"id": "c2", "name": "fails"}, {"id": "c3", "name": "unknown"}
    shutil.copy(FILE, tmp_path)
    await asyncio.to_thread((tmp_path / "main.py").write_text, COMMANDS)
    scripts = commander(opening, opening, *others, replies=first), commander(opening, replies=second), acknowledge_all
    async with scripted(*scripts) as server:
        process = await asyncio.create_subprocess_exec(
            micropython(), "main.py", str(server.port), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, errors = await asyncio.wait_for(process.communicate(), 60)
    assert (out.split(), errors) == ([b"1", b"0"], b"")
    reply = {"id": "c1", "result": {"opened": 0.5}}
    assert first[:3] == [{"id": "c1", "received": True}, reply, reply]
    said = {one["id"]: one["error"] for one in first if "error" in one}
    assert "ZeroDivisionError" in said["c2"]
    assert "no command unknown" in said["c3"]
    assert second == [reply]


async def test_a_reply_that_was_cut_off_is_sent_again(tmp_path: Path) -> None:
    first: list[Any] = []
    second: list[Any] = []
    shutil.copy(FILE, tmp_path)
    await asyncio.to_thread((tmp_path / "main.py").write_text, COMMANDS)
    opening = {"id": "c1", "name": "open", "parameters": {"to": 1}}
    async with scripted(commander(opening, replies=first, is_kept=False), hear_one(second), acknowledge_all) as server:
        process = await asyncio.create_subprocess_exec(
            micropython(), "main.py", str(server.port), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, errors = await asyncio.wait_for(process.communicate(), 60)
    assert (out.split(), errors) == ([b"1", b"0"], b"")
    assert second == first[1:] == [{"id": "c1", "result": {"opened": 1}}]


@pytest.mark.servers
async def test_it_obeys_a_real_connector(tmp_path: Path, redis: Client) -> None:
    shutil.copy(FILE, tmp_path)
    await asyncio.to_thread((tmp_path / "main.py").write_text, COMMANDS)
    async with dispatching(redis) as bench, tcp.listening(bench.site) as where:
        port = re.findall(r":(\d+)", where)[0]
        sent = await send(bench, "valve", "open", {"to": 0.25})
        await bench.configurations.change("valve", {"interval": 5}, "eve")
        process = await asyncio.create_subprocess_exec(
            micropython(), "main.py", port, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, errors = await asyncio.wait_for(process.communicate(), 60)
        assert (out.split(), errors) == ([b"1", b"0"], b"")
        assert (await state(bench.control.table, sent, "answered")).result == '{"opened":0.25}'
        assert (await configured(bench.configurations, "valve", "failed")).error.startswith("ValueError")
    assert bench.producer.rejects == []


@pytest.mark.parametrize("command", [[sys.executable, "-I"], None])
def test_a_device_without_a_clock_sends_no_times_and_counts_from_where_it_is_told(
    command: list[str] | None, tmp_path: Path
) -> None:
    shutil.copy(FILE, tmp_path)
    program = (
        "import sys; sys.path.insert(0, '.'); import isotherm; isotherm._now_us = lambda: None;"
        "d = isotherm.Device('h', 'd', first=7); d.add('t', 1); d.add('t', 2.5, 'V', 1790000000000001);"
        "print(b''.join(d._lines).decode())"
    )
    ran = subprocess.run([*(command or [micropython()]), "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout.split() == [
        '{"n":"t","v":1.0,"seq":7}',
        '{"n":"t","v":2.5,"u":"V","t":1790000000.000001,"seq":8}',
    ], ran.stderr
