"""The overlay ``local`` under a kubelet: its pods as Kubernetes runs, probes, exchanges and ends them."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from tests.infra import fleets
from tests.infra.deployed import Deployed, assert_a_reading_is_seen, deploy
from tests.infra.fleets import LOAD, fleet_pod, wait_until_stored
from tests.infra.reach import assert_policies_hold
from tests.infra.test_pods import DEVICES, RATE
from tests.support.manifests import K8S, Document, named, render, workloads
from tests.support.node import Node

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]

WEB, HTTP = 30730, 30740
"""Of the node: infra/k8s/overlays/local/ports.yaml."""

DRAIN_SECONDS = 180.0
BACK_SECONDS = 120.0
POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Local(Deployed):
    """The overlay, as it runs on a node."""

    node: Node


@pytest.fixture(scope="module")
def local(one_node: Node) -> Local:
    said = deploy(one_node.plane, "deploy", "local")
    return Local(plane=one_node.plane, documents=render(K8S / "overlays/local"), said=said, node=one_node)


def test_every_workload_becomes_ready(local: Local) -> None:
    for one in workloads(local.documents):
        if one["kind"] != "Job":
            assert f"{one['kind'].lower()}/{one['metadata']['name']} is ready" in local.said
    local.kubectl("wait", "job/isotherm-topics", "--for=condition=Complete", "--timeout=60s")


async def test_a_reading_sent_to_the_nodes_port_is_seen_at_its_other(local: Local) -> None:
    address = local.node.machine.address
    await assert_a_reading_is_seen(local, f"{address}:{HTTP}", f"{address}:{WEB}")


def test_the_network_lets_through_what_the_policies_say_and_nothing_else(local: Local) -> None:
    assert_policies_hold(local)


def test_all_of_ours_is_exchanged_at_once_under_load_and_no_acknowledged_reading_is_lost(local: Local) -> None:
    simulator = named(local.documents, "Deployment", "isotherm-simulator")
    options = ("--rate", str(RATE), "--devices", str(DEVICES))
    pods = [fleet_pod(simulator, one, number, one, *options) for number, one in enumerate(LOAD)]
    fleets.start(local, pods, list(LOAD), DRAIN_SECONDS)

    ours = [f"{one['kind'].lower()}/{one['metadata']['name']}" for one in _ours(local)]
    local.kubectl("rollout", "restart", *ours)
    for one in ours:
        local.kubectl("rollout", "status", one, "--timeout=280s")

    wait_until_stored(local.isotherm, list(LOAD), fleets.end(local, list(LOAD)), DRAIN_SECONDS)


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
    assert "taken away" in deploy(local.plane, "undeploy", "local", "--yes")
    assert "isotherm" not in {one["metadata"]["name"] for one in local.plane.items("namespaces")}
    tasks = local.node.machine.run("ctr", "--namespace=k8s.io", "tasks", "ls", "--quiet").split()
    assert len(tasks) == 2, "CoreDNS and the namespaces of its pod are left"
    local.plane.until(
        lambda: "isotherm" not in local.node.machine.run("nft", "list", "ruleset"), "no rule of the network is of it"
    )
    assert "kube-dns" in local.node.machine.run("nft", "list", "ruleset")
