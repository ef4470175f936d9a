"""How several processes of one connector divide the work: the kernel by port, or MQTT connectors the devices of a broker.

The kernel divides connections among processes that share a port (SO_REUSEPORT); datagrams by the addresses and ports that
they go between, so that what comes from one endpoint, such as the blocks of a CoAP payload, comes to one process. MQTT
connectors divide the devices by themselves (`connectors.mqtt.division`).
"""

from __future__ import annotations

from connectors.mqtt.names import user_of_worker
from isotherm.errors import SettingsError
from isotherm.settings import Settings
from isotherm.workers import sharing_a_port


def settings_of_workers(settings: Settings, protocol: str, count: int) -> list[Settings]:
    """Return the settings of each worker.

    Raises:
        SettingsError: it is already said how MQTT connectors divide the work, and otherwise.
    """
    each = sharing_a_port(settings, count)
    if protocol != "mqtt":
        return each
    if settings.mqtt_shared or settings.mqtt_workers > 1:
        raise SettingsError(
            "--workers divides the devices by itself; unset ISOTHERM_MQTT_SHARED and ISOTHERM_MQTT_WORKERS, "
            "which are for connectors that are started one by one"
        )
    user = settings.mqtt_username
    return [
        own.model_copy(
            update={
                "mqtt_workers": count,
                "mqtt_worker": number,
                "mqtt_username": user and user_of_worker(user, number),
            }
        )
        for number, own in enumerate(each)
    ]
