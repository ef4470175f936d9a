"""What each process of ``isotherm connect --workers`` is told."""

from __future__ import annotations

import pytest

from connectors.mqtt.names import client_id, user_of_worker
from connectors.workers import settings_of_workers
from isotherm.errors import SettingsError
from isotherm.settings import Settings


def test_mqtt_workers_divide_the_devices_each_with_a_session_and_a_user_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Settings(mqtt_username="me", mqtt_password="secret", health_port=7000)
    found = []
    for own in settings_of_workers(given, "mqtt", 3):
        for name, value in own.environment().items():
            monkeypatch.setenv(name, value)
        found.append(Settings.load())
    assert [(one.mqtt_worker, one.mqtt_workers, one.mqtt_shared) for one in found] == [(n, 3, False) for n in range(3)]
    assert [one.health_port for one in found] == [7000, 7001, 7002]
    assert [client_id(one) for one in found] == [f"{client_id(given)}-{number}-of-3" for number in range(3)]
    users = [user_of_worker("me", number) for number in range(3)]  # those of `isotherm mqtt users --connectors 3`
    assert [one.mqtt_username for one in found] == users == ["me", "me-1", "me-2"]


@pytest.mark.parametrize("given", [Settings(mqtt_shared=True), Settings(mqtt_workers=2)])
def test_mqtt_connectors_are_not_told_twice_how_to_divide(given: Settings) -> None:
    with pytest.raises(SettingsError, match="--workers divides the devices by itself; unset ISOTHERM_MQTT_SHARED"):
        settings_of_workers(given, "mqtt", 2)
    assert all(own.reuse_port for own in settings_of_workers(given, "tcp", 2))
