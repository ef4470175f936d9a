"""The Kubernetes objects of a virtual host. No I/O.

A host is a namespace, which bounds what it may use and whom it may reach: nobody comes in but from outside the cluster, and
it goes out to name servers and the internet, not to pods, services or private networks. Within is a StatefulSet of one pod
with a volume for /home, a secret with the keys that let in, and a Service with an address of its own.

Root in a host is root in a container with CAPABILITIES; it may gain privileges (sudo) within these. That is the level
`baseline` of the Pod Security Standards, which the namespace enforces.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from isotherm.errors import SettingsError
from isotherm.hosts.host import CAPABILITIES, KEYS_FILE, KEYS_FOLDER, SSH_PORT, Label, Spec, quantity
from isotherm.settings import Settings

PREFIX = "isotherm-host-"
MANAGED = "app.kubernetes.io/managed-by"
HOST = "isotherm.io/host"
LABEL = "isotherm.io/label"
"""Annotation of the namespace: a `Label`, as JSON."""

KEPT = "isotherm.io/kept"
"""Label of a namespace in which only the volume is left."""

SELECTOR = f"{MANAGED}=isotherm,{HOST}"

NAME = "host"
"""Of the Service and the container; HOME is that of the volume, KEYS that of the secret. A StatefulSet gives its pod its
own name and -0, by which that also calls itself: so it has the host's."""

HOME, KEYS = "home", "keys"

MAX_PORTS = 1_000
SCRATCH_BYTES = 4 << 30
"""What a host may write outside of /home, such as packages: gone at a restart."""

_PRIVATE = ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp))?")

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is the same for all hosts.

    Attributes:
        image: What they are made from.
        ports: Open beside SSH_PORT: number and TCP or UDP.
        cluster: Networks of pods and services.
        storage_class: Of volumes; empty for the cluster's own.
    """

    image: str
    ports: tuple[tuple[int, str], ...] = ()
    cluster: tuple[str, ...] = ()
    storage_class: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Surroundings:
        """Return what the settings say.

        Raises:
            SettingsError: a port or a network is none.
        """
        return cls(
            settings.hosts_image,
            ports(settings.hosts_ports),
            networks(settings.hosts_cluster_networks),
            settings.hosts_storage_class,
        )


def ports(text: str) -> tuple[tuple[int, str], ...]:
    """Return the ports of a list.

    Raises:
        SettingsError: one is none, or there are more than MAX_PORTS.

    >>> ports("80, 5683/udp, 8000-8001")
    ((80, 'TCP'), (5683, 'UDP'), (8000, 'TCP'), (8001, 'TCP'))
    """
    found: dict[tuple[int, str], None] = {}
    for one in filter(None, (part.strip() for part in text.split(","))):
        match = _PORT.fullmatch(one)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is None or not 0 < first <= last < 65_536:
            raise SettingsError(f"ISOTHERM_HOSTS_PORTS has {one[:40]!r}, expected such as 80, 5683/udp or 8000-8099")
        found |= dict.fromkeys((port, (match[3] or "tcp").upper()) for port in range(first, last + 1))
    found.pop((SSH_PORT, "TCP"), None)
    if len(found) > MAX_PORTS:
        raise SettingsError(f"ISOTHERM_HOSTS_PORTS has {len(found):,} ports, expected at most {MAX_PORTS:,}")
    return tuple(found)


def networks(text: str) -> tuple[str, ...]:
    """Return the networks of a list.

    Raises:
        SettingsError: one is none.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return tuple(str(ipaddress.ip_network(part)) for part in parts)
    except ValueError as error:
        raise SettingsError(
            f"ISOTHERM_HOSTS_CLUSTER_NETWORKS: {error}; expected such as 10.42.0.0/16,10.43.0.0/16"
        ) from error


def namespace_name(name: str) -> str:
    """Return the namespace of a host."""
    return PREFIX + name


def manifests(spec: Spec, around: Surroundings) -> list[Object]:
    """Return the objects of a host, in the order in which they are made: the namespace first, what runs last."""
    return [
        _namespace(spec),
        *bounds(spec, around),
        secret(spec.name, spec.keys),
        _service(spec, around),
        _stateful_set(spec, around),
    ]


def bounds(spec: Spec, around: Surroundings) -> list[Object]:
    """Return those objects that bound what a host may use and reach; they stay while its volume is kept."""
    return [
        _quota(spec),
        _limits(spec),
        _policy(spec, "deny-all", policyTypes=["Ingress", "Egress"]),
        _policy(spec, "from-outside", policyTypes=["Ingress"], ingress=[{"from": _everywhere_but(around.cluster)}]),
        _policy(spec, "name-servers", policyTypes=["Egress"], egress=[_name_servers()]),
        _policy(spec, "internet", policyTypes=["Egress"], egress=[{"to": _everywhere_but((*_PRIVATE, *around.cluster))}]),
    ]


