"""infra/compose.yaml with Docker's own engine and compose: from nothing to a reading, through restarts and power cuts."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import docker
from tests.support.docker import Compose, Engine
from tests.support.manifests import K8S, Document
from tests.support.overlay_lab import MORTAL

pytestmark = [pytest.mark.servers, pytest.mark.timeout(1200)]

INFRA = K8S.parent
IMAGES = (
    *(f"isotherm-{part}:0.1.0" for part in ("connector", "worker", "web", "simulator")),
    *("apache/kafka:4.4.0", "valkey/valkey:8.1", "eclipse-mosquitto:2.0"),
)
PARTS = ("tcp", "http", "coap", "mqtt", "worker", "analytics", "web")
SERVERS = ("kafka", "valkey", "mqtt-users", "mosquitto")

TARGETS = {"tcp": "127.0.0.1:7301", "http": "127.0.0.1:7310", "coap": "127.0.0.1:7302", "mqtt": "127.0.0.1:7303"}
"""Where the ports are published."""

DEVICES, RATE = 5, 10
DRAIN_SECONDS = 60.0
HEALTHY_SECONDS = 240.0


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    if "ISOTHERM_COMPOSE_LAB" not in os.environ:
        pytest.skip("it takes some minutes: make compose-lab")
    if reason := docker.available():
        pytest.fail(reason)
    with docker.running() as engine:
        yield engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the file and what it mounts, for secrets of its own."""
    folder = tmp_path_factory.mktemp("compose")
    for name in ("compose.yaml", "compose-secrets", "compose-mosquitto"):
        shutil.copy2(INFRA / name, folder)
    shutil.copytree(K8S, folder / "k8s")
    return folder


class Stack(Compose):
    """What runs."""

    def up(self, *options: str) -> None:
        """Start it as ``make compose`` does, and wait until it is healthy."""
        self.run(*options, "up", "--no-build", "--detach", "--wait")

    def isotherm(self, *command: str) -> str:
        """Run a command of ours in the container of the pages, and return what it prints."""
        return self.run("exec", "--no-tty", "web", "python3", "-m", "isotherm", *command)

    def wait_until_healthy(self) -> None:
        """Wait for what has been started."""

        def all_are() -> bool:
            states = self.states()
            return {states.get(service) for service in (*PARTS, *SERVERS)} == {"healthy"}

        self.engine.until(all_are, "everything is healthy", seconds=HEALTHY_SECONDS)

    def curl(self, *arguments: str) -> str:
        """Ask at a published port."""
        command = self.engine.within("curl", "--silent", "--show-error", "--fail-with-body", *arguments)
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert said.returncode == 0, said.stdout + said.stderr
        return said.stdout

    def stored(self, metric: str = "room-*/*") -> Counter[str]:
        """Return how many readings the store has of each device."""
        rows = csv.DictReader(io.StringIO(self.isotherm("export", "-", "--series", metric, "--last", "1h")))
        found: Counter[str] = Counter()
        for row in rows:
            found[row["device"]] += int(row["count"])
        return found


def test_what_is_missing_is_named(engine: Engine, folder: Path) -> None:
    compose = Compose(engine, folder / "compose.yaml", REGISTRY="localhost")
    up = ("up", "--no-build", "--detach", "--pull", "never")
    refused = compose.attempt(*up)
    assert refused.returncode != 0 and f"does not exist: {folder}/.secrets/" in refused.stderr
    subprocess.run([folder / "compose-secrets"], check=True)
    refused = compose.attempt(*up)
    assert refused.returncode != 0 and "No such image: localhost/" in refused.stderr
    compose.run("down", "--volumes")


@pytest.fixture(scope="module")
def stack(engine: Engine, folder: Path, registry: str) -> Stack:
    """Everything, healthy."""
    subprocess.run([folder / "compose-secrets"], check=True)
    engine.load(*(f"{registry}/{image}" for image in IMAGES))
    stack = Stack(engine, folder / "compose.yaml", REGISTRY=registry)
    stack.up()
    return stack


def test_a_reading_sent_to_one_published_port_is_seen_at_another(stack: Stack) -> None:
    assert stack.states()["topics"] == "exited 0"
    stack.isotherm("devices", "add", "kitchen")
    token = stack.isotherm("devices", "token", "kitchen").strip()
    reading = '{"n":"kitchen/temperature","u":"Cel","v":21.5}'
    stack.curl("--header", f"Authorization: Bearer {token}", "--data", reading, "http://127.0.0.1:7310/api/v1/readings")

    stack.isotherm("users", "add", "anna", "--role", "admin")
    key = json.loads(stack.isotherm("tokens", "create", "anna", "--scope", "series:read", "--json"))["token"]

    def is_seen() -> bool:
        url = "http://127.0.0.1:7300/api/v1/latest?series=kitchen/*"
        items: list[Document] = json.loads(stack.curl("--header", f"Authorization: Bearer {key}", url))["items"]
        return [(one["device"], one["value"]) for one in items] == [("kitchen", 21.5)]

    stack.engine.until(is_seen, "the reading is seen", seconds=DRAIN_SECONDS)


def test_the_profile_simulator_adds_a_fleet(stack: Stack) -> None:
    stack.up("--profile", "simulator")
    stack.engine.until(lambda: len(stack.stored()) == 25, "25 devices have been heard", seconds=DRAIN_SECONDS)
    stack.run("--profile", "simulator", "rm", "--stop", "--force", "simulator")


