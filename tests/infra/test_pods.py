"""The overlay ``local`` in real pods: from its manifests to a reading on the chart, and all of it exchanged under load."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import missing
from tests.infra.conftest import mirrored
from tests.infra.fleets import LOAD, wait_until_stored
from tests.support import chromium, pod_images
from tests.support.lossy import lossy_way
from tests.support.manifests import Document, workloads
from tests.support.pods import Pod, Pods

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

SECRETS = {
    "isotherm": {"ISOTHERM_REDIS": "redis://:first-secret@valkey:6379/0", "ISOTHERM_MQTT_PASSWORD": "second-secret"},
    "valkey": {"password.conf": "requirepass first-secret\nmasterauth first-secret\n"},
    "kafka": {"CLUSTER_ID": "MkU3OEVBNTcwNTJENDM2Qg"},
}

SERVERS = ("kafka", "valkey", "mosquitto")
PARTS = ("tcp", "http", "coap", "mqtt", "worker", "analytics", "web")

LONG = "ISOTHERM_CHAOS_SECONDS" in os.environ
"""``make chaos``: the servers are exchanged as well, which takes some minutes."""

DEVICES, RATE = 5, 10
DRAIN_SECONDS = 60.0
DRAWN = '() => window.Bokeh?.documents[0]?.get_model_by_name("live-points")?.get_length() > 5'


class Stack:
    """Pods by the names of what they do."""

    def __init__(self, pods: Pods) -> None:
        self.pods = pods
        self.running: dict[str, Pod] = {}

    def start(self, *names: str) -> None:
        for name in names:
            self.running[name] = self.pods.start(name)

    def isotherm(self, *command: str) -> str:
        """Run a command of ours in the web pod; one that the store was too slow for may be tried again."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while True:
            try:
                return self.pods.run(self.running["isotherm-web"], *command)
            except RuntimeError as error:
                if "does not answer" not in str(error) or time.monotonic() > deadline:
                    raise

    def exchange(self, name: str) -> None:
        """Replace a pod as its manifest says: of a Deployment the new one is ready first."""
        old = self.running[name]
        if old.workload["kind"] == "Deployment":
            self.running[name] = self.pods.start(name, 1 - int(old.host[-1]))
            self.pods.stop(old)
        else:
            self.pods.stop(old)
            self.start(name)


@pytest.fixture(scope="module")
def stack(local: list[Document]) -> Iterator[Stack]:
    with Pods(local) as pods:
        for name, files in SECRETS.items():
            pods.secret(name, **files)
        stack = Stack(pods)
        stack.start("kafka", "valkey", "isotherm-topics", "mosquitto", *(f"isotherm-{part}" for part in PARTS))
        stack.start("isotherm-simulator")
        yield stack


def test_every_workload_of_the_overlay_runs(stack: Stack, local: list[Document]) -> None:
    assert set(stack.running) == {one["metadata"]["name"] for one in workloads(local)}


def test_nothing_in_a_pod_may_write_to_its_root_or_is_root(stack: Stack) -> None:
    for name, pod in stack.running.items():
        if pod.workload["kind"] == "Job":
            continue
        said = stack.pods.inspect(pod)
        assert said["HostConfig"]["ReadonlyRootfs"], name
        assert said["Config"]["User"].split(":")[0] not in ("", "0", "root"), name
        assert set(said["EffectiveCaps"] or ()) == set(), name


async def test_a_reading_sent_to_the_connector_pod_is_seen_through_the_web_pod(stack: Stack) -> None:
    password = json.loads(stack.isotherm("users", "add", "anna", "--role", "admin", "--json"))["password"]
    key = json.loads(stack.isotherm("tokens", "create", "anna", "--scope", "series:read", "--json"))["token"]
    web = f"http://{stack.running['isotherm-web'].address}:7300"
    await _send(stack.isotherm, f"http://{stack.running['isotherm-http'].address}:7310")
    await _wait_until_seen(web, key)

    if reason := chromium.available():
        missing(reason)
    # As by `kubectl port-forward`: a log-in needs HTTPS or this machine.
    address = stack.running["isotherm-web"].address
    async with lossy_way(7300, closes=False, server=address) as way, chromium.chromium() as browser:
        page, web = browser.page, f"http://localhost:{way.port}"
        await page.goto(web)
        await page.get_by_label("Name").fill("anna")
        await page.get_by_label("Password").fill(password)
        await page.get_by_role("button", name="Log in").click()
        await page.get_by_label("Password now").fill(password)
        await page.get_by_label("New password").fill("correct horse battery")
        await page.get_by_role("button", name="Change password").click()
        await page.wait_for_load_state()
        await browser.open(f"{web}/device?id=room-001")
        await page.wait_for_function(DRAWN, timeout=60_000)
        assert browser.errors == []


async def _send(isotherm: Callable[..., str], intake: str) -> None:
    """Send a reading of a new device."""
    isotherm("devices", "add", "kitchen")
    token = isotherm("devices", "token", "kitchen").strip()
    reading = b'{"n":"kitchen/temperature","u":"Cel","v":21.5}'
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
        session.post(f"{intake}/api/v1/readings", data=reading) as answer,
    ):
        assert answer.status == 204, await answer.text()


async def _wait_until_seen(web: str, key: str) -> None:
    """Wait for that reading."""
    items: list[Document] = []
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
        asyncio.timeout(DRAIN_SECONDS),
    ):
        while not items:
            async with session.get(f"{web}/api/v1/latest?series=kitchen/*") as answer:
                items = (await answer.json())["items"]
    assert [(one["device"], one["value"]) for one in items] == [("kitchen", 21.5)]


def test_all_of_it_is_exchanged_under_load_and_no_acknowledged_reading_is_lost(stack: Stack) -> None:
    fleets = {
        protocol: stack.pods.start(
            "isotherm-simulator",
            2 + number,
            ["simulate", "--register", "--json", "--protocol", protocol, "--target", target, "--rate", str(RATE),
             "--devices", str(DEVICES), "--first", str(100 * (1 + number))],
        )
        for number, (protocol, target) in enumerate(LOAD.items())
    }  # fmt: skip
    for name in (*(f"isotherm-{part}" for part in PARTS), *(SERVERS if LONG else ())):
        stack.exchange(name)
    accounts = {}
    for protocol, pod in fleets.items():
        stack.pods.kill(pod, "TERM")
        accounts[protocol] = json.loads(stack.pods.wait(pod).strip().splitlines()[-1])

    wait_until_stored(stack.isotherm, list(LOAD), accounts, DRAIN_SECONDS)


@pytest.mark.skipif(not LONG, reason="an image more; make chaos")
async def test_the_overlay_gateway_is_all_of_it_in_one_pod_and_keeps_its_history(registry: str, tmp_path: Path) -> None:
    pod_images.registry("gateway")
    with Pods(mirrored("gateway", registry, tmp_path)) as pods:
        pod = pods.start("gateway")
        said = pods.inspect(pod)
        assert said["HostConfig"]["ReadonlyRootfs"] and not said["EffectiveCaps"]

        def isotherm(*command: str) -> str:
            return pods.run(pod, *command)

        isotherm("users", "add", "anna", "--role", "admin")
        key = json.loads(isotherm("tokens", "create", "anna", "--scope", "series:read", "--json"))["token"]
        await _send(isotherm, f"http://{pod.address}:7310")
        await _wait_until_seen(f"http://{pod.address}:7300", key)
        pods.stop(pod)
        pod = pods.start("gateway")
        await _wait_until_seen(f"http://{pod.address}:7300", key)
