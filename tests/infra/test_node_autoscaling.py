"""Autoscaling on Kubernetes itself: connectors by the CPU that metrics-server sees, workers by the lag that KEDA sees.

Thresholds and pauses are smaller than the product's, which a node of two CPUs would not get to, or only within half an hour;
what is measured, and what follows from it, are the product's own.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.infra import deployed, fleets
from tests.infra.deployed import PATIENCE_SECONDS, Deployed
from tests.infra.fleets import fleet_pod, wait_until_stored
from tests.support import autoscaling
from tests.support.control_plane import ControlPlane
from tests.support.manifests import K8S, Document, named, render
from tests.support.node import Node

pytestmark = [pytest.mark.servers, pytest.mark.timeout(1200)]

OVERLAY = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: isotherm
resources: [../local]
components: [{components}]
labels:
  - pairs: {{app.kubernetes.io/part-of: isotherm}}
    includeTemplates: true
patches:
  - target: {{kind: HorizontalPodAutoscaler}}
    patch: |
      - {{op: replace, path: /spec/minReplicas, value: 1}}
      - {{op: replace, path: /spec/maxReplicas, value: 3}}
      - {{op: replace, path: /spec/behavior/scaleDown, value: {{stabilizationWindowSeconds: 15}}}}
  - target: {{kind: HorizontalPodAutoscaler, name: isotherm-http}}
    patch: |
      - {{op: replace, path: /spec/metrics/0/resource/target/averageValue, value: 30m}}
  - target: {{kind: ScaledObject}}
    patch: |
      - {{op: replace, path: /spec/minReplicaCount, value: 1}}
      - {{op: replace, path: /spec/maxReplicaCount, value: 3}}
      - op: replace
        path: /spec/advanced/horizontalPodAutoscalerConfig/behavior/scaleDown
        value: {{stabilizationWindowSeconds: 15}}
  # So that what they have to catch up with takes them longer than it takes to see that they are late.
  - target: {{kind: Deployment, name: isotherm-worker}}
    patch: |
      - {{op: add, path: /spec/template/spec/containers/0/resources/limits/cpu, value: 200m}}
"""

FLEETS = ("heavy", "steady", "late")

SCALE_SECONDS = 240.0
"""The controller looks every 15 s, at what was measured within 15 s; then a process of ours takes some seconds to start."""

POLL_SECONDS = 0.5

LATE_RECORDS = 40_000
"""Twenty workers' work by the threshold of the product: more than one is done with before the autoscaler looks."""


