"""Autoscaling on Kubernetes itself: connectors by the CPU that metrics-server sees, workers by the lag that KEDA sees.

Thresholds and pauses are smaller than the product's, which a node of two CPUs would not get to, or only within half an hour;
what is measured, and what follows from it, are the product's own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.infra.fleets import Fleet, end_fleet, start_fleets, stored, wait_until_stored
from tests.infra.test_node import DRAIN_SECONDS, Local
from tests.support import autoscaling
from tests.support.manifests import K8S, named, render
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

LATE_RECORDS = 10_000
"""Five workers' work by the threshold of the product."""


@pytest.fixture(scope="module")
def k8s(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of infra/k8s, for an overlay of its own."""
    folder = tmp_path_factory.mktemp("scaled") / "k8s"
    shutil.copytree(K8S, folder)
    (folder / "overlays/scaled").mkdir()
    return folder


@pytest.fixture(scope="module")
def scaled(one_node: Node, k8s: Path) -> Iterator[Local]:
    """The overlay ``local`` with connectors and pages that are scaled."""
    if reason := autoscaling.available():
        pytest.fail(reason)
    with autoscaling.metrics_server(one_node.plane):
        try:
            said = deploy(one_node, k8s, "autoscaling")
            yield Local(one_node, render(k8s / "overlays/scaled"), said)
        finally:
            run(one_node, k8s, "undeploy", "--yes")


@pytest.fixture(scope="module")
def watched(scaled: Local, k8s: Path) -> Iterator[Local]:
    """The same with workers that are scaled as well."""
    with autoscaling.keda(scaled.node.plane):
        try:
            deploy(scaled.node, k8s, "autoscaling", "keda")
            yield scaled
        finally:  # while there is somebody who lets go of it
            scaled.kubectl("delete", "scaledobject", "isotherm-worker", "--ignore-not-found")


def deploy(node: Node, k8s: Path, *components: str) -> str:
    """Write the overlay and deploy it."""
    listed = ", ".join(f"../../components/{name}" for name in components)
    (k8s / "overlays/scaled/kustomization.yaml").write_text(OVERLAY.format(components=listed))
    return run(node, k8s, "deploy")


def run(node: Node, k8s: Path, what: str, *options: str) -> str:
    """Run the copy's deploy.py; raises AssertionError with what it says when it fails."""
    command = [sys.executable, str(k8s / "deploy.py"), what, "scaled", *options]
    done = subprocess.run(command, env=node.plane.environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_pods_use_is_known_of_every_part_that_is_scaled_by_it(scaled: Local) -> None:
    parts = {f"isotherm-{part}" for part in ("tcp", "http", "coap", "web")}
    scaled.node.plane.until(lambda: parts <= active(scaled), "what is scaled by is known")
    assert "isotherm-http" in scaled.kubectl("top", "pods")


def active(scaled: Local) -> set[str]:
    """Return the autoscalers that know what they go by."""
    found = set()
    for one in scaled.node.plane.items("horizontalpodautoscalers", "--namespace=isotherm"):
        conditions = {each["type"]: each["status"] for each in one["status"].get("conditions", ())}
        if conditions.get("ScalingActive") == "True" and one["status"].get("currentMetrics"):
            found.add(one["metadata"]["name"])
    return found


def test_a_connector_is_scaled_up_under_load_and_back_and_no_acknowledged_reading_is_lost(scaled: Local, k8s: Path) -> None:
    heavy, steady = Fleet("heavy", "http", devices=100, rate_hz=10, first=100), Fleet("steady", "http", 20, 0.5, first=200)
    start_fleets(scaled.kubectl, scaled.documents, [heavy])
    wait_for(scaled, "isotherm-http", lambda count: count > 1)
    run(scaled.node, k8s, "deploy", "--wait", "0")
    assert replicas(scaled, "isotherm-http")[0] > 1, "a deploy leaves it alone"
    start_fleets(scaled.kubectl, scaled.documents, [steady])  # which comes to all of them
    scaled.node.plane.until(lambda: stored(scaled.isotherm, FLEETS)[steady.name], "devices that came later are heard of")
    accounts = {heavy.name: end_fleet(scaled.kubectl, heavy.name)}
    wait_for(scaled, "isotherm-http", lambda count: count == 1)
    accounts[steady.name] = end_fleet(scaled.kubectl, steady.name)
    wait_until_stored(scaled.isotherm, FLEETS, accounts, DRAIN_SECONDS)


def test_workers_are_scaled_up_while_they_are_behind_and_back_and_nothing_is_stored_twice(watched: Local) -> None:
    pause(watched, "autoscaling.keda.sh/paused-replicas=0")
    wait_for(watched, "isotherm-worker", lambda count: count == 0)
    fleet = Fleet("late", "http", devices=50, rate_hz=10, first=300)
    start_fleets(watched.kubectl, watched.documents, [fleet])
    watched.node.plane.until(lambda: lag(watched) > LATE_RECORDS, "workers have something to do")
    pause(watched, "autoscaling.keda.sh/paused-replicas-")
    wait_for(watched, "isotherm-worker", lambda count: count == 3)
    account = end_fleet(watched.kubectl, fleet.name)
    wait_for(watched, "isotherm-worker", lambda count: count == 1)
    assert lag(watched) < 2000
    wait_until_stored(watched.isotherm, FLEETS, {fleet.name: account}, DRAIN_SECONDS)


def pause(scaled: Local, annotation: str) -> None:
    """Let KEDA keep a number, or, with a dash, go on."""
    scaled.kubectl("annotate", "scaledobject", "isotherm-worker", annotation)


def lag(scaled: Local) -> int:
    """Return what KEDA is told."""
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:7390/lag').read().decode())"
    answer = json.loads(scaled.kubectl("exec", "deployment/isotherm-web", "--", "python3", "-c", ask))
    return int(answer["records"])


def wait_for(scaled: Local, deployment: str, holds: Callable[[int], bool]) -> None:
    """Wait until a Deployment has such a number of pods, all of them ready."""
    deadline = time.monotonic() + SCALE_SECONDS
    while True:
        wanted, there, ready = replicas(scaled, deployment)
        if holds(wanted) and wanted == there == ready:
            return
        said = f"{deployment}: {ready} of {wanted} pods are ready"
        assert time.monotonic() < deadline, f"{said}\n{scaled.kubectl('describe', 'horizontalpodautoscalers')}"
        time.sleep(POLL_SECONDS)


def replicas(scaled: Local, deployment: str) -> tuple[int, int, int]:
    """Return how many pods a Deployment is to have, has, and has that are ready."""
    found = named(scaled.node.plane.items("deployments", "--namespace=isotherm"), "Deployment", deployment)
    return found["spec"]["replicas"], found["status"].get("replicas", 0), found["status"].get("readyReplicas", 0)
