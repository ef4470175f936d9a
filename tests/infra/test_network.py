"""Who may speak to whom: worked out from the network policies as Kubernetes does, and compared with who must."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.manifests import K8S, Document, matches, pod_of, render, workloads

ANYWHERE = "anywhere"

STORE_USERS = {"tcp", "http", "coap", "mqtt", "worker", "analytics", "web", "mosquitto", "backup"}
LOG_USERS = {"tcp", "http", "coap", "mqtt", "worker", "analytics", "web", "topics"}
MUST = {
    *((part, "valkey", "TCP", 6379) for part in STORE_USERS),
    *((part, "kafka", "TCP", 9092) for part in LOG_USERS),
    ("kafka", "kafka", "TCP", 9092),
    ("kafka", "kafka", "TCP", 9093),
    ("mqtt", "mosquitto", "TCP", 1883),
    ("valkey-replica", "valkey", "TCP", 6379),
}
FROM_ANYWHERE = {
    ("tcp", "TCP", 7301),
    ("coap", "UDP", 7302),
    ("coap", "TCP", 7314),
    ("http", "TCP", 7310),
    ("mosquitto", "TCP", 1883),
    ("web", "TCP", 7300),
}


@dataclass(frozen=True)
class Network:
    """The policies and pods of one namespace; a pod is named by its component."""

    documents: list[Document]

    def labels(self) -> dict[str, Document]:
        every = (pod_of(one)["metadata"]["labels"] for one in workloads(self.documents))
        return {labels["app.kubernetes.io/component"]: labels for labels in every}

    def ports(self) -> Iterator[tuple[str, str, int]]:
        """Yield every port that a pod listens on."""
        for one in workloads(self.documents):
            for container in pod_of(one)["spec"]["containers"]:
                for port in container.get("ports", ()):
                    component = pod_of(one)["metadata"]["labels"]["app.kubernetes.io/component"]
                    yield component, port.get("protocol", "TCP"), port["containerPort"]

    def may(self, source: str, target: str, protocol: str, port: int) -> bool:
        """Tell whether a pod, or ANYWHERE outside, may connect to a port of another: both sides' policies allow it."""
        labels = self.labels()
        out = source == ANYWHERE or self._allows("Egress", labels[source], labels[target], protocol, port)
        return out and self._allows("Ingress", labels[target], labels.get(source), protocol, port)

    def _allows(self, direction: str, subject: Document, other: Document | None, protocol: str, port: int) -> bool:
        policies = [
            one["spec"]
            for one in self.documents
            if one["kind"] == "NetworkPolicy"
            and direction in one["spec"]["policyTypes"]
            and matches(one["spec"]["podSelector"], subject)
        ]
        assert policies, "the default denies"
        peers = "from" if direction == "Ingress" else "to"
        return any(
            _names(rule.get(peers), other) and _has(rule.get("ports"), protocol, port)
            for policy in policies
            for rule in policy.get(direction.lower()) or ()
        )


def _names(peers: list[Document] | None, other: Document | None) -> bool:
    """Tell whether a rule's peers include a pod of this namespace, or, None, somebody outside the cluster."""
    if peers is None:
        return True
    return other is not None and any(
        "namespaceSelector" not in peer and "podSelector" in peer and matches(peer["podSelector"], other) for peer in peers
    )


def _has(ports: list[Document] | None, protocol: str, port: int) -> bool:
    return ports is None or any(one.get("protocol", "TCP") == protocol and one["port"] == port for one in ports)


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(render(K8S / "overlays/cluster"))


def test_those_who_must_speak_to_each_other_may_and_nobody_else(network: Network) -> None:
    allowed = {
        (source, target, protocol, port)
        for source in network.labels()
        for target, protocol, port in network.ports()
        if network.may(source, target, protocol, port)
    }
    assert allowed == MUST


def test_only_what_devices_and_people_use_is_open_to_the_world(network: Network) -> None:
    assert {one for one in network.ports() if network.may(ANYWHERE, *one)} == FROM_ANYWHERE


def test_the_simulated_fleet_reaches_the_connector() -> None:
    network = Network(render(K8S / "overlays/local"))
    assert network.may("simulator", "tcp", "TCP", 7301) and network.may("simulator", "valkey", "TCP", 6379)
    assert not network.may("simulator", "kafka", "TCP", 9092)


def test_everybody_may_ask_for_names(network: Network) -> None:
    (policy,) = [one["spec"] for one in network.documents if one["metadata"]["name"] == "dns"]
    assert policy["podSelector"] == {} and {port["port"] for port in policy["egress"][0]["ports"]} == {53}