def test_a_port_that_is_taken_is_named(stack: Stack) -> None:
    stack.run("stop", "http")
    taken = stack.engine.within(sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "7310")
    with subprocess.Popen([*MORTAL, *taken], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as other:
        assert other.stdout is not None and other.stdout.readline().startswith("Serving")
        refused = stack.attempt("up", "--no-build", "--detach", "--wait")
        other.kill()
    assert refused.returncode != 0
    assert "127.0.0.1:7310" in refused.stderr and "address already in use" in refused.stderr
    stack.run("rm", "--force")  # as make compose does
    stack.up()


@contextlib.contextmanager
def fleets(stack: Stack, number: int, *protocols: str) -> Iterator[dict[str, dict[str, int]]]:
    """Devices that send from outside while the block runs; then the accounts of each protocol.

    Each has a gateway, and devices whose numbers begin at a thousand times ``number`` and a hundred for each protocol.
    """
    accounts: dict[str, dict[str, int]] = {}
    with contextlib.ExitStack() as running:
        sending = {}
        for protocol in protocols:
            first = 1000 * number + 100 * list(TARGETS).index(protocol)
            gateway = f"gateway-{number}-{protocol}"
            stack.isotherm("devices", "add", gateway, "--gateway")
            stack.isotherm("devices", "add", *(f"room-{first + one:03}" for one in range(1, DEVICES + 1)), "--via", gateway)
            token = stack.isotherm("devices", "token", gateway).strip()
            if protocol == "mqtt":
                wait_until_let_in(stack, gateway, token)
            command = stack.engine.within(
                sys.executable, "-m", "isotherm", "simulate", "--json", "--protocol", protocol,
                "--target", TARGETS[protocol], "--user", gateway, "--token", token,
                "--rate", str(RATE), "--devices", str(DEVICES), "--first", str(first),
            )  # fmt: skip
            sending[protocol] = running.enter_context(
                subprocess.Popen([*MORTAL, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            running.callback(sending[protocol].kill)
        stack.engine.until(lambda: set(protocols) <= set(stored(stack, number)), "all are heard of", seconds=DRAIN_SECONDS)
        yield accounts
        for process in sending.values():
            process.terminate()
        for protocol, process in sending.items():
            said, complaints = process.communicate(timeout=DRAIN_SECONDS)
            assert said, complaints  # it ends with 1 when not everything is acknowledged, as after a power cut
            accounts[protocol] = json.loads(said.strip().splitlines()[-1])


def wait_until_let_in(stack: Stack, user: str, token: str) -> None:
    """Wait until the MQTT broker, which nobody restarts, knows a user."""
    broker = ("-h", "127.0.0.1", "-p", "7303", "-u", user, "-P", token)
    publish = ("mosquitto_pub", *broker, "-t", "devices/nobody/x", "-m", "1")

    def is_let_in() -> bool:
        said = subprocess.run(stack.engine.within(*publish), capture_output=True, timeout=30, check=False)
        return said.returncode == 0

    stack.engine.until(is_let_in, f"{user} may log in", seconds=DRAIN_SECONDS)


def stored(stack: Stack, number: int) -> Counter[str]:
    """Return how many readings of some fleets are stored, by protocol."""
    found: Counter[str] = Counter()
    for device, count in stack.stored(f"room-{number}*/*").items():
        found[list(TARGETS)[(int(device.removeprefix("room-")) - 1) % 1000 // 100]] += count
    return found


def wait_until_stored(stack: Stack, number: int, accounts: dict[str, dict[str, int]]) -> None:
    """Wait until the store has what was acknowledged, and see that it has no more than was sent."""
    assert all(account["acknowledged"] > 0 for account in accounts.values()), accounts
    deadline = time.monotonic() + DRAIN_SECONDS
    while True:
        found = stored(stack, number)
        if all(account["acknowledged"] <= found[protocol] for protocol, account in accounts.items()):
            break
        assert time.monotonic() < deadline, f"stored {found} of {accounts}"
    assert all(found[protocol] <= account["sent"] for protocol, account in accounts.items()), f"{found} of {accounts}"


def test_everything_is_restarted_under_load_and_no_acknowledged_reading_is_lost(stack: Stack) -> None:
    with fleets(stack, 1, *TARGETS) as accounts:
        for service in (*PARTS, *SERVERS):
            stack.run("restart", service)
            stack.wait_until_healthy()
    wait_until_stored(stack, 1, accounts)


def test_after_a_power_cut_everything_comes_back_by_itself(stack: Stack) -> None:
    # mosquitto keeps what it has acknowledged for up to five seconds in memory alone.
    with fleets(stack, 2, "tcp", "http", "coap") as accounts:
        stack.engine.cut_power()
    stack.engine.start()
    stack.wait_until_healthy()
    wait_until_stored(stack, 2, accounts)
    stack.isotherm("devices", "add", "late")
    wait_until_let_in(stack, "late", stack.isotherm("devices", "token", "late").strip())


def test_what_was_taken_down_comes_up_again_with_all_that_it_had(stack: Stack, folder: Path) -> None:
    before = stack.stored("*/*")
    secrets = {path.name: path.read_bytes() for path in (folder / ".secrets").iterdir()}
    stack.run("down")
    assert stack.states() == {}
    subprocess.run([folder / "compose-secrets"], check=True)
    stack.up()
    assert stack.stored("*/*") == before and before["kitchen"] == 1
    assert {path.name: path.read_bytes() for path in (folder / ".secrets").iterdir()} == secrets
