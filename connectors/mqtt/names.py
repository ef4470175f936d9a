"""What connectors are called at a broker, where each needs a session of its own."""

from __future__ import annotations

import hashlib

from isotherm.settings import Settings

CLIENT_ID = "isotherm-connector"


def client_id(settings: Settings) -> str:
    """Return the client id: where there is a password and no id is set, one that nobody can guess.

    Who connects with another client's id ends that client's connection, and may end its session (MQTT-3.1.4-3).
    """
    if settings.mqtt_client_id:
        return settings.mqtt_client_id
    if not settings.mqtt_password:
        return CLIENT_ID
    return f"{CLIENT_ID}-{hashlib.sha256(settings.mqtt_password.encode()).hexdigest()[:16]}"


def of_worker(name: str, number: int) -> str:
    """Return what worker ``number`` is called, of several with one name."""
    return f"{name}-{number}" if number else name