def secret(name: str, keys: Sequence[str]) -> Object:
    """Return the secret with the keys that let in."""
    text = "".join(f"{key}\n" for key in keys).encode()
    data = {KEYS_FILE: base64.b64encode(text).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": _meta(name, KEYS), "type": "Opaque", "data": data}


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "isotherm-host", MANAGED: "isotherm", HOST: name}


def _meta(name: str, object_name: str) -> Object:
    return {"name": object_name, "namespace": namespace_name(name), "labels": _labels(name)}


def _namespace(spec: Spec) -> Object:
    level = {f"pod-security.kubernetes.io/{mode}": "baseline" for mode in ("enforce", "warn")}
    label = msgspec.json.encode(Label.of(spec)).decode()
    metadata = {
        "name": namespace_name(spec.name),
        "labels": _labels(spec.name) | level,
        "annotations": {LABEL: label},
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def _quota(spec: Spec) -> Object:
    hard = {
        "requests.cpu": f"{spec.cpus:g}",
        "limits.cpu": f"{spec.cpus:g}",
        "requests.memory": quantity(spec.memory),
        "limits.memory": quantity(spec.memory),
        "requests.storage": quantity(spec.disk),
        "limits.ephemeral-storage": quantity(SCRATCH_BYTES),
        "persistentvolumeclaims": "1",
        "pods": "1",
        "services": "1",
        "services.loadbalancers": "1",
        "services.nodeports": "0",
    }
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": _meta(spec.name, NAME), "spec": {"hard": hard}}


def _limits(spec: Spec) -> Object:
    most = {"cpu": f"{spec.cpus:g}", "memory": quantity(spec.memory), "ephemeral-storage": quantity(SCRATCH_BYTES)}
    limits = [
        {"type": "Container", "max": most, "default": most},
        {"type": "PersistentVolumeClaim", "max": {"storage": quantity(spec.disk)}},
    ]
    return {"apiVersion": "v1", "kind": "LimitRange", "metadata": _meta(spec.name, NAME), "spec": {"limits": limits}}


def _policy(spec: Spec, policy: str, **rules: Any) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _meta(spec.name, policy),
        "spec": {"podSelector": {}, **rules},
    }


def _everywhere_but(excepted: Sequence[str]) -> list[Object]:
    blocks = []
    for everywhere in ("0.0.0.0/0", "::/0"):
        version = ipaddress.ip_network(everywhere).version
        less = [one for one in excepted if ipaddress.ip_network(one).version == version]
        blocks.append({"ipBlock": {"cidr": everywhere, **({"except": less} if less else {})}})
    return blocks


def _name_servers() -> Object:
    peer = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    return {"to": [peer], "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]}


def _service(spec: Spec, around: Surroundings) -> Object:
    open_ports = [(SSH_PORT, "TCP"), *around.ports]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(spec.name, NAME),
        "spec": {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": False,
            # Local: the host, and its network policy, see who comes, and not a node.
            "externalTrafficPolicy": "Local",
            "selector": {HOST: spec.name},
            "ports": [
                {"name": f"{kind.lower()}-{port}", "port": port, "targetPort": port, "protocol": kind}
                for port, kind in open_ports
            ],
        },
    }


def _stateful_set(spec: Spec, around: Surroundings) -> Object:
    claim: Object = {
        "metadata": {"name": HOME, "labels": _labels(spec.name)},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": quantity(spec.disk)}}},
    }
    if around.storage_class:
        claim["spec"]["storageClassName"] = around.storage_class
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": _meta(spec.name, spec.name),
        "spec": {
            "replicas": 1,
            "serviceName": NAME,
            "selector": {"matchLabels": {HOST: spec.name}},
            "template": {"metadata": {"labels": _labels(spec.name)}, "spec": _pod(spec, around)},
            "volumeClaimTemplates": [claim],
        },
    }


def _pod(spec: Spec, around: Surroundings) -> Object:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(spec, around)],
        "volumes": [{"name": KEYS, "secret": {"secretName": KEYS, "defaultMode": 0o400}}],
    }


def _container(spec: Spec, around: Surroundings) -> Object:
    most = {"cpu": f"{spec.cpus:g}", "memory": quantity(spec.memory), "ephemeral-storage": quantity(SCRATCH_BYTES)}
    probe = {"tcpSocket": {"port": "ssh"}}
    return {
        "name": NAME,
        "image": around.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "ssh", "containerPort": SSH_PORT}],
        "resources": {"requests": most, "limits": most},
        "securityContext": {
            "runAsUser": 0,
            "privileged": False,
            "allowPrivilegeEscalation": True,
            "capabilities": {"drop": ["ALL"], "add": list(CAPABILITIES)},
        },
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {**probe, "periodSeconds": 5},
        "livenessProbe": {**probe, "periodSeconds": 20, "failureThreshold": 6},
        "volumeMounts": [
            {"name": HOME, "mountPath": "/home"},
            {"name": KEYS, "mountPath": KEYS_FOLDER, "readOnly": True},
        ],
    }
