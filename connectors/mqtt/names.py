"""What connectors are called at a broker, where each needs a session of its own."""

from __future__ import annotations

import hashlib

from isotherm.settings import Settings

CLIENT_ID = "isotherm-connector"


def client_id(settings: Settings) -> str:
    """Return the client id: where there is a password and no id is set, one that nobody can guess.

    Who connects with another client's id ends that client's connection, and may end its session (MQTT-3.1.4-3).

    One of several that divide the devices has its number and theirs in it: with another count its session would lack
    messages of devices that are its own now, because it acknowledged them as another's.
    """
    own = f"-{settings.mqtt_worker}-of-{settings.mqtt_workers}" if settings.mqtt_workers > 1 else ""
    return _name_of_all(settings) + own


def _name_of_all(settings: Settings) -> str:
    if settings.mqtt_client_id:
        return settings.mqtt_client_id
    if not settings.mqtt_password:
        return CLIENT_ID
    return f"{CLIENT_ID}-{hashlib.sha256(settings.mqtt_password.encode()).hexdigest()[:16]}"


def user_of_worker(name: str, number: int) -> str:
    """Return the user name that worker ``number`` of ``isotherm connect mqtt --workers`` logs in with."""
    return f"{name}-{number}" if number else name
