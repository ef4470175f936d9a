"""Brings an overlay up on the cluster that kubectl speaks to, and takes it away again.

    make deploy OVERLAY=local                  check, then create or change, then wait until all of it is ready
    make undeploy OVERLAY=local                take all of it away; asks first, YES=1 does not
    make undeploy OVERLAY=local KEEP_DATA=1    but leave what is on the volumes, and the secrets that open it

Everything that can be known before is checked before, and all that is wrong is said at once; nothing is changed then.
Passwords are made by chance at the first time and kept in the cluster alone.
"""

from __future__ import annotations

import argparse
import base64
import json
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]

OVERLAYS = Path(__file__).parent / "overlays"
OLDEST = (1, 30)
"""Of Kubernetes: preStop's sleep."""
READY_SECONDS = 600
METRICS = ("metrics.k8s.io", "PodMetrics")
PART_OF = {"app.kubernetes.io/part-of": "isotherm"}
PLATFORM_SECRETS = ("isotherm", "valkey", "kafka")


class Refused(Exception):
    """Nothing was changed."""


@dataclass(frozen=True)
class Cluster:
    """What is to be known of a cluster before something is changed."""

    version: tuple[int, int]
    kinds: set[tuple[str, str]]
    """Group and kind of what it knows."""
    namespaces: dict[str, Document] = field(default_factory=dict)
    node_ports: dict[tuple[int, str], str] = field(default_factory=dict)
    """Port and protocol → namespace/name of the Service that has it."""
    secrets: set[str] = field(default_factory=set)
    """Of the overlay's namespace."""
    node_images: dict[str, set[str]] = field(default_factory=dict)
    """Node → images that lie on it."""
    storage_classes: bool = True
    """Whether there is a default one."""


def problems(documents: list[Document], cluster: Cluster) -> Iterator[str]:
    """Yield what would keep documents from working on a cluster, each with its mend."""
    if cluster.version < OLDEST:
        yield "the cluster is Kubernetes {}.{}: {}.{} or later is needed".format(*cluster.version, *OLDEST)
    yield from _unknown_kinds(documents, cluster)
    namespace = namespace_of(documents)
    labels = cluster.namespaces.get(namespace, {}).get("metadata", {}).get("labels", {})
    if namespace in cluster.namespaces and not PART_OF.items() <= labels.items():
        yield f"the namespace {namespace} is there and is not Isotherm's: choose another in the overlay's kustomization.yaml"
    yield from _taken_ports(documents, cluster, namespace)
    for name in sorted(secrets_of(documents) - cluster.secrets - set(made_secrets(documents))):
        yield f"the Secret {name} is missing: create it in the namespace {namespace}; docs/operations.md says what is in it"
    together = set(made_secrets(documents))
    known = cluster.secrets & together
    if known and known != together:
        lacking, there = (", ".join(sorted(one)) for one in (together - known, known))
        yield f"the Secrets {there} are there and {lacking} not, which belong together: restore them, or delete {there}"
    yield from _missing_images(documents, cluster)
    if not cluster.storage_classes and any(one["kind"] == "StatefulSet" for one in documents):
        yield "there is no default StorageClass, and Kafka and the store need volumes: install one, such as local-path"


def remarks(documents: list[Document], cluster: Cluster) -> Iterator[str]:
    """Yield what works on a cluster, but less well than the documents mean it, each with its mend."""
    if any(one["kind"] == "HorizontalPodAutoscaler" for one in documents) and METRICS not in cluster.kinds:
        yield "the cluster does not know what pods use, so nothing is scaled by it: install metrics-server"


def _unknown_kinds(documents: list[Document], cluster: Cluster) -> Iterator[str]:
    operators = {
        "monitoring.coreos.com": "the Prometheus operator",
        "keda.sh": "KEDA",
        "kafka.strimzi.io": "the Strimzi operator",
    }
    for group, kind in sorted({(_group(one), one["kind"]) for one in documents} - cluster.kinds):
        yield f"the cluster knows no {kind}: install {operators.get(group, group)}, or leave its component out"


def _taken_ports(documents: list[Document], cluster: Cluster, namespace: str) -> Iterator[str]:
    for one in documents:
        for port in one["spec"].get("ports", ()) if one["kind"] == "Service" else ():
            number = (port.get("nodePort"), port.get("protocol", "TCP"))
            holder = cluster.node_ports.get(number) if number[0] else None  # type: ignore[arg-type]
            if holder and holder != f"{namespace}/{one['metadata']['name']}":
                name = one["metadata"]["name"]
                yield f"the port {number[0]}/{number[1]} of the nodes is {holder}'s: choose another for {name}"


