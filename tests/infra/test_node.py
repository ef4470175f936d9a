"""The overlay ``local`` under a kubelet: its pods as Kubernetes runs, probes, exchanges and ends them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import aiohttp
import pytest

from tests.infra.fleets import LOAD, Fleet, end_fleet, start_fleets, stored, wait_until_stored
from tests.infra.test_network import ANYWHERE, Network
from tests.infra.test_pods import DEVICES, RATE
from tests.support.manifests import K8S, Document, named, pod_of, render, workloads
from tests.support.node import Node

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]

WEB, HTTP = 30730, 30740
"""Of the node: infra/k8s/overlays/local/ports.yaml."""

REACH = """\
import socket, sys
from concurrent.futures import ThreadPoolExecutor

def reaches(target):
    host, _, port = target.partition(":")
    try:
        socket.create_connection((host, int(port)), 20).close()
    except OSError:
        return False
    return True

with ThreadPoolExecutor(32) as pool:
    print(*(target for target, reached in zip(sys.argv[1:], pool.map(reaches, sys.argv[1:])) if reached))
"""
"""Prints those of its arguments, HOST:PORT, at which somebody answers."""

DRAIN_SECONDS = 180.0
BACK_SECONDS = 120.0
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Local:
    """The overlay, as it runs on a node."""

    node: Node
    documents: list[Document]
    said: str
    """By deploy.py."""

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.node.plane.kubectl("--namespace=isotherm", *arguments, stdin=stdin)

    def isotherm(self, *command: str) -> str:
        """Run a command of ours in the web pod; one that the store was too slow for may be tried again."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while True:
            try:
                return self.kubectl("exec", "deployment/isotherm-web", "--", "python3", "-m", "isotherm", *command)
            except AssertionError as error:
                if "does not answer" not in str(error) or time.monotonic() > deadline:
                    raise

    def pods(self) -> list[Document]:
        return self.node.plane.items("pods", "--namespace=isotherm")


