"""The pipeline across three machines: a sensor on one, its connector on another, all else on the third; from outside."""

from __future__ import annotations

import json
import math
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from isotherm.local.parts import tansu_command, valkey_command
from isotherm.settings import Settings
from tests.conftest import missing
from tests.support import chromium
from tests.support.overlay_lab import Host, Lab, Pod, unavailable, wait_for

pytestmark = [pytest.mark.servers, pytest.mark.browser]

ISOTHERM = (sys.executable, "-m", "isotherm")
GATEWAY, DEVICES, RATE_HZ = "site-3", ("room-001", "room-002"), 5

LIVE_POINTS = """() => {
  const source = window.Bokeh?.documents[0]?.get_model_by_name("live-points")
  return source ? Array.from(source.get_column("value")) : null
}"""
HAS_POINTS = """count => window.Bokeh?.documents[0]?.get_model_by_name("live-points")?.get_length() >= count"""


class Cluster:
    """The stack's processes, each in a pod of its own."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab, self.directory = lab, directory
        password = secrets.token_urlsafe()
        one, two, self.three = lab.hosts
        self.broker, self.store = one.pod("broker"), one.pod("store")
        self.settings = {
            "ISOTHERM_KAFKA": f"{self.broker.address}:9092",
            "ISOTHERM_REDIS": f"redis://:{password}@{self.store.address}:6379/0",
            "ISOTHERM_AUTH": "token",
            "ISOTHERM_GROUP_SESSION_SECONDS": "6",
        }
        self._start(self.broker, *tansu_command(self.broker.address, 9092))
        stored = Settings(data_dir=directory, host=self.store.address)
        self._start(self.store, *valkey_command(stored, 6379), "--requirepass", password)
        wait_for(
            lambda: one.reaches(self.broker.address, 9092) and one.reaches(self.store.address, 6379), "broker and store"
        )
        self.worker, self.web = self._isotherm(one, "worker"), self._isotherm(one, "web")
        self.connector = self._isotherm(two, "connect", "tcp")
        wait_for(lambda: self.three.reaches(self.connector.address, 7301), "the connector", 60)
        wait_for(lambda: lab.outside.reaches(self.web.address, 7300), "the dashboards", 60)

    def run(self, *arguments: str) -> Any:
        """Run one of our commands beside the worker; returns what it printed."""
        return self.worker.run(*ISOTHERM, *arguments, environment=self.settings).stdout.strip()

    def simulate(self, token: str, *options: str) -> subprocess.Popen[str]:
        """Start devices in a pod of the third host that send to the connector on the second."""
        pod = self.three.pods[0] if self.three.pods else self.three.pod("sensors")
        target = f"{self.connector.address}:7301"
        fleet = ("--devices", str(len(DEVICES)), "--rate", str(RATE_HZ), "--target", target, "--token", token)
        return pod.start(*ISOTHERM, "simulate", *fleet, *options, "--json", environment=self._own(pod))

    def logs(self) -> str:
        """Return what all have logged."""
        return "".join(
            f"\n--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in self.directory.glob("*.log")
        )

    def _isotherm(self, host: Host, *arguments: str) -> Pod:
        pod = host.pod(arguments[0])
        self._start(pod, *ISOTHERM, *arguments, environment=self._own(pod))
        return pod

    def _own(self, pod: Pod) -> dict[str, str]:
        return {**self.settings, "ISOTHERM_HOST": pod.address, "ISOTHERM_DATA_DIR": str(self.directory / pod.name)}

    def _start(self, pod: Pod, *command: str, environment: Mapping[str, str] | None = None) -> None:
        pod.start(*command, log=self.directory / f"{pod.name}.log", environment=environment)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The stack on three hosts."""
    if reason := unavailable():
        missing(reason)
    directory = tmp_path_factory.mktemp("cluster")
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        lab.up()
        yield Cluster(lab, directory)


@pytest.fixture(scope="module")
def token(cluster: Cluster) -> str:
    """What the gateway on the third host shows."""
    cluster.run("devices", "add", GATEWAY, "--gateway")
    cluster.run("devices", "add", *DEVICES, "--via", GATEWAY)
    return str(cluster.run("devices", "token", GATEWAY)).split()[-1]


