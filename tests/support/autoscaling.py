"""What Kubernetes scales by, on a node: metrics-server and KEDA; programs and manifests are those of their modules."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import yaml

from tests.support.control_plane import BUILT, ControlPlane
from tests.support.manifests import Document, named, pod_of

METRICS_SERVER = {"metrics-server": "metrics-server"}
KEDA = {"keda-operator": "keda-operator", "keda-metrics-apiserver": "keda-adapter"}
"""Deployment → program."""

USER = 65532
"""As in the images, which these programs come from elsewhere."""


def available() -> str | None:
    """Say why there is none of it here, or None when there is."""
    files = {*METRICS_SERVER.values(), *KEDA.values(), "metrics-server.yaml", "keda.yaml"}
    absent = sorted(name for name in files if not (BUILT / name).exists())
    return f"{', '.join(absent)} not built: make k8s-lab" if absent else None


@contextmanager
def metrics_server(plane: ControlPlane) -> Iterator[None]:
    """metrics-server for the length of the block."""
    documents = _read("metrics-server.yaml", METRICS_SERVER)
    (container,) = pod_of(named(documents, "Deployment", "metrics-server"))["spec"]["containers"]
    container["args"].append("--kubelet-insecure-tls")  # a kubelet signs its certificate itself
    with _running(plane, documents, "v1beta1.metrics.k8s.io"):
        yield


@contextmanager
def keda(plane: ControlPlane) -> Iterator[None]:
    """KEDA's operator and its API of metrics for the length of the block, without webhooks, which check what is applied."""
    with _running(plane, _read("keda.yaml", KEDA), "v1beta1.external.metrics.k8s.io"):
        yield


def _read(name: str, programs: Mapping[str, str]) -> list[Document]:
    """Return manifests whose programs come from the node."""
    documents = [one for one in yaml.safe_load_all((BUILT / name).read_text()) if one]
    for deployment, program in programs.items():
        spec = pod_of(named(documents, "Deployment", deployment))["spec"]
        spec.setdefault("volumes", []).append({"name": "built", "hostPath": {"path": str(BUILT)}})
        (container,) = spec["containers"]
        container |= {"image": "localhost/pause:1", "imagePullPolicy": "Never", "command": [f"/built/{program}"]}
        container["securityContext"] |= {"runAsUser": USER}
        container["volumeMounts"].append({"name": "built", "mountPath": "/built", "readOnly": True})
        container["readinessProbe"] |= {"initialDelaySeconds": 0, "periodSeconds": 1}
    return documents


@contextmanager
def _running(plane: ControlPlane, documents: list[Document], api: str) -> Iterator[None]:
    applied = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    try:
        plane.kubectl("apply", "--server-side", "--filename=-", stdin=applied)
        plane.kubectl("wait", f"apiservice/{api}", "--for=condition=Available", "--timeout=280s")
        yield
    finally:
        plane.kubectl("delete", "--ignore-not-found", "--filename=-", stdin=applied)
