"""The Raspberry Pi's publisher, over files as the kernel shows them."""

import subprocess
import sys
from pathlib import Path

import pytest

from simulator.pi import main, read_sensors

GOOD = "4b 01 4b 46 7f ff 0c 10 d8 : crc=d8 YES\n4b 01 4b 46 7f ff 0c 10 d8 t={}\n"


def bus(directory: Path, **sensors: str) -> Path:
    for name, content in sensors.items():
        folder = directory / name.replace("_", "-")
        folder.mkdir()
        (folder / "w1_slave").write_text(content)
    return directory


def test_one_sensor_is_the_temperature(tmp_path: Path) -> None:
    assert read_sensors(bus(tmp_path, **{"28_0316": GOOD.format(20687)}), tmp_path / "none") == [("temperature", 20.687)]


def test_frost_is_below_zero(tmp_path: Path) -> None:
    assert read_sensors(bus(tmp_path, **{"28_1": GOOD.format(-62)}), tmp_path / "none") == [("temperature", -0.062)]


def test_several_sensors_have_their_own_metrics(tmp_path: Path) -> None:
    found = read_sensors(bus(tmp_path, **{"28_a": GOOD.format(1000), "28_b": GOOD.format(2000)}), tmp_path / "none")
    assert found == [("temperature-28-a", 1.0), ("temperature-28-b", 2.0)]


def test_a_bad_checksum_and_the_power_on_value_are_no_readings(tmp_path: Path) -> None:
    bad = GOOD.format(20687).replace("YES", "NO")
    assert read_sensors(bus(tmp_path, **{"28_a": bad, "28_b": GOOD.format(85000)}), tmp_path / "none") == []


def test_without_a_sensor_the_processors_temperature_is_read(tmp_path: Path) -> None:
    cpu = tmp_path / "temp"
    cpu.write_text("48312\n")
    assert read_sensors(tmp_path, cpu) == [("cpu_temperature", 48.312)]
    assert read_sensors(tmp_path, tmp_path / "none") == []


def test_it_needs_the_standard_library_alone_over_tcp() -> None:
    program = (
        "import sys, simulator.pi;"
        "third = {'msgspec', 'numpy', 'pyarrow', 'gmqtt', 'aiocoap', 'pydantic', 'isotherm'} & set(sys.modules);"
        "sys.exit(f'imported {third}' if third else 0)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "nowhere"], "expected HOST:PORT"),
        (["--target", "a:99999"], "expected HOST:PORT"),
        (["--target", "a:1", "--interval", "0"], "expected more than 0"),
        (["--target", "a:1", "--interval", "nan"], "expected more than 0"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert said in capsys.readouterr().err
