"""The command line by itself: helpful without a stack, exact about what is wrong."""

import subprocess
from pathlib import Path

import pytest

from tests.support.stack import ISOTHERM


def isotherm(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ISOTHERM, *arguments], cwd=directory, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "command",
    ["up", "connect", "worker", "web", "simulate", "devices", "query", "tail", "ledger"],
)
def test_every_command_explains_itself(command: str, tmp_path: Path) -> None:
    shown = isotherm(command, "--help", directory=tmp_path)
    assert shown.returncode == 0
    assert "Usage" in shown.stdout


@pytest.mark.parametrize("command", [("devices",), ("query", "a", "b"), ("ledger",), ("tail",)])
def test_without_a_stack_it_says_how_to_start_one(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISOTHERM_REDIS", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("ISOTHERM_KAFKA", "127.0.0.1:1")
    failed = isotherm(*command, directory=tmp_path)
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "does not answer" in failed.stderr
    assert "start one with `isotherm up`" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("query", "a", "b", "--last", "soon"), "expected a duration such as 90s"),
        (("simulate", "--protocol", "smoke"), "expected one of tcp, http, mqtt, coap"),
        (("simulate", "--target", "nowhere"), "expected HOST:PORT"),
        (("connect", "smoke"), "expected tcp, http, mqtt, coap, or a Python file"),
        (("tail", "everything"), "expected one of readings, rejects"),
        (("up", "--port-base", "80"), "--port-base is 80, expected 1024 to"),
        (("up", "--devices", "0"), "--devices"),
    ],
)
def test_wrong_arguments_are_named_with_what_was_expected(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    failed = isotherm(*arguments, directory=tmp_path)
    assert failed.returncode != 0
    assert said in " ".join(failed.stderr.replace("│", " ").split())
    assert "Traceback" not in failed.stderr


def test_a_simulation_that_nobody_acknowledges_fails_and_says_why(tmp_path: Path) -> None:
    program = (
        "import simulator.fleet as f; f.GIVE_UP_SECONDS = 0.5; from isotherm.cli import main; import sys;"
        "sys.argv = ['isotherm', 'simulate', '--target', '127.0.0.1:1', '--for', '1', '--devices', '2']; main()"
    )
    failed = subprocess.run(
        [ISOTHERM[0], "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert failed.returncode == 1
    assert "sent 2, acknowledged 0" in failed.stdout
    assert "Connect call failed" in failed.stdout
