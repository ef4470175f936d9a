"""The command line by itself: helpful without a stack, exact about what is wrong."""

import doctest
import json
import subprocess
from pathlib import Path

import pytest

from connectors.examples import elsys
from isotherm import __version__
from isotherm.cli import COMMANDS, output
from isotherm.cli.lazy import LazyCommand
from tests.support.stack import ISOTHERM


def isotherm(*arguments: str, directory: Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ISOTHERM, *arguments], cwd=directory, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_explains_itself_as_the_list_of_commands_does(command: LazyCommand, tmp_path: Path) -> None:
    assert command.help == " ".join(str(command.load().help).partition("\n\n")[0].split())
    shown = isotherm(str(command.name), "--help", directory=tmp_path)
    assert shown.returncode == 0
    assert f"isotherm {command.name} [" in shown.stdout


HEAVY = {"aiohttp", "aiokafka", "faust", "matplotlib", "numpy", "panel", "pandas", "pyarrow", "pydantic", "redis"}


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        ("-h", set()),
        ("--version", set()),
        ("query -h", {"pydantic"}),
        ("export -h", {"pydantic"}),
        ("decode -h", {"pydantic"}),
        ("devices -h", {"aiokafka", "numpy", "pyarrow", "pydantic", "redis"}),
    ],
)
def test_a_command_does_not_wait_for_what_others_import(arguments: str, needed: set[str], tmp_path: Path) -> None:
    program = (
        "import sys, atexit; from isotherm.cli import main; atexit.register(lambda: print(*sys.modules, file=sys.stderr));"
        f"sys.argv = {['isotherm', *arguments.split()]}; main()"
    )
    ran = subprocess.run([ISOTHERM[0], "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    imported = set(ran.stderr.split())
    assert "isotherm.cli" in imported
    assert imported & HEAVY <= needed


def test_it_knows_its_version(tmp_path: Path) -> None:
    shown = isotherm("--version", directory=tmp_path)
    assert (shown.returncode, shown.stdout) == (0, f"isotherm {__version__}\n")
    assert f'version = "{__version__}"' in (Path(__file__).parents[1] / "pyproject.toml").read_text()


def test_a_command_that_is_none_is_answered_with_one_that_is_near(tmp_path: Path) -> None:
    failed = isotherm("quey", directory=tmp_path)
    assert failed.returncode == 2
    assert "No such command 'quey'. Did you mean 'query'?" in failed.stderr


@pytest.mark.parametrize(
    "command",
    [("devices",), ("query", "a", "b"), ("ledger",), ("tail",), ("export", "x.csv"), ("alarms",), ("users", "list")],
)
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
        (("users", "role", "ada", "king"), "expected viewer, operator, admin"),
        (("users", "add", "../etc"), "a name consists of letters, digits"),
        (("export", "x.txt"), "a file named 'x.txt', expected csv or parquet"),
        (("export", "x", "--format", "xlsx"), "'xlsx', expected csv or parquet"),
        (("export", "-", "--format", "parquet"), "standard output takes csv only"),
        (("export", "x.csv", "--since", "yesterday"), "expected ISO 8601 such as"),
        (("export", "x.csv", "--since", "2026-01-01", "--last", "1h"), "--last and --since exclude each other"),
        (("export", "x.csv", "--until", "1999-01-01"), "before anything that is kept"),
        (("import", "x"), "a file named 'x', expected csv or parquet"),
        (("capacity", "--series", "0", "--rate", "1"), "--series"),
        (("capacity", "--series", "1", "--rate", "-1"), "expected more than 0"),
        (("decode", "nowhere.bin"), "nowhere.bin cannot be read"),
        (("decode", "/dev/null", "--hex"), "/dev/null holds no payload, expected hexadecimal digits"),
        (("decode", "/dev/null", "--type", "smoke"), "there is no format 'smoke'; there are graphite, influx"),
        (("decode", "/dev/null", "--decoders", "nowhere.py"), "nowhere.py cannot be loaded"),
    ],
)
def test_wrong_arguments_are_named_with_what_was_expected(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    failed = isotherm(*arguments, directory=tmp_path)
    assert failed.returncode != 0
    assert said in " ".join(failed.stderr.replace("│", " ").split())
    assert "Traceback" not in failed.stderr


FRAME = "0100e202290400270506060308070d62"
ELSYS = ("--hex", "--type", "elsys-ers", "--decoders", elsys.__file__)


@pytest.mark.parametrize("written", [FRAME, FRAME.upper(), "0x" + FRAME, "01:00:e2:02:29\n\n01 00 e2\n01-00-e2"])
def test_a_frame_is_decoded_without_a_stack(written: str, tmp_path: Path) -> None:
    (tmp_path / "frame.hex").write_text(written)
    shown = isotherm("decode", "frame.hex", *ELSYS, directory=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    head, titles, first, *_ = shown.stdout.splitlines()
    assert head == "read as decoder:elsys-ers"
    assert titles.split()[-4:] == ["name", "value", "unit", "time"]
    assert first.split()[-4:-1] == ["temperature", "22.6", "Cel"]


def test_what_would_be_refused_is_shown_and_the_command_fails(tmp_path: Path) -> None:
    failed = isotherm("decode", "-", *ELSYS, directory=tmp_path, stdin=f"{FRAME}\n01:00\n")
    assert failed.returncode == 1
    assert "2        malformed  decoder elsys-ers: ValueError: the frame ends within temperature  01 00" in failed.stdout
    wrong = isotherm("decode", "-", *ELSYS, directory=tmp_path, stdin=f"{FRAME}\n0100e\n")
    assert wrong.returncode == 1
    assert "line 2: '0100e' is no payload in hexadecimal" in wrong.stderr


def test_decoding_can_print_json(tmp_path: Path) -> None:
    failed = isotherm(
        "decode",
        "-",
        "--json",
        directory=tmp_path,
        stdin='[{"n":"d/t","u":"Cel","v":1,"t":5},{"n":"d/fw","vs":"1"},{"n":"x"}]',
    )
    assert failed.returncode == 1
    [trial] = json.loads(failed.stdout)
    assert trial["type"] == "senml-json"
    assert [(one["name"], one["value"], one["unit"]) for one in trial["readings"]] == [("d/t", 1, "Cel")]
    assert [(one["name"], one["text"]) for one in trial["attributes"]] == [("d/fw", "1")]
    assert [(one["reason"], one["at"], one["hex"]) for one in trial["rejects"]] == [("no_value", 3, b'{"n":"x"}'.hex())]


def test_what_devices_send_is_printed_as_it_is(tmp_path: Path) -> None:
    shown = isotherm("decode", "-", "--type", "thingsboard", directory=tmp_path, stdin='{"a":["[bold]x[/b]", ":smile:"]}')
    assert shown.returncode == 0
    assert '["[bold]x[/b]",":smile:"]' in shown.stdout


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


def test_what_would_control_a_terminal_is_written_out() -> None:
    assert doctest.testmod(output).failed == 0
    assert output.shown("21.5 °C") == "21.5 °C"
    assert output.as_shown("\x1b[2J") == "\x1b[2J"  # a file or a pipe gets what was sent
