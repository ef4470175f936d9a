"""``make deploy`` and ``make undeploy`` on Kubernetes itself: API server, admission and controllers, without nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support import control_plane
from tests.support.control_plane import ControlPlane
from tests.support.manifests import K8S, named, render

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

OURS = "app.kubernetes.io/part-of=isotherm"
NAMESPACES = {"local": "isotherm", "cluster": "isotherm", "gateway": "isotherm-gateway"}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    if reason := control_plane.available():
        if "ISOTHERM_K8S_LAB" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    with control_plane.running(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


def deploy(plane: ControlPlane, *arguments: str) -> str:
    """Run deploy.py; returns what it says, or why it refused."""
    done = subprocess.run(
        [sys.executable, K8S / "deploy.py", *arguments],
        env=plane.environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout if done.returncode == 0 else f"refused: {done.stderr}"


def of_the_cluster(plane: ControlPlane) -> set[tuple[str, str]]:
    """Return what there is that no namespace has."""
    kinds = "clusterroles,clusterrolebindings,storageclasses,persistentvolumes,customresourcedefinitions"
    return {(one["kind"], one["metadata"]["name"]) for one in plane.items(kinds)}


@pytest.mark.parametrize("overlay", NAMESPACES)
def test_an_overlay_is_admitted_runs_again_unchanged_and_leaves_nothing(plane: ControlPlane, overlay: str) -> None:
    namespace = NAMESPACES[overlay]
    if overlay == "cluster":
        plane.kubectl("create", "namespace", namespace)
        plane.kubectl("label", "namespace", namespace, OURS)
        plane.kubectl("create", "secret", "generic", "isotherm-tls", f"--namespace={namespace}")
    before = of_the_cluster(plane)

    assert "created" in deploy(plane, "deploy", overlay, "--wait", "0")
    owners = [one for one in render(K8S / "overlays" / overlay) if one["kind"] in ("Deployment", "StatefulSet")]

    def all_pods_are_made() -> bool:
        found = plane.items("deployments,statefulsets", f"--namespace={namespace}")
        return all(named(found, one["kind"], one["metadata"]["name"])["status"].get("replicas", 0) for one in owners)

    plane.until(all_pods_are_made, "the controllers make pods")  # PodSecurity refuses pods, not what owns them
    passwords = {one["metadata"]["name"]: one.get("data") for one in plane.items("secrets", f"--namespace={namespace}")}
    assert "created" not in deploy(plane, "deploy", overlay, "--wait", "0").replace("isotherm-topics created", "")
    again = {one["metadata"]["name"]: one.get("data") for one in plane.items("secrets", f"--namespace={namespace}")}
    assert again == passwords

    assert "taken away" in deploy(plane, "undeploy", overlay, "--yes")
    assert namespace not in {one["metadata"]["name"] for one in plane.items("namespaces")}
    assert of_the_cluster(plane) == before


def test_what_is_on_the_volumes_may_stay(plane: ControlPlane) -> None:
    deploy(plane, "deploy", "local", "--wait", "0")
    plane.until(lambda: len(plane.items("pvc", "--namespace=isotherm")) == 3, "the volumes are claimed")
    assert "are still there" in deploy(plane, "undeploy", "local", "--yes", "--keep-data")
    assert plane.items("deployments,statefulsets,services,jobs", "--namespace=isotherm") == []
    assert len(plane.items("pvc", "--namespace=isotherm")) == 3
    assert "created" in deploy(plane, "deploy", "local", "--wait", "0"), "it goes on with them"
    deploy(plane, "undeploy", "local", "--yes")


def test_what_is_in_the_way_is_said_and_nothing_is_changed(plane: ControlPlane) -> None:
    plane.kubectl("create", "service", "nodeport", "door", "--tcp=80", "--node-port=30731")
    plane.kubectl("create", "namespace", "isotherm-gateway")
    try:
        assert "the port 30731/TCP of the nodes is default/door's" in deploy(plane, "deploy", "local")
        assert "the Secret isotherm-tls is missing" in deploy(plane, "deploy", "cluster")
        assert "is there and is not Isotherm's" in deploy(plane, "deploy", "gateway")
        assert "is not Isotherm's; nothing was changed" in deploy(plane, "undeploy", "gateway", "--yes")
        assert "isotherm" not in {one["metadata"]["name"] for one in plane.items("namespaces")}
    finally:
        plane.kubectl("delete", "service", "door")
        plane.kubectl("delete", "namespace", "isotherm-gateway")


def test_what_does_not_become_ready_is_named_with_its_pods(plane: ControlPlane) -> None:
    said = deploy(plane, "deploy", "local", "--wait", "1")
    assert said.startswith("refused: deploy local: deployment/isotherm-analytics is not ready after 1 s")
    assert "kafka-0" in said and "Pending" in said
    deploy(plane, "undeploy", "local", "--yes")