def deploy(node: Node, *arguments: str) -> str:
    """Run deploy.py; raises AssertionError with what it says when it fails."""
    command = [sys.executable, str(K8S / "deploy.py"), *arguments]
    done = subprocess.run(command, env=node.plane.environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def local(one_node: Node) -> Local:
    return Local(one_node, render(K8S / "overlays/local"), deploy(one_node, "deploy", "local"))


def test_every_workload_becomes_ready(local: Local) -> None:
    for one in workloads(local.documents):
        if one["kind"] != "Job":
            assert f"{one['kind'].lower()}/{one['metadata']['name']} is ready" in local.said
    local.kubectl("wait", "job/isotherm-topics", "--for=condition=Complete", "--timeout=60s")


async def test_a_reading_sent_to_the_nodes_port_is_seen_at_its_other(local: Local) -> None:
    local.isotherm("devices", "add", "kitchen")
    token = local.isotherm("devices", "token", "kitchen").strip()
    local.isotherm("users", "add", "anna", "--role", "admin")
    key = json.loads(local.isotherm("tokens", "create", "anna", "--scope", "series:read", "--json"))["token"]
    address = local.node.machine.address
    async with aiohttp.ClientSession() as session:
        async with session.post(
            f"http://{address}:{HTTP}/api/v1/readings",
            data=b'{"n":"kitchen/temperature","u":"Cel","v":21.5}',
            headers={"Authorization": f"Bearer {token}"},
        ) as answer:
            assert answer.status == 204, await answer.text()
        items: list[Document] = []
        async with asyncio.timeout(DRAIN_SECONDS):
            while not items:
                url = f"http://{address}:{WEB}/api/v1/latest?series=kitchen/*"
                async with session.get(url, headers={"Authorization": f"Bearer {key}"}) as answer:
                    items = (await answer.json())["items"]
    assert [(one["device"], one["value"]) for one in items] == [("kitchen", 21.5)]


def test_the_network_lets_through_what_the_policies_say_and_nothing_else(local: Local) -> None:
    network = Network(local.documents)
    addresses = {one["metadata"]["labels"]["app.kubernetes.io/component"]: one["status"]["podIP"] for one in local.pods()}
    targets = {
        f"{addresses[component]}:{port}": (component, protocol, port)
        for component, protocol, port in network.ports()
        if protocol == "TCP"
    }

    def reached(component: str, *pod: str) -> set[tuple[str, str, int]]:
        others = [address for address, (target, *_) in targets.items() if target != component]
        said = local.node.plane.kubectl("exec", *pod, "--", "python3", "-c", REACH, *others)
        return {targets[one] for one in said.split()}

    for component in ("tcp", "http", "coap", "mqtt", "worker", "analytics", "web", "simulator"):
        kind = "statefulset" if component == "mqtt" else "deployment"
        may = {one for one in targets.values() if one[0] != component and network.may(component, *one)}
        assert reached(component, "--namespace=isotherm", f"{kind}/isotherm-{component}") == may, component
    with _stranger(local):
        assert reached("", "stranger") == {one for one in targets.values() if network.may(ANYWHERE, *one)}


@contextmanager
def _stranger(local: Local) -> Iterator[None]:
    """A pod called so, of another namespace."""
    image = pod_of(named(local.documents, "Deployment", "isotherm-tcp"))["spec"]["containers"][0]["image"]
    command = ["python3", "-c", "import signal; signal.pause()"]
    local.node.plane.kubectl("run", "stranger", f"--image={image}", "--command", "--", *command)
    try:
        local.node.plane.kubectl("wait", "pod/stranger", "--for=condition=Ready", "--timeout=60s")
        yield
    finally:
        local.node.plane.kubectl("delete", "pod", "stranger", "--now")


def test_all_of_ours_is_exchanged_at_once_under_load_and_no_acknowledged_reading_is_lost(local: Local) -> None:
    fleets = [Fleet(protocol, protocol, DEVICES, RATE, first=100 * number) for number, protocol in enumerate(LOAD, start=1)]
    start_fleets(local.kubectl, local.documents, fleets)
    deadline = time.monotonic() + DRAIN_SECONDS
    while not all((found := stored(local.isotherm, list(LOAD)))[protocol] for protocol in LOAD):
        assert time.monotonic() < deadline, f"not all are stored: {found}"

    ours = [f"{one['kind'].lower()}/{one['metadata']['name']}" for one in _ours(local)]
    local.kubectl("rollout", "restart", *ours)
    for one in ours:
        local.kubectl("rollout", "status", one, "--timeout=280s")

    accounts = {protocol: end_fleet(local.kubectl, protocol) for protocol in LOAD}
    wait_until_stored(local.isotherm, list(LOAD), accounts, DRAIN_SECONDS)


def _ours(local: Local) -> list[Document]:
    return [one for one in workloads(local.documents) if one["metadata"]["labels"].get("isotherm/process") == "true"]


def test_a_process_that_is_killed_is_started_again(local: Local) -> None:
    (pod,) = [one for one in local.pods() if one["metadata"]["name"].startswith("isotherm-tcp-")]
    name = pod["metadata"]["name"]
    (container,) = pod["status"]["containerStatuses"]
    local.node.machine.run(
        "ctr",
        "--namespace=k8s.io",
        "tasks",
        "kill",
        "--signal=SIGKILL",
        container["containerID"].removeprefix("containerd://"),
    )
    deadline = time.monotonic() + BACK_SECONDS
    while True:
        (now,) = named(local.pods(), "Pod", name)["status"]["containerStatuses"]
        if now["restartCount"] == container["restartCount"] + 1 and now["ready"]:
            break
        assert time.monotonic() < deadline, now
        time.sleep(POLL_SECONDS)


def test_what_is_taken_away_leaves_nothing_on_the_node(local: Local) -> None:
    assert "taken away" in deploy(local.node, "undeploy", "local", "--yes")
    assert "isotherm" not in {one["metadata"]["name"] for one in local.node.plane.items("namespaces")}
    tasks = local.node.machine.run("ctr", "--namespace=k8s.io", "tasks", "ls", "--quiet").split()
    assert len(tasks) == 2, "CoreDNS and the namespaces of its pod are left"
    local.node.plane.until(
        lambda: "isotherm" not in local.node.machine.run("nft", "list", "ruleset"), "no rule of the network is of it"
    )
    assert "kube-dns" in local.node.machine.run("nft", "list", "ruleset")