def _missing_images(documents: list[Document], cluster: Cluster) -> Iterator[str]:
    for image in sorted(images_of(documents)):
        # Others are pulled; nobody has a registry called localhost.
        nodes = [node for node, images in cluster.node_images.items() if image not in images]
        if image.startswith("localhost/") and nodes:
            yield (
                f"the image {image} is not on {', '.join(sorted(nodes))} and cannot be pulled: `make images`, then "
                "`podman save IMAGE | k3s ctr images import -`, or name a registry in components/mirror"
            )


def _group(document: Document) -> str:
    version: str = document["apiVersion"]
    return version.rpartition("/")[0]


def namespace_of(documents: list[Document]) -> str:
    """Return the namespace that an overlay makes."""
    (found,) = [one["metadata"]["name"] for one in documents if one["kind"] == "Namespace"]
    return str(found)


def _pods(documents: list[Document]) -> Iterator[Document]:
    for one in documents:
        spec = one.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template and one["kind"] in ("Deployment", "StatefulSet", "Job", "CronJob"):
            yield template["spec"]


def images_of(documents: list[Document]) -> set[str]:
    """Return every image that pods are made of."""
    return {one["image"] for pod in _pods(documents) for one in (*pod.get("initContainers", ()), *pod["containers"])}


def secrets_of(documents: list[Document]) -> set[str]:
    """Return the Secrets that are referred to and must be there."""
    mounted = {
        volume["secret"]["secretName"] for pod in _pods(documents) for volume in pod.get("volumes", ()) if "secret" in volume
    }
    variables = {
        one["valueFrom"]["secretKeyRef"]["name"]
        for pod in _pods(documents)
        for container in pod["containers"]
        for one in container.get("env", ())
        if "secretKeyRef" in one.get("valueFrom", {})
    }
    served = {tls["secretName"] for one in documents if one["kind"] == "Ingress" for tls in one["spec"].get("tls", ())}
    return mounted | variables | served


def made_secrets(documents: list[Document]) -> dict[str, dict[str, str]]:
    """Return Secrets that an overlay needs and that are made by chance, each with its files."""
    store, broker = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    every = {
        "isotherm": {"ISOTHERM_REDIS": f"redis://:{store}@valkey:6379/0", "ISOTHERM_MQTT_PASSWORD": broker},
        "valkey": {"password.conf": f"requirepass {store}\nmasterauth {store}\n"},
        "kafka": {"CLUSTER_ID": cluster_id},
    }
    return {name: every[name] for name in PLATFORM_SECRETS if name in secrets_of(documents)}


def kubectl(*arguments: str, stdin: str | None = None, seconds: float = 60) -> str:
    """Run kubectl and return what it prints.

    Raises:
        Refused: it is not there or failed.
    """
    try:
        done = subprocess.run(
            ["kubectl", *arguments], input=stdin, capture_output=True, text=True, timeout=seconds, check=False
        )
    except FileNotFoundError as error:
        raise Refused("kubectl is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Refused(f"kubectl {arguments[0]} did not end within {seconds:g} s") from error
    if done.returncode != 0:
        raise Refused(f"kubectl {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def rendered(overlay: str) -> list[Document]:
    """Return the documents of an overlay.

    Raises:
        Refused: there is none of that name, or kustomize refuses it.
    """
    known = sorted(one.name for one in OVERLAYS.iterdir() if one.is_dir())
    if overlay not in known:
        raise Refused(f"there is no overlay {overlay!r}: expected {', '.join(known)}")
    return [one for one in yaml.safe_load_all(kubectl("kustomize", str(OVERLAYS / overlay))) if one]


def read_cluster(namespace: str) -> Cluster:
    """Ask the cluster.

    Raises:
        Refused: it does not answer.
    """
    try:
        version = json.loads(kubectl("version", "--output=json", "--request-timeout=10s"))["serverVersion"]
    except (Refused, KeyError) as error:
        raise Refused(f"no cluster answers: {error}; see `kubectl config current-context`") from error

    def items(what: str, *options: str) -> list[Document]:
        found: list[Document] = json.loads(kubectl("get", what, "--output=json", *options))["items"]
        return found

    resources = [line.split() for line in kubectl("api-resources", "--no-headers").splitlines()]
    ports = {
        (port["nodePort"], port["protocol"]): f"{one['metadata']['namespace']}/{one['metadata']['name']}"
        for one in items("services", "--all-namespaces")
        for port in one["spec"].get("ports", ())
        if "nodePort" in port
    }
    classes = items("storageclasses")
    return Cluster(
        version=(int(version["major"]), int(version["minor"].rstrip("+"))),
        kinds={(words[-3].rpartition("/")[0], words[-1]) for words in resources},
        namespaces={one["metadata"]["name"]: one for one in items("namespaces")},
        node_ports=ports,
        secrets={one["metadata"]["name"] for one in items("secrets", f"--namespace={namespace}")},
        node_images={
            one["metadata"]["name"]: {name for image in one["status"].get("images", ()) for name in image.get("names") or ()}
            for one in items("nodes")
        },
        storage_classes=any(
            one["metadata"].get("annotations", {}).get("storageclass.kubernetes.io/is-default-class") == "true"
            for one in classes
        ),
    )


def deploy(overlay: str, *, wait: float) -> None:
    """Bring an overlay up, or to what its files say now.

    Raises:
        Refused: something is in the way, and nothing was changed; or it did not become ready.
    """
    documents = rendered(overlay)
    namespace = namespace_of(documents)
    cluster = read_cluster(namespace)
    found = list(problems(documents, cluster))
    if found:
        raise Refused("nothing was changed:\n" + "\n".join(f"- {one}" for one in found))
    first = [one for one in documents if one["kind"] == "Namespace"]
    first += [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace, "labels": PART_OF},
            "stringData": files,
        }
        for name, files in made_secrets(documents).items()
        if name not in cluster.secrets
    ]
    kubectl("apply", "--filename=-", stdin=yaml.safe_dump_all(first))
    # A Job cannot be changed, and may run again.
    jobs = [one["metadata"]["name"] for one in documents if one["kind"] == "Job"]
    if jobs:
        kubectl("delete", "job", "--ignore-not-found", f"--namespace={namespace}", *jobs)
    print(kubectl("apply", "--filename=-", stdin=yaml.safe_dump_all(documents), seconds=120), end="")
    for remark in remarks(documents, cluster):
        print(f"Note: {remark}")
    if wait:
        _wait(documents, namespace, wait)


