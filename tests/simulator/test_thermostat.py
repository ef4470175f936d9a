"""What simulated devices do when they are asked, and how they are configured."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from simulator.firmware import Load
from simulator.thermostat import FIRST_FIRMWARE, Thermostat

DATA = bytes(1_000)


def command(name: str, id: str = "1", **parameters: object) -> dict[str, Any]:
    return {"id": id, "device": "room-1", "name": name, "parameters": parameters}


def replies(thermostat: Thermostat, asked: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what it replies at once."""
    said: list[Mapping[str, Any]] = []
    thermostat.obey(asked, said.append)
    return said


def test_an_offset_is_kept_and_told() -> None:
    thermostat = Thermostat()
    said = replies(thermostat, command("offset", celsius=2.5))
    assert said == [{"id": "1", "device": "room-1", "result": {"celsius": 2.5}}]
    assert thermostat.offset == 2.5


def test_a_command_that_comes_again_is_answered_again_and_not_done_again() -> None:
    thermostat = Thermostat()
    first = replies(thermostat, command("offset", celsius=2.5))
    replies(thermostat, command("offset", "2", celsius=1))
    assert replies(thermostat, command("offset", celsius=2.5)) == first
    assert thermostat.offset == 1


@pytest.mark.parametrize(
    "asked", [command("fly"), command("offset"), command("offset", celsius=99), command("offset", celsius="x")]
)
def test_what_it_cannot_do_it_says(asked: dict[str, Any]) -> None:
    thermostat = Thermostat()
    (said,) = replies(thermostat, asked)
    assert set(said) == {"id", "device", "error"}
    assert thermostat.offset == 0


def configure(**values: Any) -> dict[str, Any]:
    return command("configure", "configuration-1", version=1, values=values)


def test_it_is_configured_and_reports_all_that_it_has() -> None:
    thermostat = Thermostat()
    (said,) = replies(thermostat, configure(interval=5, calibration=-0.5))
    assert said["result"] == {"interval": 5, "calibration": -0.5, "firmware": FIRST_FIRMWARE}
    (said,) = replies(thermostat, configure(interval=2))
    assert said["result"] == {"interval": 2, "calibration": 0.0, "firmware": FIRST_FIRMWARE}


@pytest.mark.parametrize("values", [{"colour": 1}, {"interval": 0}, {"interval": True}, {"calibration": "x", "interval": 5}])
def test_of_what_it_cannot_be_nothing_is_taken_over(values: dict[str, Any]) -> None:
    thermostat = Thermostat()
    (said,) = replies(thermostat, configure(**values))
    assert next(iter(values)) in said["error"]
    assert thermostat.interval is None


def load(pieces: list[bytes]) -> Load:
    async def load(_: Mapping[str, Any]) -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return load


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([DATA[:550], DATA[550:]], {"result": {"calibration": 0.0, "firmware": "2.0"}}),
        ([DATA[:550]], "another SHA-256"),
        ([b"x" * 1_000], "another SHA-256"),
    ],
)
async def test_firmware_is_loaded_checked_and_started(pieces: list[bytes], expected: Any) -> None:
    thermostat = Thermostat(load(pieces))
    told = {"version": "2.0", "size": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest(), "path": "firmware/lamp/2.0"}
    said: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
    thermostat.obey(configure(firmware=told), said.put_nowait)
    about = {"id": "configuration-1", "device": "room-1"}
    async with asyncio.timeout(10):
        while "progress" in (last := await said.get()):
            assert last == {**about, "progress": 55}
    if "error" in last:
        assert expected in last["error"]
        assert thermostat.firmware == FIRST_FIRMWARE
    else:
        assert last == {**about, **expected}
    await thermostat.close()


def test_without_a_way_to_load_it_says_so() -> None:
    thermostat = Thermostat()

    async def ask() -> Mapping[str, Any]:
        said: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        thermostat.obey(configure(firmware={"version": "2.0"}), said.put_nowait)
        return await said.get()

    assert "no way" in asyncio.run(ask())["error"]
