"""The device's client in Python: the contract, commands, and that it needs the standard library alone."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from isotherm.device import device as module
from isotherm.device.device import Device
from tests.connectors.test_tcp import listening
from tests.contracts.device import DeviceContract, acknowledge_all, scripted
from tests.support.certificates import Authority

FILE = Path(module.__file__)


class TestPython(DeviceContract):
    def command(self, tmp_path: Path, tool: Callable[..., str]) -> Sequence[str]:
        copied = shutil.copy(FILE, tmp_path)
        return [sys.executable, "-I", str(copied)]


class TestOldPython(TestPython):
    """The oldest Python that it is for, where it is installed."""

    def command(self, tmp_path: Path, tool: Callable[..., str]) -> Sequence[str]:
        copied = shutil.copy(FILE, tmp_path)
        return [old_python(), "-I", str(copied)]


def old_python() -> str:
    """Return a Python 3.9, or skip: the tests do not install one."""
    found = shutil.which("python3.9")
    candidates = [found] if found else []
    candidates += map(str, sorted(Path.home().glob(".pyenv/versions/3.9*/bin/python3.9")))
    for one in candidates:
        if subprocess.run([one, "-V"], capture_output=True).returncode == 0:
            return one
    pytest.skip("there is no Python 3.9")


def test_it_needs_the_standard_library_alone(tmp_path: Path) -> None:
    shutil.copy(FILE, tmp_path)
    program = (
        "import sys; sys.path.insert(0, '.'); import device;"
        "files = [getattr(one, '__file__', None) or '' for one in list(sys.modules.values())];"
        "sys.exit(any('site-packages' in one for one in files))"
    )
    assert subprocess.run([sys.executable, "-I", "-S", "-c", program], cwd=tmp_path).returncode == 0


def commander(*commands: dict[str, Any], replies: list[Any], is_kept: bool = True) -> Any:
    """Return a script: give commands, gather the replies until there is one to each, say that they are kept, and close."""

    async def script(hear: Any, say: Any) -> None:
        await hear()
        for command in commands:
            say(command=command)
        while sum("received" not in one for one in replies) < len(commands):
            line = await hear()
            if line is None:
                return
            if "reply" in line:
                replies.append(line["reply"])
                if is_kept and "received" not in line["reply"]:
                    say(replied=line["reply"]["id"])

    return script


def hear_one(replies: list[Any]) -> Any:
    """Return a script: hear a reply that nobody has asked for, say that it is kept, and close."""

    async def script(hear: Any, say: Any) -> None:
        await hear()
        replies.append((await hear())["reply"])
        say(replied=replies[-1]["id"])

    return script


async def test_a_command_is_carried_out_once_and_answered_each_time_also_on_another_connection() -> None:
    carried_out: list[Any] = []
    first: list[Any] = []
    second: list[Any] = []
    asked = {"id": "c1", "name": "open", "parameters": {"to": 0.5}, "deadline": 1}

    def open_valve(parameters: dict[str, Any]) -> dict[str, Any]:
        carried_out.append(parameters)
        return {"opened": parameters["to"]}

    scripts = commander(asked, asked, replies=first), commander(asked, replies=second), acknowledge_all
    async with scripted(*scripts) as server:
        device = Device("127.0.0.1", "valve", server.port)
        device.on_command("open", open_valve)
        device.start()
        async with asyncio.timeout(30):
            while not second:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        device.send("position", 0.5)
        assert await asyncio.to_thread(device.close)
    assert carried_out == [{"to": 0.5}]
    reply = {"id": "c1", "result": {"opened": 0.5}}
    assert first == [{"id": "c1", "received": True}, reply, reply]
    assert second == [reply]
    assert server.lines[0][0] == {"hello": {"device": "valve", "ack": True, "commands": True}}


async def test_a_reply_that_was_cut_off_is_sent_again() -> None:
    first: list[Any] = []
    second: list[Any] = []
    asked = {"id": "c1", "name": "open", "parameters": {}}
    async with scripted(commander(asked, replies=first, is_kept=False), hear_one(second), acknowledge_all) as server:
        device = Device("127.0.0.1", "valve", server.port)
        device.on_command("open", lambda _: True)
        device.start()
        async with asyncio.timeout(30):
            while not second:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        device.send("position", 0.5)
        assert await asyncio.to_thread(device.close)
    assert second == first[1:] == [{"id": "c1", "result": True}]
    assert [len(lines) for lines in server.lines] == [3, 2, 2], "and no more once it is kept"


async def test_what_a_handler_raises_returns_or_lacks_is_an_error_in_the_reply() -> None:
    replies: list[Any] = []
    names = "fails", "odd", "unknown"
    async with scripted(
        commander(*({"id": name, "name": name} for name in names), replies=replies), acknowledge_all
    ) as server:
        device = Device("127.0.0.1", "valve", server.port)
        device.on_command("fails", lambda _: 1 / 0)
        device.on_command("odd", lambda _: object())
        device.start()
        with pytest.raises(RuntimeError):
            device.on_command("late", lambda _: None)
        async with asyncio.timeout(30):
            while len(replies) < 6:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.to_thread(device.close)
    errors = {one["id"]: one["error"] for one in replies if "error" in one}
    assert errors["fails"] == "ZeroDivisionError: division by zero"
    assert errors["odd"].startswith("TypeError")
    assert errors["unknown"] == "LookupError: there is no command 'unknown'"


def test_the_replies_to_the_last_commands_are_remembered_and_no_more() -> None:
    commands = module._Commands()
    for number in range(module.KNOWN_COMMANDS + 1):
        commands.carry_out({"id": str(number), "name": "none"})
    assert commands.known("0") is None
    assert commands.known("1") is not None


async def test_it_speaks_tls_and_many_threads_may_send(tmp_path: Path, tool: Callable[..., str]) -> None:
    authority = await asyncio.to_thread(Authority, tmp_path, tool("openssl"))
    server = await asyncio.to_thread(authority.sign, "server", "IP:127.0.0.1")
    async with listening(tls_certificate=server.certificate, tls_key=server.key) as connector:
        trust = ssl.create_default_context(cafile=str(authority.certificate))
        device = Device("127.0.0.1", "pump-7", connector.tls_port, tls=trust)
        device.start()

        def send(begin: int) -> None:
            for number in range(begin, begin + 500):
                device.send("t", number)

        await asyncio.gather(*(asyncio.to_thread(send, begin) for begin in (0, 500, 1000, 1500)))
        assert await asyncio.to_thread(device.close, 20.0)
        assert device.counts.acknowledged == 2000
    assert sorted(connector.producer.values_of("pump-7/t")) == list(range(2000))


def test_what_is_not_finite_is_refused_at_once() -> None:
    device = Device("127.0.0.1", "pump-7")
    with pytest.raises(ValueError, match="expected a finite number"):
        device.send("t", float("nan"))
    with pytest.raises(ValueError, match="at least 1"):
        Device("127.0.0.1", "pump-7", capacity=0)