@pytest.fixture(scope="module")
def k8s(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of infra/k8s, for an overlay of its own."""
    folder = tmp_path_factory.mktemp("scaled") / "k8s"
    shutil.copytree(K8S, folder)
    (folder / "overlays/scaled").mkdir()
    return folder


@pytest.fixture(scope="module")
def scaled(one_node: Node, k8s: Path) -> Iterator[Deployed]:
    """The overlay ``local`` with connectors and pages that are scaled."""
    if reason := autoscaling.available():
        pytest.fail(reason)
    with autoscaling.metrics_server(one_node.plane):
        try:
            said = deploy(one_node.plane, k8s, "autoscaling")
            yield Deployed(one_node.plane, render(k8s / "overlays/scaled"), said)
        finally:
            deployed.deploy(one_node.plane, "undeploy", "scaled", "--yes", k8s=k8s)


@pytest.fixture(scope="module")
def watched(scaled: Deployed, k8s: Path) -> Iterator[Deployed]:
    """The same with workers that are scaled as well."""
    with autoscaling.keda(scaled.plane):
        try:
            deploy(scaled.plane, k8s, "autoscaling", "keda")
            yield scaled
        finally:  # while there is somebody who lets go of it
            scaled.kubectl("delete", "scaledobject", "isotherm-worker", "--ignore-not-found")


def deploy(plane: ControlPlane, k8s: Path, *components: str) -> str:
    """Write the overlay and deploy it."""
    listed = ", ".join(f"../../components/{name}" for name in components)
    (k8s / "overlays/scaled/kustomization.yaml").write_text(OVERLAY.format(components=listed))
    return deployed.deploy(plane, "deploy", "scaled", k8s=k8s)


def test_what_pods_use_is_known_of_every_part_that_is_scaled_by_it(scaled: Deployed) -> None:
    parts = {f"isotherm-{part}" for part in ("tcp", "http", "coap", "web")}
    scaled.plane.until(lambda: parts <= active(scaled), "what is scaled by is known")
    assert "isotherm-http" in scaled.kubectl("top", "pods")


def active(scaled: Deployed) -> set[str]:
    """Return the autoscalers that know what they go by."""
    found = set()
    for one in scaled.plane.items("horizontalpodautoscalers", "--namespace=isotherm"):
        conditions = {each["type"]: each["status"] for each in one["status"].get("conditions", ())}
        if conditions.get("ScalingActive") == "True" and one["status"].get("currentMetrics"):
            found.add(one["metadata"]["name"])
    return found


def test_a_connector_is_scaled_up_under_load_and_back_and_no_reading_is_lost(scaled: Deployed, k8s: Path) -> None:
    fleets.start(scaled, [fleet(scaled, "heavy", devices=100, rate_hz=10)], FLEETS, PATIENCE_SECONDS)
    wait_for(scaled, "isotherm-http", lambda count: count > 1)
    deployed.deploy(scaled.plane, "deploy", "scaled", "--wait", "0", k8s=k8s)
    assert replicas(scaled, "isotherm-http")[0] > 1, "a deploy leaves it alone"
    # These come to all of the pods there are.
    fleets.start(scaled, [fleet(scaled, "steady", devices=20, rate_hz=0.5)], FLEETS, PATIENCE_SECONDS)
    accounts = fleets.end(scaled, ["heavy"])
    wait_for(scaled, "isotherm-http", lambda count: count == 1)
    accounts |= fleets.end(scaled, ["steady"])
    wait_until_stored(scaled.isotherm, FLEETS, accounts, PATIENCE_SECONDS)


def test_workers_are_scaled_up_while_they_are_behind_and_back_and_nothing_is_stored_twice(watched: Deployed) -> None:
    pause(watched, "autoscaling.keda.sh/paused-replicas=0")
    wait_for(watched, "isotherm-worker", lambda count: count == 0)
    fleets.send(watched, [fleet(watched, "late", devices=50, rate_hz=10)])
    watched.plane.until(lambda: lag(watched) > LATE_RECORDS, "workers have something to do")
    pause(watched, "autoscaling.keda.sh/paused-replicas-")
    wait_for(watched, "isotherm-worker", lambda count: count == 3)
    accounts = fleets.end(watched, ["late"])
    wait_for(watched, "isotherm-worker", lambda count: count == 1)
    assert lag(watched) < 2000
    wait_until_stored(watched.isotherm, FLEETS, accounts, PATIENCE_SECONDS)


def fleet(scaled: Deployed, name: str, *, devices: int, rate_hz: float) -> Document:
    """Return the pod of a fleet that sends over HTTP."""
    simulator = named(scaled.documents, "Deployment", "isotherm-simulator")
    options = ("--devices", str(devices), "--rate", str(rate_hz))
    return fleet_pod(simulator, name, FLEETS.index(name), "http", *options)


def pause(scaled: Deployed, annotation: str) -> None:
    """Let KEDA keep a number, or, with a dash, go on."""
    scaled.kubectl("annotate", "scaledobject", "isotherm-worker", annotation)


def lag(scaled: Deployed) -> int:
    """Return what KEDA is told."""
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:7390/lag').read().decode())"
    answer = json.loads(scaled.kubectl("exec", "deployment/isotherm-web", "--", "python3", "-c", ask))
    return int(answer["records"])


def wait_for(scaled: Deployed, deployment: str, holds: Callable[[int], bool]) -> None:
    """Wait until a Deployment has such a number of pods, all of them ready."""
    deadline = time.monotonic() + SCALE_SECONDS
    while True:
        wanted, there, ready = replicas(scaled, deployment)
        if holds(wanted) and wanted == there == ready:
            return
        said = f"{deployment}: {ready} of {wanted} pods are ready"
        assert time.monotonic() < deadline, f"{said}\n{scaled.kubectl('describe', 'horizontalpodautoscalers')}"
        time.sleep(POLL_SECONDS)


def replicas(scaled: Deployed, deployment: str) -> tuple[int, int, int]:
    """Return how many pods a Deployment is to have, has, and has that are ready."""
    found = named(scaled.plane.items("deployments", "--namespace=isotherm"), "Deployment", deployment)
    return found["spec"]["replicas"], found["status"].get("replicas", 0), found["status"].get("readyReplicas", 0)
