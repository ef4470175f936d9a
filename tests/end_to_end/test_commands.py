"""Commands through the whole of a stack, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.stack import Stack

pytestmark = pytest.mark.servers


class Device:
    """A device over TCP that does nothing by itself."""

    def __init__(self, stack: Stack, name: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", stack.ports.tcp), timeout=30)
        self._lines = self._socket.makefile("rb")
        self.say({"hello": {"device": name, "ack": True, "commands": True}})

    def say(self, what: object) -> None:
        self._socket.sendall(json.dumps(what).encode() + b"\n")

    def hear(self) -> Any:
        return json.loads(self._lines.readline())

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def state(stack: Stack, device: str, id: str, expected: str) -> dict[str, Any]:
    """Return a command when it has a state."""
    deadline = time.monotonic() + 20
    while True:
        found: dict[str, Any] = stack.json("commands", "show", device, id)
        if found["state"] == expected:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def test_simulated_devices_do_what_they_are_asked_and_say_what_they_cannot(tmp_path: Path) -> None:
    with Stack(tmp_path / "stack", "--devices", "4", "--rate", "2") as stack:
        for device in ("room-001", "room-002", "room-003"):  # TCP, MQTT and CoAP
            assert stack.json("send", device, "offset", "celsius=2.5")["result"] == {"celsius": 2.5}
            refused = stack.run("send", device, "fly", check=False)
            assert refused.returncode == 1
            assert "it knows ping and offset" in refused.stdout
        unknown = stack.run("send", "nobody", "ping", check=False)
        assert unknown.returncode == 1
        assert "there is no device 'nobody'" in unknown.stderr
        assert [one["state"] for one in stack.json("commands", "list", "room-001")] == ["failed", "answered"]
        assert stack.complaints() == []


def test_a_connector_that_is_killed_between_command_and_reply(tmp_path: Path) -> None:
    """The device gets the command once, and no state says what did not happen."""
    with Stack(tmp_path / "stack", "--devices", "1") as stack:
        stack.run("devices", "add", "lamp")
        waiting = stack.json("send", "lamp", "blink", "times=3", "--no-wait")
        assert waiting["state"] == "queued"
        lamp = Device(stack, "lamp")
        given = lamp.hear()["command"]
        assert (given["id"], given["parameters"]) == (waiting["id"], {"times": 3})
        sent = state(stack, "lamp", given["id"], "sent")
        before = stack.pid_of("tcp")
        os.kill(before, signal.SIGKILL)
        lamp.close()
        state(stack, "lamp", given["id"], "sent")
        deadline = time.monotonic() + 30
        while stack.pid_of("tcp") == before:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        second = stack.json("send", "lamp", "rest", "--no-wait")
        lamp = _back(stack)
        assert lamp.hear()["command"]["id"] == second["id"], "not the first one again"
        lamp.say({"reply": {"id": given["id"], "result": "done"}})
        assert lamp.hear() == {"replied": given["id"]}
        found = state(stack, "lamp", given["id"], "answered")
        assert found["result"] == "done"
        assert [found[name] for name in ("sent", "attempts", "via")] == [sent[name] for name in ("sent", "attempts", "via")]
        state(stack, "lamp", second["id"], "sent")


def test_a_store_that_is_killed_forgets_no_command_and_sends_none_twice(tmp_path: Path) -> None:
    with Stack(tmp_path / "stack", "--devices", "1") as stack:
        stack.run("devices", "add", "lamp")
        lamp = Device(stack, "lamp")
        first = stack.json("send", "lamp", "first", "--no-wait")
        assert lamp.hear()["command"]["id"] == first["id"]
        os.kill(stack.pid_of("store"), signal.SIGKILL)  # which may have lost its last second
        deadline = time.monotonic() + 30
        while (sent := stack.run("send", "lamp", "second", "--no-wait", "--json", check=False)).returncode:
            assert time.monotonic() < deadline, sent.stderr
            time.sleep(0.2)
        second = json.loads(sent.stdout)
        heard = lamp.hear()["command"]["id"]
        assert heard == second["id"], "not the first one again"
        for one in (first, second):
            while True:
                lamp.say({"reply": {"id": one["id"], "result": 1}})
                said = lamp.hear()
                if said.get("error", {}).get("reason") != "unavailable":  # the store is back for the command line already
                    break
                assert time.monotonic() < deadline
            assert said == {"replied": one["id"]}
            state(stack, "lamp", one["id"], "answered")


def _back(stack: Stack) -> Device:
    """Let the device come again, as soon as somebody listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return Device(stack, "lamp")
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
