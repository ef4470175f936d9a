"""Who may do what at the broker: mosquitto's password and access files, made from the registry.

A device logs in with its name and its newest token, and may publish below its own ``devices/NAME/``, a gateway also below
its children's. So the topic says who sent a message, and the connector need not know the sender's name, which brokers do not
pass on. The connectors may read all of it and write commands.

mosquitto reads the files again on SIGHUP; connections that are open stay so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path

from connectors.decoders import DEVICE
from connectors.mqtt.topics import FILTERS, OWN
from isotherm.errors import SettingsError, Unavailable
from isotherm.logs import Throttle
from isotherm.registry import Device, Registry, mosquitto_hash

PASSWORDS, ACCESS, CONFIGURATION = "passwords", "acl", "isotherm.conf"

POLL_SECONDS = 1.0
"""How often the registry is asked whether it has changed."""

log = logging.getLogger(__name__)


def password_file(devices: Iterable[Device], connectors: dict[str, str]) -> str:
    """Return mosquitto's password_file.

    Args:
        devices: Those with a token may log in; not those with a colon in their name, which the file cannot hold.
        connectors: User name → password hash of the connectors.
    """
    users = {device.name: device.mosquitto for device in devices if device.mosquitto and ":" not in device.name}
    return "".join(f"{name}:{hashed}\n" for name, hashed in (users | connectors).items())


def access_file(devices: Iterable[Device], connectors: Iterable[str], places: Sequence[str] = ()) -> str:
    """Return mosquitto's acl_file.

    Args:
        devices: Gateways among them may publish for their children.
        connectors: User names of the connectors.
        places: Topics of decoders of one's own, ``{device}`` in the place of the device's name.
    """
    written = ["devices/{device}/+", *places]
    lines = ["# Every device may publish below its own name, and read its commands."]
    lines += [f"pattern write {place.replace(DEVICE, '%u')}" for place in written]
    lines += ["# Here a token in the message says who it is.", *(f"pattern write {topic}" for topic in OWN)]
    lines += ["pattern read devices/%u/commands/#", "pattern read devices/%u/attributes"]
    for name in connectors:
        filters = (*FILTERS, *(place.replace(DEVICE, "+") for place in places))
        lines += ["", f"user {name}", *(f"topic read {topic}" for topic in filters)]
        lines += ["topic write devices/+/commands/+", "topic write devices/+/attributes"]
    for device in devices:
        if device.children:
            lines += ["", f"user {device.name}"]
        for child in sorted(device.children):
            lines += [f"topic write {place.replace(DEVICE, child)}" for place in written]
            lines += [f"topic read devices/{child}/commands/#"]
    return "\n".join(lines) + "\n"


def configuration(directory: Path) -> str:
    """Return what mosquitto.conf needs besides its listeners."""
    return (
        "allow_anonymous false\n"
        f"password_file {directory / PASSWORDS}\n"
        f"acl_file {directory / ACCESS}\n"
        "# Nothing that was acknowledged is dropped for want of room: mosquitto would do so in silence.\n"
        "max_queued_messages 0\n"
        "max_inflight_messages 4000\n"
        "max_packet_size 2097152\n"
    )


class Files:
    """The files in a directory, kept up to date with the registry."""

    def __init__(self, registry: Registry, directory: Path, connectors: dict[str, str], places: Sequence[str] = ()) -> None:
        """Prepare.

        Args:
            registry: Has the devices.
            directory: Gets the files; this user may read them, and mosquitto if this is root.
            connectors: User name → password.
            places: Topics of decoders of one's own.
        """
        self._registry = registry
        self._directory = directory.resolve()
        self._hashes = {name: mosquitto_hash(password) for name, password in connectors.items()}
        self._places = places
        self._throttle = Throttle()
        self._version: int | None = None

    async def write(self) -> bool:
        """Write the files if the registry has changed since the last time; tells whether it had.

        Raises:
            Unavailable: the store does not answer.
            SettingsError: the files cannot be written.
        """
        version = await self._registry.version()
        if version == self._version:
            return False
        devices = await self._registry.all()
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o750)
            _share(self._directory)
            _replace(self._directory / PASSWORDS, password_file(devices, self._hashes))
            _replace(self._directory / ACCESS, access_file(devices, self._hashes, self._places))
            _replace(self._directory / CONFIGURATION, configuration(self._directory))
        except OSError as error:
            raise SettingsError(f"cannot write to {self._directory}: {error.strerror}") from error
        self._version = version
        return True

    async def follow(self, broker: Path | None) -> None:
        """Keep the files up to date, for ever.

        Args:
            broker: File with the process id of the mosquitto that is to read them again.
        """
        while True:
            try:
                if await self.write():
                    log.info("wrote users and rights to %s", self._directory)
                    if broker is not None:
                        _tell(broker)
            except Unavailable as error:
                if self._throttle("away") is not None:
                    log.warning("%s; users and rights stay as they are", error)
            await asyncio.sleep(POLL_SECONDS)


def _replace(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new one."""
    new = path.with_suffix(".new")
    new.touch(mode=0o640)
    _share(new)
    new.write_text(text)
    new.replace(path)


def _share(path: Path) -> None:
    """Let mosquitto's group read what root writes: mosquitto that root starts becomes the user mosquitto."""
    if os.geteuid() == 0:
        with contextlib.suppress(LookupError):  # there is no such group
            shutil.chown(path, group="mosquitto")


def _tell(broker: Path) -> None:
    with contextlib.suppress(OSError, ValueError):  # it is not running: it reads the files when it starts
        os.kill(int(broker.read_text()), signal.SIGHUP)
