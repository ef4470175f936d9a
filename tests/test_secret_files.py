"""Secrets as files: what is read, what goes before what, and what is refused."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from isotherm import stackfile
from isotherm.errors import SettingsError
from isotherm.secret_files import MAX_SECRET_BYTES
from isotherm.settings import Settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of secrets that the settings are read from."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("ISOTHERM_SECRETS_DIR", str(folder))
    return folder


def put(folder: Path, name: str, text: str) -> None:
    (folder / name).write_bytes(text.encode())


@pytest.mark.parametrize(
    ("text", "value"), [("secret", "secret"), ("secret\n", "secret"), ("secret\r\n", "secret"), (" a\tb \n\n", " a\tb ")]
)
def test_a_file_gives_its_text_without_the_line_ends_at_its_end(folder: Path, text: str, value: str) -> None:
    put(folder, "ISOTHERM_MQTT_PASSWORD", text)
    assert Settings.load().mqtt_password == value


def test_an_empty_file_says_nothing(folder: Path) -> None:
    put(folder, "ISOTHERM_MQTT_PASSWORD", "\n")
    assert Settings.load().mqtt_password is None


def test_numbers_switches_and_json_are_read_like_variables(folder: Path) -> None:
    put(folder, "ISOTHERM_PARTITIONS", "4\n")
    put(folder, "ISOTHERM_MQTT_TLS", "true\n")
    put(folder, "ISOTHERM_OIDC_ROLES", '{"*": "viewer"}\n')
    found = Settings.load()
    assert (found.partitions, found.mqtt_tls, found.oidc_roles) == (4, True, {"*": "viewer"})


def test_arguments_go_before_variables_variables_before_files_and_files_before_a_local_stack(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KAFKA", "REDIS", "MQTT"):
        put(folder, f"ISOTHERM_{name}", f"{name.lower()}-file:1")
    monkeypatch.setenv("ISOTHERM_REDIS", "redis://variable")
    monkeypatch.setenv("ISOTHERM_MQTT", "variable:1")
    with stackfile.held(tmp_path, {"kafka": "stack:1", "redis": "redis://stack", "mqtt": "stack:1", "tcp_port": 9}):
        found = Settings.load(data_dir=tmp_path, mqtt="argument:1")
    assert (found.mqtt, found.redis, found.kafka, found.tcp_port) == ("argument:1", "redis://variable", "kafka-file:1", 9)


def test_the_data_directory_may_come_from_a_file(folder: Path, tmp_path: Path) -> None:
    put(folder, "ISOTHERM_DATA_DIR", f"{tmp_path}\n")
    with stackfile.held(tmp_path, {"kafka": "stack:1"}):
        assert Settings.load().kafka == "stack:1"


def test_a_mounted_secret_of_kubernetes_is_read_and_read_anew_when_it_is_exchanged(folder: Path) -> None:
    def mount(version: str, password: str) -> None:
        (folder / version).mkdir()
        put(folder / version, "ISOTHERM_MQTT_PASSWORD", password)
        (folder / "..data_tmp").symlink_to(version)
        (folder / "..data_tmp").replace(folder / "..data")

    mount("..2026_11_28_17_00_00.1", "old")
    (folder / "ISOTHERM_MQTT_PASSWORD").symlink_to("..data/ISOTHERM_MQTT_PASSWORD")
    assert Settings.load().mqtt_password == "old"
    mount("..2026_11_28_18_00_00.2", "new")
    assert Settings.load().mqtt_password == "new"


def test_folders_beside_the_files_are_let_be(folder: Path) -> None:
    (folder / "kubernetes.io").mkdir()
    put(folder, "ISOTHERM_KAFKA", "kafka:9092")
    assert Settings.load().kafka == "kafka:9092"


def test_a_child_is_handed_what_files_said_and_needs_them_no_more(folder: Path) -> None:
    put(folder, "ISOTHERM_MQTT_PASSWORD", " two words ")
    put(folder, "ISOTHERM_OIDC_ROLES", '{"*": "viewer"}')
    environment = {**os.environ, **Settings.load().environment()}
    (folder / "ISOTHERM_MQTT_PASSWORD").unlink()
    folder.joinpath("ISOTHERM_OIDC_ROLES").unlink()
    folder.rmdir()
    program = "from isotherm.settings import Settings; s = Settings.load(); print(repr((s.mqtt_password, s.oidc_roles)))"
    shown = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    assert shown.stdout == "(' two words ', {'*': 'viewer'})\n"


def _gone(folder: Path) -> None:
    folder.rmdir()


def _file(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("")


def _dangling(folder: Path) -> None:
    (folder / "ISOTHERM_REDIS").symlink_to("..data/ISOTHERM_REDIS")


def _loop(folder: Path) -> None:
    (folder / "ISOTHERM_REDIS").symlink_to("ISOTHERM_REDIS")


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "ISOTHERM_REDIS")


def _directory(folder: Path) -> None:
    (folder / "ISOTHERM_REDIS").mkdir()


def _binary(folder: Path) -> None:
    (folder / "ISOTHERM_REDIS").write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_gone, r"ISOTHERM_SECRETS_DIR is '.*/secrets': No such file or directory; mount the secrets there"),
        (_file, r"ISOTHERM_SECRETS_DIR is '.*/secrets': Not a directory"),
        (_dangling, r"cannot read .*/ISOTHERM_REDIS: it is a link to a file that is not there"),
        (_loop, r"cannot read .*/ISOTHERM_REDIS: "),
        (_fifo, r"cannot read .*/ISOTHERM_REDIS: it is no file"),
        (_directory, r"cannot read .*/ISOTHERM_REDIS: it is no file"),
        (_binary, r"ISOTHERM_REDIS is no UTF-8 text, expected the value of ISOTHERM_REDIS"),
        (lambda folder: put(folder, "ISOTHERM_REDIS", "a\0b"), "ISOTHERM_REDIS has a null character"),
        (lambda folder: put(folder, "ISOTHERM_REDIS", "x" * (MAX_SECRET_BYTES + 1)), "more than 65,536 bytes"),
        (lambda folder: put(folder, "ISOTHERM_REDSI", ""), "no setting ISOTHERM_REDSI, did you mean ISOTHERM_REDIS?"),
        (lambda folder: put(folder, "isotherm_redis", ""), "no setting isotherm_redis, did you mean ISOTHERM_REDIS?"),
        (lambda folder: put(folder, "ISOTHERM_SECRETS_DIR", "/"), "no setting ISOTHERM_SECRETS_DIR"),
        (lambda folder: put(folder, "ca.crt", ""), "no setting ca.crt; keep files that are no settings in another folder"),
        (lambda folder: put(folder, "ISOTHERM_PARTITIONS", "many"), "ISOTHERM_PARTITIONS, from .*, is 'many': "),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(folder: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(folder)
    with pytest.raises(SettingsError, match=said) as refused:
        Settings.load()
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/usr/bin/setpriv").exists(), reason="root reads every file")
def test_a_file_of_another_user_is_named(folder: Path) -> None:
    put(folder, "ISOTHERM_REDIS", "redis://store")
    (folder / "ISOTHERM_REDIS").chmod(0)
    program = "import sys; from isotherm import secret_files; from pathlib import Path\n"
    program += "secret_files.read(Path(sys.argv[1]), ['ISOTHERM_REDIS'])"
    command = [sys.executable, "-c", program, str(folder)]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "SettingsError: cannot read" in failed.stderr
    assert "ISOTHERM_REDIS: Permission denied" in failed.stderr
