"""The C client, compiled with sanitizers."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import isotherm
from tests.conftest import missing
from tests.connectors.test_tcp import listening
from tests.contracts.device import DeviceContract

SOURCE = Path(isotherm.__file__).parent / "device" / "c"
FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-g", "-fsanitize=address,undefined")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory, tool: Callable[..., str]) -> str:
    program = tmp_path_factory.mktemp("c") / "example"
    sources = [str(SOURCE / name) for name in ("example.c", "isotherm.c")]
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


def test_the_makefile_builds_it(tmp_path: Path, tool: Callable[..., str]) -> None:
    for source in SOURCE.iterdir():
        if source.suffix in (".c", ".h") or source.name == "Makefile":
            (tmp_path / source.name).write_bytes(source.read_bytes())
    tool("gcc", "cc")
    subprocess.run([tool("make"), "-C", str(tmp_path)], check=True, capture_output=True, env=dict(os.environ))
    assert (tmp_path / "example").exists()
