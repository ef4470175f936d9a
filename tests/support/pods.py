"""Pods of rendered manifests in podman: what a cluster of one node makes of them.

Each pod is what its Deployment, StatefulSet or Job says, by ``podman kube play``; what podman does not do of a cluster's
work is done here: numbers of StatefulSets' pods, names of Services (as aliases in a network of the run's own), readiness,
claims. Left out are network policies, which tests/infra/test_network.py works out, and preStop: a name goes with the pod.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from tests.support import images
from tests.support.manifests import Document, named, pod_of, workloads

READY_SECONDS = 120.0
POLL_SECONDS = 0.1
LOG_LINES = 30


@dataclass(frozen=True, slots=True)
class Pod:
    """One that runs.

    Attributes:
        name: What podman calls it.
        host: What it calls itself.
        workload: The document that it is of.
        address: In the network of the run.
    """

    name: str
    host: str
    workload: Document
    address: str


class Pods:
    """The pods of some documents; leaves nothing behind."""

    def __init__(self, documents: list[Document]) -> None:
        self._documents = documents
        self._run = f"iso{os.getpid()}"
        self._secrets: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Self:
        remove(self._run)
        images.podman("network", "create", "--label", f"isotherm-test={self._run}", self._run)
        return self

    def __exit__(self, *_: object) -> None:
        remove(self._run)

    def secret(self, name: str, **files: str) -> None:
        """Create a Secret."""
        self._secrets[name] = files

    def start(self, workload: str, ordinal: int = 0, args: list[str] | None = None) -> Pod:
        """Start a pod of a workload and wait until it is ready; of a Job, until it is done.

        Args:
            workload: Its name.
            ordinal: Which of its pods.
            args: What its first container does instead.

        Raises:
            AssertionError: it does not become so; says what the pod said.
        """
        (document,) = [one for one in workloads(self._documents) if one["metadata"]["name"] == workload]
        host = f"{workload}-{ordinal}"
        name = f"{self._run}-{host}"
        options = [f"alias={alias}" for alias in self._aliases(document, host)]
        with tempfile.TemporaryDirectory() as folder:
            manifest = Path(folder, "pod.yaml")
            manifest.write_text(yaml.safe_dump_all(self._pod(document, name, host, ordinal, args)))
            images.podman("kube", "play", "--network", ":".join((self._run, ",".join(options))), str(manifest))
        pod = Pod(name, host, document, self._address(name))
        if document["kind"] == "Job":
            self._wait_until_done(pod)
        else:
            self._wait_until_ready(pod)
        return pod

    def stop(self, pod: Pod) -> None:
        """End a pod as a cluster does: SIGTERM, and after its grace SIGKILL; what is on its claims stays."""
        grace = pod_of(pod.workload)["spec"].get("terminationGracePeriodSeconds", 30)
        images.podman("pod", "stop", "--time", str(grace), pod.name)
        images.podman("pod", "rm", "--force", pod.name)
        self._remove_volumes(f"{pod.name}-")

    def run(self, pod: Pod, *command: str) -> str:
        """Run a command of ours in a pod's first container, and return what it prints."""
        return images.podman("exec", self._first(pod), "python3", "-m", "isotherm", *command)

    def logs(self, pod: Pod) -> str:
        """Return what a pod has said at last."""
        said = subprocess.run(
            ["podman", "pod", "logs", "--tail", str(LOG_LINES), pod.name],
            env=os.environ | images.ENVIRONMENT, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        return said.stdout + said.stderr

    def wait(self, pod: Pod) -> str:
        """Wait until a pod's first container has ended by itself, and return what it printed."""
        images.podman("wait", self._first(pod))
        return images.podman("logs", self._first(pod))

    def inspect(self, pod: Pod) -> dict[str, Any]:
        """Return what podman knows of a pod's first container."""
        (found,) = json.loads(images.podman("inspect", self._first(pod)))
        return dict(found)

    def kill(self, pod: Pod, number: str) -> None:
        """Send a signal to a pod's first container."""
        images.podman("kill", "--signal", number, self._first(pod))

    @staticmethod
    def _first(pod: Pod) -> str:
        return f"{pod.name}-{pod_of(pod.workload)['spec']['containers'][0]['name']}"

    def _aliases(self, document: Document, host: str) -> Iterator[str]:
        labels = pod_of(document)["metadata"]["labels"]
        for service in self._documents:
            if service["kind"] == "Service" and service["spec"]["selector"].items() <= labels.items():
                name = service["metadata"]["name"]
                yield name
                if document["spec"].get("serviceName") == name:
                    yield f"{host}.{name}"
        yield host

    def _pod(self, document: Document, name: str, host: str, ordinal: int, args: list[str] | None) -> list[Document]:
        template = copy.deepcopy(pod_of(document))
        spec = template["spec"]
        spec["hostname"] = host
        # With Always podman 4.3 also restarts init containers, for ever.
        spec["restartPolicy"] = "OnFailure" if args is None else "Never"
        if args is not None:
            spec["containers"][0]["args"] = args
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            for left_to_us in ("ports", "startupProbe", "livenessProbe", "readinessProbe", "lifecycle"):
                container.pop(left_to_us, None)
            for variable in container.get("env", ()):
                if "pod-index" in str(variable.get("valueFrom")):
                    variable.pop("valueFrom")
                    variable["value"] = str(ordinal)
        further = list(self._volumes(document, name, host, spec))
        sources = [entry["configMapRef"]["name"] for one in spec["containers"] for entry in one.get("envFrom", ())]
        further += [self._config(source, source) for source in sorted(set(sources))]
        metadata = {**template["metadata"], "name": name}
        return [{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, *further]

    def _volumes(self, document: Document, name: str, host: str, spec: Document) -> Iterator[Document]:
        """Yield what the volumes of a pod are made of, under names of its own, and tell the pod."""
        for volume in list(spec.setdefault("volumes", [])):
            if source := volume.get("secret") or volume.get("configMap"):
                what = source.get("secretName") or source["name"]
                if source.get("optional") and not self._has(what):
                    volume.pop("configMap")
                    volume["emptyDir"] = {}
                    continue
                own = f"{name}-config-{what}"
                volume.pop("secret", None)
                # podman 4.3 ends with a nil pointer where optional is not said, and does not decode secrets.
                volume["configMap"] = {"name": own, "optional": False}
                yield self._config(what, own)
        # podman 4.3 makes a volume of that very name of each emptyDir: all pods of the machine would share it.
        own_names = {one["name"]: f"{name}-{one['name']}" for one in spec["volumes"] if "emptyDir" in one}
        for one in spec["volumes"]:
            one["name"] = own_names.get(one["name"], one["name"])
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            for mount in container.get("volumeMounts", ()):
                mount["name"] = own_names.get(mount["name"], mount["name"])
        for claim in document["spec"].get("volumeClaimTemplates", ()):
            own = f"{self._run}-claim-{host}-{claim['metadata']['name']}"
            spec["volumes"].append({"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": own}})
            if not self._exists(own):
                yield {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": own}, "spec": claim["spec"]}

    def _has(self, name: str) -> bool:
        return name in self._secrets or any(
            one["kind"] in ("ConfigMap", "Secret") and one["metadata"]["name"] == name for one in self._documents
        )

    def _config(self, name: str, own: str) -> Document:
        data = self._secrets.get(name) or named(self._documents, "ConfigMap", name)["data"]
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": own}, "data": data}

    @staticmethod
    def _exists(volume: str) -> bool:
        return subprocess.run(["podman", "volume", "exists", volume], check=False).returncode == 0

    @staticmethod
    def _remove_volumes(prefix: str) -> None:
        for volume in images.podman("volume", "ls", "--quiet").split():
            if volume.startswith(prefix):
                images.podman("volume", "rm", "--force", volume)

    @staticmethod
    def _address(name: str) -> str:
        (pod,) = _listed(images.podman("pod", "inspect", name))
        (infra,) = json.loads(images.podman("inspect", pod["InfraContainerID"]))
        (network,) = infra["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    def _wait_until_ready(self, pod: Pod) -> None:
        probes = [
            (probe, {port["name"]: port["containerPort"] for port in container.get("ports", ())})
            for container in pod_of(pod.workload)["spec"]["containers"]
            if (probe := container.get("readinessProbe")) and "exec" not in probe
        ]
        deadline = time.monotonic() + READY_SECONDS
        while not all(_is_ready(pod.address, probe, ports) for probe, ports in probes):
            assert time.monotonic() < deadline, f"{pod.name} is not ready:\n{self.logs(pod)}"
            time.sleep(POLL_SECONDS)

    def _wait_until_done(self, pod: Pod) -> None:
        images.podman("wait", self._first(pod))
        assert self.inspect(pod)["State"]["ExitCode"] == 0, self.logs(pod)


def remove(run: str) -> None:
    """Remove what a run has left: pods, volumes, the network."""
    for pod in images.podman("pod", "ls", "--format", "{{.Name}}").split():
        if pod.startswith(f"{run}-"):
            images.podman("pod", "rm", "--force", "--time", "0", pod)
    for volume in images.podman("volume", "ls", "--quiet").split():
        if volume.startswith(f"{run}-"):
            images.podman("volume", "rm", "--force", volume)
    with contextlib.suppress(RuntimeError):  # there is none
        images.podman("network", "rm", "--force", run)


def _listed(text: str) -> list[dict[str, Any]]:
    """podman 4 prints one pod as an object, podman 5 as a list of one."""
    found = json.loads(text)
    return found if isinstance(found, list) else [found]


def _is_ready(address: str, probe: Document, ports: dict[str, int]) -> bool:
    if (port := (probe.get("httpGet") or probe["tcpSocket"])["port"]) in ports:
        port = ports[port]
    try:
        if "tcpSocket" in probe:
            socket.create_connection((address, port), timeout=1).close()
            return True
        with urllib.request.urlopen(f"http://{address}:{port}{probe['httpGet']['path']}", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
