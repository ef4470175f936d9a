"""What every device SDK promises, in whatever language it is. A test class inherits this and says how to run its example.

The example takes HOST PORT DEVICE [TOKEN [CAPACITY [SECONDS]]], and readings on standard input, a line each, METRIC UNIT
VALUE [TIME]; it prints what it counted as one JSON object.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from isotherm.clock import now_us
from tests.connectors.test_tcp import listening
from tests.support.ports import free_port
from tests.support.stack import Stack

VALUES = (21.5, -0.0, 0.1, 1 / 3, 1e300, 5e-324, 123456789.123456789, 1.7976931348623157e308, 1e22, 3.0)


class Running:
    """A device's program."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def say(self, *lines: str) -> None:
        """Give it readings."""
        assert self._process.stdin is not None
        self._process.stdin.write("".join(line + "\n" for line in lines).encode())
        try:
            await self._process.stdin.drain()
        except ConnectionError as error:
            out, errors = await self._process.communicate()
            raise AssertionError(f"it has ended with {self._process.returncode}: {out!r} {errors!r}") from error

    async def end(self) -> dict[str, Any]:
        """Give it no more; returns what it counted."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        out, errors = await asyncio.wait_for(self._process.communicate(), 120)
        assert b"ERROR: " not in errors, errors.decode()  # a sanitizer's
        assert b"runtime error" not in errors, errors.decode()
        assert b"Traceback" not in errors, errors.decode()
        return dict(json.loads(out))

    def kill(self) -> None:
        """End it, if it runs."""
        if self._process.returncode is None:
            self._process.kill()


class Scripted:
    """A server that does with each connection as it is told.

    Attributes:
        lines: What came on each connection, the hello first.
    """

    def __init__(self, *scripts: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> None:
        self.port = 0
        self.lines: list[list[dict[str, Any]]] = []
        self._scripts = list(scripts)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        seen: list[dict[str, Any]] = []
        self.lines.append(seen)
        script = self._scripts.pop(0)

        async def hear() -> dict[str, Any] | None:
            line = await reader.readline()
            if not line.endswith(b"\n"):
                return None
            seen.append(json.loads(line))
            return seen[-1]

        def say(line: bytes = b"", **answer: Any) -> None:
            writer.write((line or json.dumps(answer, separators=(",", ":")).encode()) + b"\n")

        try:
            await script(hear, say)  # type: ignore[arg-type]
            writer.write_eof()  # what was acknowledged arrives: a close with unread lines may reset the connection
            while await reader.read(65536):
                pass
        finally:
            writer.close()


@asynccontextmanager
async def scripted(*scripts: Any) -> AsyncIterator[Scripted]:
    """A server with a script for each connection: an async function of ``hear()`` and ``say(**answer)`` or ``say(line)``."""
    server = Scripted(*scripts)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


def cut_after(heard: int, acknowledged: int) -> Any:
    """Return a script: hear readings, acknowledge some of them, and close."""

    async def script(hear: Any, say: Any) -> None:
        await hear()
        for number in range(1, heard + 1):
            await hear()
            if number <= acknowledged:
                say(ack=number)

    return script


async def acknowledge_all(hear: Any, say: Any) -> None:
    """A script: acknowledge what comes."""
    await hear()
    number = 0
    while (line := await hear()) is not None:
        if "reply" in line:
            say(replied=line["reply"]["id"])
        else:
            number += 1
            say(ack=number)


class DeviceContract(ABC):
    """The promises."""

    @abstractmethod
    def command(self, tmp_path: Path, tool: Callable[..., str]) -> Sequence[str]:
        """Return how its example is started."""

    def environment(self) -> dict[str, str]:
        """Return what its example finds in its environment."""
        return dict(os.environ)

    @asynccontextmanager
    async def running(
        self, tmp_path: Path, tool: Callable[..., str], port: int, *options: str, device: str = "pump-7"
    ) -> AsyncIterator[Running]:
        process = await asyncio.create_subprocess_exec(
            *self.command(tmp_path, tool),
            *("127.0.0.1", str(port), device, *options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment(),
        )
        running = Running(process)
        try:
            yield running
        finally:
            running.kill()
            await process.wait()

    async def test_readings_arrive_with_unit_time_number_and_the_very_value(
        self, tmp_path: Path, tool: Callable[..., str]
    ) -> None:
        at = now_us()
        lines = [f"t{number} Cel {value!r} {at + number}" for number, value in enumerate(VALUES)]
        async with listening() as connector:
            async with self.running(tmp_path, tool, connector.port) as device:
                await device.say(*lines, "temperature - 1")
                counted = await device.end()
            assert (counted["status"], counted["acknowledged"], counted["pending"]) == (0, len(VALUES) + 1, 0)
        for number, value in enumerate(VALUES):
            [got] = connector.producer.values_of(f"pump-7/t{number}")
            assert got == value
        packs = [pack for packs in connector.producer.packs.values() for pack in packs]
        assert {unit for pack in packs for unit in pack.units.values()} == {"Cel"}
        times = {pack.names[code]: time for pack in packs for code, time in zip(pack.series, pack.time, strict=True)}
        assert [abs(int(times[f"pump-7/t{number}"]) - at - number) <= 1 for number in range(len(VALUES))]
        assert connector.account.rejected == {}

    async def test_what_was_not_acknowledged_is_sent_again_with_its_number_and_nothing_else(
        self, tmp_path: Path, tool: Callable[..., str]
    ) -> None:
        scripts = cut_after(0, 0), cut_after(1, 0), cut_after(20, 7), cut_after(3, 3), acknowledge_all
        async with scripted(*scripts) as server, self.running(tmp_path, tool, server.port, "s-1", "1000") as device:
            await device.say(*(f"t Cel {number}" for number in range(50)))
            counted = await device.end()
        assert (counted["status"], counted["acknowledged"], counted["dropped"], counted["connections"]) == (0, 50, 0, 5)
        assert all(lines[0]["hello"] == {"device": "pump-7", "token": "s-1", "ack": True} for lines in server.lines if lines)
        sent = [[line["v"] for line in lines[1:]] for lines in server.lines]
        assert sent[1] == [0]
        assert sent[2][0] == 0
        assert sent[3][0] == 7
        assert sent[4] == list(range(10, 50))
        numbers = {line["v"]: line["seq"] for lines in server.lines for line in lines[1:]}
        assert [numbers[value] for value in range(50)] == list(range(numbers[0], numbers[0] + 50))
        again = {(line["v"], line["seq"], line["t"]) for lines in server.lines for line in lines[1:]}
        assert len(again) == 50

    async def test_it_waits_for_a_server_that_is_away(self, tmp_path: Path, tool: Callable[..., str]) -> None:
        port = free_port()
        async with self.running(tmp_path, tool, port) as device:
            await device.say(*(f"t Cel {number}" for number in range(10)))
            async with listening(tcp_port=port) as connector:
                counted = await device.end()
        assert (counted["status"], counted["acknowledged"]) == (0, 10)
        assert connector.producer.values_of("pump-7/t") == list(range(10))

    async def test_it_keeps_what_kafka_does_not_take_yet(self, tmp_path: Path, tool: Callable[..., str]) -> None:
        async with listening() as connector:
            connector.producer.on.clear()
            async with self.running(tmp_path, tool, connector.port) as device:
                await device.say("t Cel 1", "t Cel 2")
                ending = asyncio.create_task(device.end())
                await connector.taken(1)
                assert not ending.done()
                connector.producer.on.set()
                counted = await ending
        assert (counted["status"], counted["acknowledged"]) == (0, 2)

    async def test_a_reading_that_is_refused_holds_up_no_other(self, tmp_path: Path, tool: Callable[..., str]) -> None:
        async with listening() as connector:
            async with self.running(tmp_path, tool, connector.port) as device:
                await device.say("t Cel 1", "<b> Cel 2", "t Cel 3", 'a"\\b Cel 4', "t Cel 5")
                counted = await device.end()
            assert (counted["acknowledged"], counted["refused"], counted["pending"]) == (3, 2, 0)
        assert connector.producer.values_of("pump-7/t") == [1, 3, 5]
        assert connector.account.rejected == {"name": 2}, "the names arrive as they are"

    async def test_a_wrong_token_loses_nothing_and_sends_little(self, tmp_path: Path, tool: Callable[..., str]) -> None:
        async with listening(auth="token") as connector:
            connector.registry.add("pump-7")
            async with self.running(tmp_path, tool, connector.port, "wrong", "1000", "2") as device:
                await device.say(*(f"t Cel {number}" for number in range(100)))
                counted = await device.end()
            assert (counted["status"], counted["pending"], counted["acknowledged"]) == (-4, 100, 0)
            assert connector.account.rejected["auth"] <= counted["connections"] <= 6
            async with self.running(tmp_path, tool, connector.port, "s-pump-7") as device:
                await device.say("t Cel 1")
                assert (await device.end())["status"] == 0

    async def test_where_there_is_no_room_the_oldest_are_lost_and_counted(
        self, tmp_path: Path, tool: Callable[..., str]
    ) -> None:
        async with self.running(tmp_path, tool, free_port(), "-", "10", "1") as device:
            await device.say(*(f"t Cel {number}" for number in range(25)))
            counted = await device.end()
        assert (counted["status"], counted["pending"], counted["dropped"]) == (-3, 10, 15)

    @pytest.mark.servers
    @pytest.mark.timeout(300)
    async def test_a_connector_that_is_killed_loses_nothing_and_nothing_is_stored_twice(
        self, tmp_path: Path, tool: Callable[..., str]
    ) -> None:
        readings = 3_000
        killed: list[int] = []
        stack = await asyncio.to_thread(Stack(tmp_path / "stack", "--no-simulator").__enter__)
        try:
            async with self.running(tmp_path, tool, stack.ports.tcp, "-", "10000") as device:
                for begin in range(0, readings, 100):
                    await device.say(*(f"t Cel {number}" for number in range(begin, begin + 100)))
                    if begin in (500, 1500):
                        killed.append(await eventually_other(stack, killed))
                        os.kill(killed[-1], signal.SIGKILL)
                    await asyncio.sleep(0.1)
                counted = await device.end()
            assert (counted["status"], counted["acknowledged"], counted["dropped"]) == (0, readings, 0)
            assert counted["connections"] >= 2
            values = await asyncio.to_thread(stored, stack, readings)
            assert values == list(range(readings))
        finally:
            await asyncio.to_thread(stack.stop)


async def eventually_other(stack: Stack, killed: Sequence[int]) -> int:
    """Return the process id of the connector once it is none of those that were killed."""
    async with asyncio.timeout(60):
        while (pid := stack.pid_of("tcp")) in killed:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return pid


def stored(stack: Stack, count: int, seconds: float = 60.0) -> list[float]:
    """Return the values that are stored once there are so many."""
    deadline = time.monotonic() + seconds
    while True:
        header, *exported = stack.run("export", "-", "--series", "pump-7/t").stdout.splitlines() or [""]
        if len(exported) >= count or time.monotonic() > deadline:
            assert len(exported) == count, (len(exported), exported[:3])
            return sorted(float(row["last"]) for row in csv.DictReader([header, *exported]))
        time.sleep(0.5)