def test_what_a_sensor_on_the_third_host_sends_is_told_outside_by_the_api(cluster: Cluster, token: str) -> None:
    cluster.run("users", "add", "robot")
    shown = cluster.run("tokens", "create", "robot", "--scope", "read", "--json")
    bearer = json.loads(shown)["token"]

    said, _ = cluster.simulate(token, "--integers", "--for", "3").communicate(timeout=60)
    sent = json.loads(said.splitlines()[-1])
    assert sent["acknowledged"] == sent["sent"] > 0, said

    url = f"http://{cluster.web.address}:7300/api/v1/latest?series={DEVICES[0]}/*"
    expected = sent["sent"] // len(DEVICES) - 1

    def newest() -> float | None:
        answer = cluster.lab.outside.run("curl", "-sf", "-H", f"Authorization: Bearer {bearer}", url, check=False)
        rows = json.loads(answer.stdout)["items"] if answer.returncode == 0 else []
        return next((row["value"] for row in rows if row["series"] == f"{DEVICES[0]}/temperature"), None)

    wait_for(lambda: newest() == expected, f"the value {expected}; it is {newest()}; {cluster.logs()}")
    total = json.loads(cluster.run("ledger", "--json"))["total"]
    assert total["received"] == total["accepted"] == sent["sent"] and total["in_flight"] == 0


def test_who_shows_a_wrong_token_is_refused_across_the_overlay(cluster: Cluster) -> None:
    before = json.loads(cluster.run("ledger", "--json"))["total"]
    cluster.simulate("wrong", "--for", "1").communicate(timeout=60)
    after = json.loads(cluster.run("ledger", "--json"))["total"]
    assert after["rejected"] > before["rejected"] == 0
    assert after["accepted"] == before["accepted"]


async def test_its_line_grows_in_a_browser_outside(cluster: Cluster, token: str, tmp_path: Path) -> None:
    if reason := chromium.available():
        missing(reason)
    password = json.loads(cluster.run("users", "add", "olga", "--json"))["password"]
    outside = tmp_path / "chromium"
    # Without TLS, which a proxy would end, browsers keep our cookies for a localhost only: it is called one.
    web = "http://isotherm.localhost:7300"
    call = f"nsenter --net={cluster.lab.outside.path} -- {chromium.EXECUTABLE}"
    rules = f"MAP isotherm.localhost {cluster.web.address}"
    outside.write_text(f'#!/bin/sh\nexec {call} --host-resolver-rules="{rules}" "$@"\n')
    outside.chmod(0o755)
    sensors = cluster.simulate(token)
    try:
        async with chromium.chromium(executable=outside) as browser:
            page = browser.page
            await page.goto(f"{web}/device?id={DEVICES[0]}")
            await page.get_by_label("Name").fill("olga")
            await page.get_by_label("Password").fill(password)
            await page.get_by_role("button", name="Log in").click()
            await page.get_by_label("Password now").fill(password)
            await page.get_by_label("New password").fill(secrets.token_urlsafe())
            await page.get_by_role("button", name="Change password").click()
            await expect(page.get_by_text("Your password is changed")).to_be_visible()

            await browser.open(f"{web}/device?id={DEVICES[0]}")
            await page.wait_for_function(HAS_POINTS, arg=10)
            before = len(await page.evaluate(LIVE_POINTS))
            await page.wait_for_function(HAS_POINTS, arg=before + 2 * RATE_HZ)
            await page.screenshot(path=tmp_path / "outside.png")
            shown = await page.evaluate(LIVE_POINTS)
            assert browser.errors == []
    finally:
        sensors.kill()
    stored = json.loads(cluster.run("query", DEVICES[0], "temperature", "--last", "10m", "--points", "100000", "--json"))
    drawn = {value for value in shown if not math.isnan(value)}  # where nothing came for a while the line has a gap
    assert drawn and drawn <= {row["last"] for row in stored}
