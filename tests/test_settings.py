"""Settings, and how a command finds the running local stack."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from isotherm import stackfile
from isotherm.errors import SettingsError, StackError
from isotherm.settings import PREFIX, Settings

SAMPLE = Path(__file__).parents[1] / "infra" / "sample.env"


def test_every_setting_is_documented_with_its_default_in_sample_env() -> None:
    documented = dict(re.findall(r"^#? ?(ISOTHERM_\w+)=(.*)$", SAMPLE.read_text(), re.MULTILINE))
    expected = {
        PREFIX + name.upper(): "" if field.default is None else str(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert documented == expected


def test_an_impossible_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOTHERM_PARTITIONS", "many")
    with pytest.raises(SettingsError, match="ISOTHERM_PARTITIONS is 'many'"):
        Settings.load()


def test_a_running_stack_gives_its_addresses_and_a_variable_overrides_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stackfile.held(tmp_path, {"kafka": "127.0.0.1:1", "redis": "redis://127.0.0.1:2/0"}):
        assert Settings.load(data_dir=tmp_path).kafka == "127.0.0.1:1"
        monkeypatch.setenv("ISOTHERM_KAFKA", "elsewhere:9092")
        found = Settings.load(data_dir=tmp_path)
        assert (found.kafka, found.redis) == ("elsewhere:9092", "redis://127.0.0.1:2/0")
    assert Settings.load(data_dir=tmp_path).redis == Settings().redis


def test_two_stacks_cannot_share_a_data_directory(tmp_path: Path) -> None:
    with stackfile.held(tmp_path, {}), pytest.raises(StackError, match=r"runs in .* already"), stackfile.held(tmp_path, {}):
        raise AssertionError("unreachable")
    with stackfile.held(tmp_path, {}):
        pass


def test_the_file_of_a_killed_stack_is_not_believed(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from isotherm import stackfile\n"
        "with stackfile.held(Path(sys.argv[1]), {'kafka': 'gone:1'}): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert (tmp_path / "stack.json").read_bytes()
    assert stackfile.read(tmp_path) is None