def _wait(documents: list[Document], namespace: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for one in documents:
        if one["kind"] in ("Deployment", "StatefulSet"):
            what = f"{one['kind'].lower()}/{one['metadata']['name']}"
            left = max(1, int(deadline - time.monotonic()))
            try:
                kubectl("rollout", "status", what, f"--namespace={namespace}", f"--timeout={left}s", seconds=left + 30)
            except Refused as error:
                pods = kubectl("get", "pods", f"--namespace={namespace}")
                raise Refused(
                    f"{what} is not ready after {seconds:g} s ({error}):\n{pods}"
                    f"See `kubectl --namespace={namespace} describe pod NAME`; `make undeploy OVERLAY=…` takes it away"
                ) from error
            print(f"{what} is ready")


def undeploy(overlay: str, *, keep_data: bool) -> None:
    """Take an overlay away; with ``keep_data`` its volumes and secrets stay.

    Raises:
        Refused: the cluster does not answer, or the namespace is somebody else's.
    """
    documents = rendered(overlay)
    namespace = namespace_of(documents)
    there = read_cluster(namespace).namespaces.get(namespace)
    if there is None:
        print(f"there is no namespace {namespace}: nothing to take away")
        return
    if not PART_OF.items() <= there["metadata"].get("labels", {}).items():
        raise Refused(f"the namespace {namespace} is not Isotherm's; nothing was changed")
    if keep_data:
        gone = [one for one in documents if one["kind"] not in ("Namespace", "PersistentVolumeClaim")]
        kubectl("delete", "--ignore-not-found", "--filename=-", stdin=yaml.safe_dump_all(gone), seconds=300)
        print(f"taken away; the volumes and secrets in the namespace {namespace} are still there")
    else:
        kubectl("delete", "namespace", namespace, seconds=600)
        print(f"taken away, with all that was in the namespace {namespace}")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("deploy", "undeploy", "check"))
    parser.add_argument("overlay")
    parser.add_argument("--wait", type=float, default=READY_SECONDS, help="seconds until all must be ready; 0 does not wait")
    parser.add_argument("--keep-data", action="store_true")
    parser.add_argument("--yes", action="store_true")
    options = parser.parse_args()
    try:
        if options.what == "deploy":
            deploy(options.overlay, wait=options.wait)
        elif options.what == "check":
            documents = rendered(options.overlay)
            cluster = read_cluster(namespace_of(documents))
            found = list(problems(documents, cluster))
            if found:
                raise Refused("\n".join(f"- {one}" for one in found))
            print("nothing is in the way", *(f"Note: {one}" for one in remarks(documents, cluster)), sep="\n")
        else:
            lost = "" if options.keep_data else ", with all readings, devices and users"
            if not options.yes and input(f"Take {options.overlay} away{lost}? Type its name: ") != options.overlay:
                raise Refused("nothing was changed")
            undeploy(options.overlay, keep_data=options.keep_data)
    except (Refused, EOFError) as error:
        sys.exit(f"{options.what} {options.overlay}: {error or 'nothing was changed'}")


if __name__ == "__main__":
    main()
