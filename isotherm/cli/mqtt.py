"""``isotherm mqtt``: what the MQTT broker is to know of the devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isotherm import logs
from isotherm.cli.options import DataDir
from isotherm.cli.output import on_the_server
from isotherm.errors import SettingsError
from isotherm.process import done_before, run_process, stop_signal
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store import client

app = typer.Typer(no_args_is_help=True, help="Tell the MQTT broker who may do what.")


@app.callback()
def main() -> None:
    """Tell the MQTT broker who may do what."""


@app.command()
def users(
    directory: Annotated[Path, typer.Argument(help="Gets passwords, acl and isotherm.conf.")],
    follow: Annotated[bool, typer.Option("--follow", help="Keep them up to date until Ctrl-C.")] = False,
    broker: Annotated[Path | None, typer.Option(help="File with mosquitto's process id: it is told of changes.")] = None,
    connectors: Annotated[
        int, typer.Option(help="Connectors that log in, each as a user of its own: connect mqtt --workers.", min=1)
    ] = 1,
    data_dir: DataDir = None,
) -> None:
    """Write mosquitto's password and access files from the registry.

    A device logs in with its name and its newest token, and may publish below devices/NAME/; the connectors with
    ISOTHERM_MQTT_USERNAME and ISOTHERM_MQTT_PASSWORD. In mosquitto.conf: include_dir DIRECTORY.
    """
    from connectors.mqtt.names import user_of_worker
    from connectors.mqtt.users import Files
    from connectors.process import decoders_of

    settings = on_the_server(Settings.load(data_dir=data_dir))
    logs.configure(settings, "mqtt-users")
    if not settings.mqtt_username or not settings.mqtt_password:
        raise SettingsError("set ISOTHERM_MQTT_USERNAME and ISOTHERM_MQTT_PASSWORD: the connectors log in with them")
    passwords = {user_of_worker(settings.mqtt_username, number): settings.mqtt_password for number in range(connectors)}

    async def run() -> None:
        stop = stop_signal()
        async with client.connected(settings) as redis:
            files = Files(Registry(redis), directory, passwords, decoders_of(settings).places)
            if follow:
                await done_before(stop, files.follow(broker))
            else:
                await files.write()

    run_process(run())
    if not follow:
        print(f"wrote passwords, acl and isotherm.conf to {directory}; mosquitto reads them again on SIGHUP")
