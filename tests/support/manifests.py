"""Rendered manifests: what kustomize makes of a folder below infra/k8s, as dictionaries."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

Document = dict[str, Any]

K8S = Path(__file__).resolve().parents[2] / "infra/k8s"
SCALERS = ("HorizontalPodAutoscaler", "ScaledObject")
POD_OWNERS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")


def kubectl() -> str:
    """Return the path of kubectl: that of the project's environment, else the machine's.

    Raises:
        FileNotFoundError: there is none.
    """
    own = Path(sys.executable).with_name("kubectl")
    found = str(own) if own.exists() else shutil.which("kubectl")
    if found is None:
        raise FileNotFoundError("kubectl is not installed: make setup installs it")
    return found


def load_deploy() -> ModuleType:
    """Return infra/k8s/deploy.py as a module: it is a program, and in no package."""
    spec = importlib.util.spec_from_file_location("deploy", K8S / "deploy.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["deploy"] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


@functools.cache
def _rendered(folder: Path) -> str:
    command = [kubectl(), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(folder: Path) -> list[Document]:
    """Return the documents of a kustomization."""
    return [document for document in yaml.safe_load_all(_rendered(folder)) if document]


def pod_of(document: Document) -> Document:
    """Return the template of the pods of a workload: its metadata and spec."""
    spec = document["spec"]
    template: Document = (spec["jobTemplate"]["spec"] if document["kind"] == "CronJob" else spec)["template"]
    return template


def workloads(documents: list[Document]) -> list[Document]:
    """Return what owns pods."""
    return [document for document in documents if document["kind"] in POD_OWNERS]


def named(documents: list[Document], kind: str, name: str) -> Document:
    """Return one of them."""
    (found,) = [one for one in documents if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def bounds(scaler: Document) -> tuple[int, int]:
    """Return how many pods a scaler keeps at least and at most."""
    spec = scaler["spec"]
    low, high = (spec.get(f"{end}Replicas", spec.get(f"{end}ReplicaCount")) for end in ("min", "max"))
    return low, high


def least_of(workload: Document, documents: list[Document]) -> int:
    """Return how many pods a workload has: its own number, or at least what its scaler keeps."""
    for one in documents:
        if one["kind"] in SCALERS and one["spec"]["scaleTargetRef"]["name"] == workload["metadata"]["name"]:
            return bounds(one)[0]
    return int(workload["spec"]["replicas"])


def matches(selector: Document, labels: Document) -> bool:
    """Tell whether a label selector selects labels. ``{}`` selects everything."""
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "In", "others are not used"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
