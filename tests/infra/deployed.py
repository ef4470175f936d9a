"""What is deployed on a cluster with nodes, as a user of kubectl and of our own commands has it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.support.control_plane import ControlPlane
from tests.support.manifests import K8S, Document

PATIENCE_SECONDS = 180.0
POLL_SECONDS = 0.5
PASSING = ("does not answer", "Internal error occurred", "container not found")
"""What the store says when it is slow, and Kubernetes when a container has just ended."""


@dataclass(frozen=True)
class Deployed:
    """An overlay, as it runs.

    Attributes:
        plane: Where.
        documents: What it is made of.
        said: By deploy.py.
        desk: Where commands of ours run.
    """

    plane: ControlPlane
    documents: list[Document]
    said: str
    desk: str = "deployment/isotherm-web"

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.plane.kubectl("--namespace=isotherm", *arguments, stdin=stdin)

    def isotherm(self, *command: str) -> str:
        """Run a command of ours in a web pod; one that the store was too slow for, or its pod, may be tried again."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self.kubectl("exec", self.desk, "--", "python3", "-m", "isotherm", *command)
            except AssertionError as error:
                if not any(one in str(error) for one in PASSING) or time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS)

    def pods(self) -> list[Document]:
        return self.plane.items("pods", "--namespace=isotherm")


def deploy(plane: ControlPlane, *arguments: str, k8s: Path = K8S) -> str:
    """Run deploy.py, of a copy of infra/k8s if need be; raises AssertionError with what it says when it fails."""
    command = [sys.executable, str(k8s / "deploy.py"), *arguments]
    done = subprocess.run(command, env=plane.environment, capture_output=True, text=True, timeout=700, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def assert_a_reading_is_seen(deployed: Deployed, intake: str, web: str, **headers: str) -> None:
    """Send a reading of a new device, and see it among the latest.

    Args:
        deployed: Where device and user are registered.
        intake: HOST:PORT of an HTTP connector.
        web: HOST:PORT of the API.
        headers: Of what is asked there.
    """
    deployed.isotherm("devices", "add", "kitchen")
    token = deployed.isotherm("devices", "token", "kitchen").strip()
    deployed.isotherm("users", "add", "anna", "--role", "admin")
    key = json.loads(deployed.isotherm("tokens", "create", "anna", "--scope", "series:read", "--json"))["token"]
    async with aiohttp.ClientSession() as session:
        async with session.post(
            f"http://{intake}/api/v1/readings",
            data=b'{"n":"kitchen/temperature","u":"Cel","v":21.5}',
            headers={"Authorization": f"Bearer {token}"},
        ) as answer:
            assert answer.status == 204, await answer.text()
        items: list[Document] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not items:
                url = f"http://{web}/api/v1/latest?series=kitchen/*"
                async with session.get(url, headers={"Authorization": f"Bearer {key}", **headers}) as answer:
                    items = (await answer.json())["items"]
    assert [(one["device"], one["value"]) for one in items] == [("kitchen", 21.5)]
