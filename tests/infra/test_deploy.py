"""``make deploy`` finds what is in the way before it changes something."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.manifests import K8S, Document, load_deploy, render

deploy = load_deploy()
LOCAL = render(K8S / "overlays/local")
CLUSTER = render(K8S / "overlays/cluster")


def cluster(documents: list[Document], **changes: Any) -> Any:
    """Return a cluster that lacks nothing."""
    others = deploy.secrets_of(documents) - set(deploy.made_secrets(documents))
    found = deploy.Cluster(
        version=(1, 34),
        kinds={(one["apiVersion"].rpartition("/")[0], one["kind"]) for one in documents},
        secrets=others,
        node_images={"node-1": deploy.images_of(documents)},
    )
    return dataclasses.replace(found, **changes)


@pytest.mark.parametrize("documents", [LOCAL, CLUSTER, render(K8S / "overlays/gateway")])
def test_nothing_is_in_the_way_of_a_good_cluster(documents: list[Document]) -> None:
    assert list(deploy.problems(documents, cluster(documents))) == []


def test_a_cluster_that_cannot_scale_by_what_pods_use_is_told_of() -> None:
    assert list(deploy.remarks(LOCAL, cluster(LOCAL))) == []
    (found,) = deploy.remarks(CLUSTER, cluster(CLUSTER))
    assert found.endswith("install metrics-server")
    known = cluster(CLUSTER).kinds | {("metrics.k8s.io", "PodMetrics")}
    assert list(deploy.remarks(CLUSTER, cluster(CLUSTER, kinds=known))) == []


def test_an_old_cluster_is_refused() -> None:
    assert list(deploy.problems(LOCAL, cluster(LOCAL, version=(1, 28)))) == [
        "the cluster is Kubernetes 1.28: 1.30 or later is needed"
    ]


def test_a_namespace_of_somebody_else_is_refused_and_ours_is_not() -> None:
    foreign: Document = {"isotherm": {"metadata": {"labels": {}}}}
    ours = {"isotherm": {"metadata": {"labels": {"app.kubernetes.io/part-of": "isotherm"}}}}
    assert "is not Isotherm's" in next(deploy.problems(LOCAL, cluster(LOCAL, namespaces=foreign)))
    assert list(deploy.problems(LOCAL, cluster(LOCAL, namespaces=ours))) == []


def test_a_port_that_another_service_has_is_refused_and_our_own_is_not() -> None:
    taken = {(30731, "TCP"): "shop/door", (30730, "TCP"): "isotherm/isotherm-web"}
    assert list(deploy.problems(LOCAL, cluster(LOCAL, node_ports=taken))) == [
        "the port 30731/TCP of the nodes is shop/door's: choose another for isotherm-tcp"
    ]


def test_a_secret_that_only_people_can_make_is_missed() -> None:
    (found,) = deploy.problems(CLUSTER, cluster(CLUSTER, secrets=set()))
    assert found.startswith("the Secret isotherm-tls is missing")


def test_secrets_that_belong_together_are_not_made_anew_in_part() -> None:
    (found,) = deploy.problems(LOCAL, cluster(LOCAL, secrets={"isotherm", "kafka"}))
    assert found.startswith("the Secrets isotherm, kafka are there and valkey not, which belong together")


def test_an_image_that_is_nowhere_is_missed_with_its_nodes() -> None:
    lacking = deploy.images_of(LOCAL) - {"localhost/isotherm-web:0.1.0"}
    nodes = {"node-1": deploy.images_of(LOCAL), "node-2": lacking}
    (found,) = deploy.problems(LOCAL, cluster(LOCAL, node_images=nodes))
    assert found.startswith("the image localhost/isotherm-web:0.1.0 is not on node-2 and cannot be pulled")


def test_a_kind_that_the_cluster_does_not_know_names_its_operator() -> None:
    document = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "x"}, "spec": {}}
    (found,) = deploy.problems([*LOCAL, document], cluster(LOCAL))
    assert found == "the cluster knows no ScaledObject: install KEDA, or leave its component out"


def test_a_cluster_without_volumes_is_refused() -> None:
    (found,) = deploy.problems(LOCAL, cluster(LOCAL, storage_classes=False))
    assert "no default StorageClass" in found


def test_passwords_are_made_by_chance_and_agree() -> None:
    first, second = deploy.made_secrets(LOCAL), deploy.made_secrets(LOCAL)
    password = first["isotherm"]["ISOTHERM_REDIS"].split(":")[2].split("@")[0]
    assert f"requirepass {password}\n" in first["valkey"]["password.conf"]
    assert first != second and len(password) >= 32


def test_the_program_says_in_a_line_what_is_wrong(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "KUBECONFIG": str(tmp_path / "none")}
        done = subprocess.run(
            [sys.executable, K8S / "deploy.py", *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1 and "Traceback" not in done.stderr
        return done.stderr

    assert run("deploy", "locl") == "deploy locl: there is no overlay 'locl': expected cluster, gateway, local\n"
    assert "no cluster answers" in run("deploy", "local")
