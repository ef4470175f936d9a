"""Configuration and firmware through a whole stack: from the command line to simulated devices, and back."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

ROOMS = ("room-001", "room-002", "room-003")
"""They come over TCP, MQTT and CoAP."""


def test_simulated_devices_take_over_what_they_should_have_and_load_firmware(tmp_path: Path) -> None:
    with Stack(tmp_path / "stack", "--devices", "3", "--rate", "2") as stack:
        done = stack.json("rollout", "begin", "room-*", "--set", "calibration=1.5", "--wave", "0.3", "--wait")
        assert (done["state"], done["waves"], done["progress"]["applied"]) == ("done", [1, 2], 3)
        for room in ROOMS:
            found = stack.json("config", "show", room)
            assert (found["state"], found["desired"], found["drift"]) == ("applied", {"calibration": 1.5}, [])
            assert found["reported"]["calibration"] == 1.5
        shown = stack.run("config", "show", "room-001").stdout.splitlines()
        assert re.fullmatch(r"room-001: version 1 by cli \(\w+\), \d+ s ago, applied", shown[0])
        stack.json("config", "set", "room-001", "interval=-1")
        refused = settled(stack, "room-001")
        assert refused["state"] == "failed"
        assert "interval is -1" in refused["error"]
        assert stack.json("config", "set", "room-001", "interval=null")["desired"] == {"calibration": 1.5}
        assert settled(stack, "room-001")["state"] == "applied"

        image, key = tmp_path / "image", tmp_path / "key.pem"
        image.write_bytes(os.urandom(40_000))
        public = stack.run("firmware", "new-key", str(key)).stdout.strip()
        assert key.stat().st_mode & 0o077 == 0
        untrusted = stack.run("firmware", "upload", "thermostat/2.0", str(image), "--key", str(key), check=False)
        assert untrusted.returncode == 1
        assert "isotherm firmware trust" in untrusted.stderr or "trusted" in untrusted.stderr
        stack.run("firmware", "trust", public)
        assert stack.json("firmware", "upload", "thermostat/2.0", str(image), "--key", str(key))["size"] == 40_000
        done = stack.json("rollout", "begin", "room-*", "--firmware", "thermostat/2.0", "--wait")
        assert done["progress"]["applied"] == 3
        assert [stack.json("config", "show", room)["reported"]["firmware"] for room in ROOMS] == ["2.0"] * 3

        begun = stack.json("rollout", "begin", "--label", "hot", "--set", "calibration=2", "--continuous", "--wait")
        assert (begun["state"], begun["devices"]) == ("watching", 0)
        stack.run("devices", "label", "room-003", "+hot")
        assert applied(stack, "room-003", "calibration", 2)["rollout"] == begun["id"]
        assert "continuous (halted by cli" in stack.run("rollout", "halt", begun["id"]).stdout

        back = stack.json("rollout", "back", done["id"], "--wait")
        assert back["back"] == done["id"]
        assert "firmware" not in stack.json("config", "show", "room-002")["desired"]
        assert stack.complaints() == []


def test_connectors_that_are_killed_during_a_rollout(tmp_path: Path) -> None:
    """Every device has what it should have in the end, and nobody has done anything for it."""
    with Stack(tmp_path / "stack", "--devices", "30", "--rate", "1") as stack:
        begun = stack.json("rollout", "begin", "room-*", "--set", "interval=2")
        for part in ("tcp", "mqtt", "coap"):
            os.kill(stack.pid_of(part), signal.SIGKILL)
        done = json.loads(stack.run("rollout", "show", begun["id"], "--wait", "--json", seconds=180).stdout)
        assert (done["state"], done["progress"]["applied"]) == ("done", 30)


def applied(stack: Stack, device: str, setting: str, value: Any) -> dict[str, Any]:
    """Return what is known of a device's configuration when the device has a value."""
    deadline = time.monotonic() + 30
    while True:
        found: dict[str, Any] = stack.json("config", "show", device)
        if found["reported"].get(setting) == value:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def settled(stack: Stack, device: str) -> dict[str, Any]:
    """Return what is known of a device's configuration when the device has said what came of it."""
    deadline = time.monotonic() + 30
    while True:
        found: dict[str, Any] = stack.json("config", "show", device)
        if found["state"] not in ("pending", "sent"):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
