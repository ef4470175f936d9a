"""Firmware through a whole stack to devices of a label, in waves: connectors are killed, and too many devices fail."""

from __future__ import annotations

import hashlib
import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from isotherm.firmware import image as images
from isotherm.firmware import signing
from tests.end_to_end.test_commands import Device
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

LAMPS = tuple(f"lamp-{number}" for number in range(1, 7))
DATA = os.urandom(60_000)
CHUNK = 16_384


class Api:
    """The REST API of a stack on this machine."""

    def __init__(self, stack: Stack) -> None:
        self._base = f"{stack.web}api/v1"

    def ask(self, method: str, path: str, body: object = None, raw: bytes | None = None) -> Any:
        """Send a request; returns what is answered."""
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or b"null")

    def when(self, path: str, is_so: Callable[[Any], bool], seconds: float = 40.0) -> Any:
        """Return what a path answers when it is so."""
        deadline = time.monotonic() + seconds
        while not is_so(found := self.ask("GET", path)):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return found


@contextmanager
def come(stack: Stack, names: Iterable[str]) -> Iterator[dict[str, Device]]:
    """Let devices come over TCP, as soon as somebody listens."""
    found: dict[str, Device] = {}
    deadline = time.monotonic() + 30
    try:
        for name in names:
            while name not in found:
                try:
                    found[name] = Device(stack, name)
                except OSError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
        yield found
    finally:
        for one in found.values():
            one.close()


def killed(stack: Stack, part: str) -> None:
    """Kill a part of the stack; returns when it is gone."""
    process = psutil.Process(stack.pid_of(part))
    process.kill()
    process.wait(20)


def chunk(stack: Stack, path: str, begin: int) -> bytes:
    """Return a range of an image, as soon as the connector answers."""
    url = f"http://127.0.0.1:{stack.ports.http}/api/v1/{path}"
    request = urllib.request.Request(url, headers={"Range": f"bytes={begin}-{begin + CHUNK - 1}"})
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.status == 206
                return bytes(answer.read())
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def told(lamp: Device) -> dict[str, Any]:
    """Return the configuration that a device is told next."""
    command: dict[str, Any] = lamp.hear()["command"]
    assert command["name"] == "configure"
    return command


def reply(lamp: Device, id: str, **said: object) -> None:
    """Say something of a configuration; the platform has it then."""
    lamp.say({"reply": {"id": id, **said}})
    while (heard := lamp.hear()) != {"replied": id}:
        assert "command" in heard, heard


def test_in_waves_through_killed_connectors_halted_by_failures_tried_again_and_taken_back(tmp_path: Path) -> None:
    with Stack(tmp_path / "stack", "--no-simulator") as stack:
        api = Api(stack)
        for name in LAMPS:
            api.ask("PUT", f"/devices/{name}", {"labels": ["floor=3"]})
        api.ask("PUT", "/devices/other", {"labels": ["floor=4"]})
        key = signing.new_key()
        api.ask("POST", "/firmware-keys", {"public": signing.public_of(key)})
        made = signing.signed(key, "lamp", "2.0", DATA)
        signature = made.signature.replace("+", "%2B")
        api.ask("PUT", f"/firmware/lamp/2.0?signature={signature}", raw=DATA)
        form = {"targets": {"label": "floor=3"}, "firmware": "lamp/2.0", "waves": [0.3], "max_failure_rate": 0.3}
        begun = api.ask("POST", "/rollouts", form)
        path = f"/rollouts/{begun['id']}"
        assert (begun["devices"], begun["waves"], begun["progress"]["waiting"]) == (6, [2, 4], 4)

        with come(stack, LAMPS) as lamps:
            commands = {name: told(lamps[name]) for name in LAMPS[:2]}
            firmware = commands["lamp-1"]["parameters"]["values"]["firmware"]
            image = images.Image(
                **{name: firmware[name] for name in ("name", "version", "size", "sha256", "signature", "key")}
            )
            assert signing.is_signed_by(signing.public_of(key), image)
            got = chunk(stack, firmware["path"], 0)
            killed(stack, "http")
            while len(got) < firmware["size"]:
                got += chunk(stack, firmware["path"], len(got))
            assert hashlib.sha256(got).hexdigest() == firmware["sha256"]
            reply(lamps["lamp-1"], commands["lamp-1"]["id"], progress=60)
            reply(lamps["lamp-2"], commands["lamp-2"]["id"], result={"firmware": "2.0"})
            killed(stack, "tcp")  # between what lamp-1 was given and its reply

        one = api.ask("GET", "/devices/lamp-1/configuration")
        assert (one["state"], one["progress"], one["reported"]) == ("sent", 60, {})
        assert api.ask("GET", path)["progress"] == {
            **dict.fromkeys(begun["progress"], 0), "waiting": 4, "sent": 1, "applied": 1,
        }  # fmt: skip
        with come(stack, LAMPS) as lamps:
            again = told(lamps["lamp-1"])
            assert (again["id"], again["parameters"]) == (commands["lamp-1"]["id"], commands["lamp-1"]["parameters"])
            reply(lamps["lamp-1"], again["id"], result={"firmware": "2.0"})
            assert api.ask("GET", "/devices/lamp-1/configuration")["state"] == "applied"
            for name in LAMPS[2:5]:
                reply(lamps[name], told(lamps[name])["id"], error="the flash is worn")
            halted = api.when(path, lambda found: found["state"] == "halted")
            assert halted["why"] == "3 of 5 devices that answered could not"
            worn = api.ask("GET", f"{path}/devices?state=failed")["items"]
            assert [(found["device"], found["error"]) for found in worn] == [
                (name, "the flash is worn") for name in LAMPS[2:5]
            ]
            assert api.ask("GET", "/devices/other/configuration")["desired"] == {}

            api.ask("POST", f"{path}/actions", {"action": "retry"})
            for name in LAMPS[2:6]:
                reply(lamps[name], told(lamps[name])["id"], result=True)
            assert api.when(path, lambda found: found["state"] == "done")["progress"]["applied"] == 6

            back = api.ask("POST", f"{path}/rollback")
            for name in LAMPS:
                command = told(lamps[name])
                assert command["parameters"]["values"] == {}
                reply(lamps[name], command["id"], result={})
            done = api.when(f"/rollouts/{back['id']}", lambda found: found["state"] == "done")
            assert (done["back"], done["progress"]["applied"]) == (begun["id"], 6)


def test_a_configuration_is_never_said_to_be_further_than_it_is(tmp_path: Path) -> None:
    """The connector dies before it has given it, after it, and while the device replies."""
    with Stack(tmp_path / "stack", "--no-simulator") as stack:
        api, path = Api(stack), "/devices/lamp-1/configuration"
        api.ask("PUT", "/devices/lamp-1", {})
        killed(stack, "tcp")
        assert api.ask("PATCH", path, {"values": {"interval": 5}})["state"] == "pending"
        with come(stack, ["lamp-1"]) as lamps:
            command = told(lamps["lamp-1"])
            given = api.when(path, lambda found: found["state"] == "sent")
            killed(stack, "tcp")
            lamps["lamp-1"].say({"reply": {"id": command["id"], "result": True}})  # to nobody
        assert api.ask("GET", path) == given
        with come(stack, ["lamp-1"]) as lamps:
            assert told(lamps["lamp-1"])["parameters"] == {"version": 1, "values": {"interval": 5}}
            reply(lamps["lamp-1"], command["id"], result={"interval": 5})
            found = api.ask("GET", path)
            assert (found["state"], found["attempts"], found["reported"]) == ("applied", 2, {"interval": 5})
