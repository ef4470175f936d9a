"""Images and manifests of this checkout, for pods."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.support import apache_kafka, images, node, nodes, pod_images
from tests.support.manifests import K8S, Document, load_deploy, render

HOST_IMAGE = "localhost/isotherm/host:latest"


@pytest.fixture(scope="session")
def registry() -> str:
    """In whose name this checkout's images are in podman's store."""
    if reason := images.available() or apache_kafka.available():
        missing(reason)
    return pod_images.registry()


@pytest.fixture(scope="session")
def local(registry: str, tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """The overlay ``local``, all of whose images come from there by the one setting of components/mirror."""
    return mirrored("local", registry, tmp_path_factory.mktemp("manifests"))


def mirrored(overlay: str, registry: str, folder: Path) -> list[Document]:
    """Render an overlay whose images come from a registry."""
    shutil.copytree(K8S, folder / "k8s")
    mirror = folder / "k8s/components/mirror/kustomization.yaml"
    mirror.write_text(mirror.read_text().replace("registry.example:5000", registry))
    return render(add_components(folder / "k8s/overlays" / overlay, "mirror"))


def add_components(overlay: Path, *names: str) -> Path:
    """Add components to a copy of an overlay, last."""
    kustomization = overlay / "kustomization.yaml"
    before, labels, after = kustomization.read_text().partition("labels:\n")
    if "components:\n" not in before:
        before += "components:\n"
    kustomization.write_text(before + "".join(f"  - ../../components/{name}\n" for name in names) + labels + after)
    return overlay


@pytest.fixture(scope="session")
def one_node() -> Iterator[node.Node]:
    """A Kubernetes of one node, on which the images of the overlay ``local`` and of virtual hosts lie."""
    if "ISOTHERM_K8S_LAB" not in os.environ:
        pytest.skip("a Kubernetes of one node, and what it is for, takes ten minutes: make k8s-lab")
    if reason := node.available() or apache_kafka.available():
        pytest.fail(reason)
    with node.running({**_images("local"), HOST_IMAGE: images.built("host", K8S.parent / "hosts")}) as running:
        yield running


@pytest.fixture(scope="session")
def three_nodes() -> Iterator[nodes.Cluster]:
    """A Kubernetes of three nodes on the overlay of infra/ovs, on which the images of the overlay ``cluster`` lie."""
    if "ISOTHERM_CLUSTER_LAB" not in os.environ:
        pytest.skip("a Kubernetes of three nodes, and what it is for, takes a quarter of an hour: make cluster-lab")
    if reason := nodes.available() or apache_kafka.available():
        pytest.fail(reason)
    with nodes.running(_images("cluster", "local")) as running:
        yield running


def _images(*overlays: str) -> dict[str, str]:
    """Return what overlays call their images, and what podman calls those of this checkout."""
    registry = pod_images.registry()
    names = {name for overlay in overlays for name in load_deploy().images_of(render(K8S / "overlays" / overlay))}
    return {_in_full(name): f"{registry}/{name.removeprefix('localhost/')}" for name in names}


def _in_full(name: str) -> str:
    """Return what a node calls an image."""
    registry, _, _ = name.rpartition("/")
    return name if registry.startswith("localhost") else f"docker.io/{name if registry else f'library/{name}'}"
