"""Settings, and how a command finds the running local stack."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mqtt_workers": 2, "mqtt_worker": 2}, "ISOTHERM_MQTT_WORKER is 2, expected less than ISOTHERM_MQTT_WORKERS, 2"),
        ({"mqtt_worker": 1}, "ISOTHERM_MQTT_WORKER is 1, expected less than ISOTHERM_MQTT_WORKERS, 1"),
        ({"mqtt_worker": -1}, "ISOTHERM_MQTT_WORKER is -1"),
        ({"mqtt_workers": 0}, "ISOTHERM_MQTT_WORKERS is 0"),
        (
            {"mqtt_workers": 2, "mqtt_shared": True},
            "ISOTHERM_MQTT_SHARED has the broker divide the messages, ISOTHERM_MQTT_W",
        ),
        ({"mqtt_version": "3.1.1", "mqtt_shared": True}, "ISOTHERM_MQTT_SHARED needs MQTT 5.*set ISOTHERM_MQTT_WORKERS"),
        (
            {"login": "auto", "host": "0.0.0.0"},
            "ISOTHERM_LOGIN is auto, .*ISOTHERM_HOST 0.0.0.0.; set ISOTHERM_LOGIN=required",
        ),
        (
            {"login": "auto", "web_origin": "https://iot.example"},
            "ISOTHERM_LOGIN is auto, .*ISOTHERM_WEB_ORIGIN https://iot",
        ),
        ({"web_origin": "https://iot.example/"}, "ISOTHERM_WEB_ORIGIN is 'https://iot.example/', expected https://HOST"),
        ({"web_proxies": "10.0.0.4,proxy"}, "ISOTHERM_WEB_PROXIES has 'proxy', expected an address such as"),
        ({"oidc_issuer": "http://idp.example"}, "ISOTHERM_OIDC_ISSUER is 'http://idp.example', expected https://HOST"),
        ({"oidc_issuer": "https://idp.example"}, "ISOTHERM_OIDC_ISSUER is set, ISOTHERM_OIDC_CLIENT_ID is not"),
        (
            {"oidc_issuer": "https://i.example", "oidc_client_id": "a", "oidc_roles": {"*": "viewer"}, "host": "0.0.0.0"},
            "ISOTHERM_OIDC_ISSUER needs ISOTHERM_WEB_ORIGIN",
        ),
        ({"auth": "open", "host": "0.0.0.0"}, "ISOTHERM_AUTH is open, .* ISOTHERM_HOST 0.0.0.0; set ISOTHERM_AUTH=token"),
    ],
)
def test_settings_that_do_not_go_together_are_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Settings.load(**given)


@pytest.mark.parametrize("variable", ["ISOTHERM_ANALYTICS", "ISOTHERM_OIDC_ROLES"])
def test_what_is_no_json_is_named(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "{presence")
    with pytest.raises(SettingsError, match=f"{variable} is '{{presence': expected JSON"):
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
