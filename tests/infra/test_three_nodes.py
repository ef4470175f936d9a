"""The overlay ``cluster`` on Kubernetes with three nodes, whose pods' network is infra/ovs: one is drained, and one lost."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.infra import fleets
from tests.infra.conftest import add_components
from tests.infra.deployed import Deployed, assert_a_reading_is_seen, deploy
from tests.infra.fleets import LOAD, fleet_pod, stored, wait_until_more, wait_until_stored
from tests.infra.reach import assert_policies_hold
from tests.support.manifests import K8S, Document, least_of, named, pod_of, render, workloads
from tests.support.nodes import NAMES, Cluster

pytestmark = [pytest.mark.servers, pytest.mark.timeout(1500)]

CLUSTER = "overlays/cluster"

MTU, HEADERS = 1450, 28
"""Of the pods' network; and of IPv4 and UDP in it."""

ECHO = """\
import os, socket, socketserver, threading

class Tcp(socketserver.StreamRequestHandler):
    def handle(self):
        size = int(self.rfile.readline())
        self.wfile.write(self.rfile.read(size) + os.environ["NODE"].encode())

class Udp(socketserver.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read())

socketserver.ThreadingTCPServer.request_queue_size = 64
threading.Thread(target=socketserver.UDPServer(("", 7000), Udp).serve_forever).start()
socketserver.ThreadingTCPServer(("", 7000), Tcp).serve_forever()
"""
"""Sends back what comes, over TCP with the name of its node behind it."""

ASK = """\
import json, socket, sys

def tcp(host, content):
    with socket.create_connection((host, 7000), 20) as connection:
        connection.sendall(f"{len(content)}\\n".encode() + content)
        connection.shutdown(socket.SHUT_WR)
        back = b"".join(iter(lambda: connection.recv(65536), b""))
    assert back.startswith(content), "came back as another"
    return back[len(content):].decode()

def udp(host, size):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(5)
        one.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
        one.connect((host, 7000))
        try:
            one.send(bytes(size))
            return len(one.recv(65536))
        except OSError as error:
            return error.strerror

service, fits, *others = sys.argv[1:]
asked = {tcp(service, b"") for _ in range(60)}
whole = {one: [tcp(one, b"21.5\\n" * 100_000), udp(one, int(fits)), udp(one, int(fits) + 1)] for one in others}
print(json.dumps({"asked": sorted(asked), "whole": whole}))
"""
"""Prints which nodes answer at a Service, and how addresses answer to half a megabyte, and to packets of two sizes."""

PATIENCE_SECONDS = 400.0
POLL_SECONDS = 0.5
BACK_SECONDS = 400.0

STATELESS = ("tcp", "http", "coap", "worker", "analytics", "web")
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"

RUNS = ("drained", "cut", "store")
FLEETS = [f"{run}-{protocol}" for run in RUNS for protocol in LOAD]
"""Every fleet of this module: devices tell by their numbers whose they are."""


@pytest.fixture(scope="module")
def echo(three_nodes: Cluster) -> Iterator[dict[str, str]]:
    """A pod on each node that sends back what it gets, and a Service of all: node → the pod's address."""
    image = pod_of(named(render(K8S / CLUSTER), "Deployment", "isotherm-tcp"))["spec"]["containers"][0]["image"]
    labels = {"app": "echo"}
    container = {
        "name": "echo",
        "image": image,
        "command": ["python3", "-c", ECHO],
        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "readinessProbe": {"tcpSocket": {"port": 7000}, "periodSeconds": 1},
    }
    pods = {"metadata": {"labels": labels}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}}
    documents = [
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "echo"},
            "spec": {"selector": {"matchLabels": labels}, "template": pods},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "echo"},
            "spec": {"type": "NodePort", "selector": labels, "ports": [{"port": 7000, "nodePort": 30700}]},
        },
    ]
    plane, given = three_nodes.plane, json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    plane.kubectl("apply", "--filename=-", stdin=given)
    plane.kubectl("rollout", "status", "daemonset/echo", "--timeout=120s")
    yield {one["spec"]["nodeName"]: one["status"]["podIP"] for one in plane.items("pods", "--selector=app=echo")}
    plane.kubectl("delete", "--filename=-", stdin=given)


def test_pods_of_all_nodes_reach_each_other_and_services_with_the_whole_mtu(
    three_nodes: Cluster, echo: dict[str, str]
) -> None:
    assert {name: address.rsplit(".", 1)[0] for name, address in echo.items()} == {
        "n1": "10.244.1",
        "n2": "10.244.2",
        "n3": "10.244.3",
    }
    pods = {
        one["spec"]["nodeName"]: one["metadata"]["name"] for one in three_nodes.plane.items("pods", "--selector=app=echo")
    }
    fits = MTU - HEADERS
    for name, pod in pods.items():
        others = {node: address for node, address in echo.items() if node != name}
        command = ("python3", "-c", ASK, "echo.default.svc.cluster.local", str(fits), *others.values())
        said = json.loads(three_nodes.plane.kubectl("exec", pod, "--", *command))
        assert said["asked"] == list(NAMES), "itself among them"
        assert said["whole"] == {address: [node, fits, "Message too long"] for node, address in others.items()}, name


def test_a_port_of_any_node_leads_to_the_pods_of_all(three_nodes: Cluster, echo: dict[str, str]) -> None:
    for member in three_nodes.members.values():
        answered = set()
        for _ in range(60):
            with socket.create_connection((member.address, 30700), 20) as connection:
                connection.sendall(b"0\n")
                connection.shutdown(socket.SHUT_WR)
                answered.add(connection.recv(10).decode())
        assert answered == set(NAMES)


def test_the_overlay_finds_nothing_to_mend_under_kubernetes(three_nodes: Cluster) -> None:
    for member in three_nodes.members.values():
        assert "nothing to change" in member.overlay("up")
        member.overlay("check")


@pytest.fixture(scope="module")
def deployed(three_nodes: Cluster, echo: dict[str, str]) -> Deployed:
    namespace = {"name": "isotherm", "labels": {"app.kubernetes.io/part-of": "isotherm"}}
    certificate = {"name": "isotherm-tls", "namespace": "isotherm"}
    first = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": namespace},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": certificate,
        },  # which nobody shows: there is no ingress controller
    ]
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": first})
    three_nodes.plane.kubectl("apply", "--filename=-", stdin=given)
    return Deployed(three_nodes.plane, render(K8S / CLUSTER), deploy(three_nodes.plane, "deploy", "cluster"))


def nodes_of(deployed: Deployed, component: str) -> list[str]:
    """Return where the pods of a part that are ready run."""
    return [one["spec"]["nodeName"] for one in ready(deployed) if component_of(one) == component]


def ready(deployed: Deployed) -> list[Document]:
    """Return the pods that are."""
    return [
        one
        for one in deployed.pods()
        if {"type": "Ready", "status": "True"}.items()
        <= next((has for has in one["status"].get("conditions", ()) if has["type"] == "Ready"), {}).items()
    ]


def component_of(pod: Document) -> str:
    """Return which part a pod is of."""
    return str(pod["metadata"]["labels"].get("app.kubernetes.io/component"))


def test_every_workload_becomes_ready_and_its_replicas_are_on_different_nodes(deployed: Deployed) -> None:
    for one in workloads(deployed.documents):
        if one["kind"] in ("Deployment", "StatefulSet"):
            name, component = one["metadata"]["name"], one["metadata"]["labels"]["app.kubernetes.io/component"]
            assert f"{one['kind'].lower()}/{name} is ready" in deployed.said
            wait_until_ready(deployed, component)  # what is scaled begins with one
            assert sorted(set(nodes_of(deployed, component))) == sorted(nodes_of(deployed, component)), name
            assert len(nodes_of(deployed, component)) == least_of(one, deployed.documents), name
    deployed.kubectl("wait", "job/isotherm-topics", "--for=condition=Complete", "--timeout=60s")
    assert nodes_of(deployed, "valkey") != nodes_of(deployed, "valkey-replica")


def test_the_network_lets_through_what_the_policies_say_and_nothing_else(deployed: Deployed) -> None:
    assert_policies_hold(deployed)


async def test_a_reading_sent_to_a_connector_on_one_node_is_seen_through_the_web_pod_of_another(
    three_nodes: Cluster, deployed: Deployed
) -> None:
    intake = next(one for one in ready(deployed) if component_of(one) == "http")
    here = intake["spec"]["nodeName"]
    web = next(one for one in ready(deployed) if component_of(one) == "web" and one["spec"]["nodeName"] != here)
    for pod in (intake, web):
        three_nodes.lead(pod["status"]["podIP"], pod["spec"]["nodeName"])
    addresses = f"{intake['status']['podIP']}:7310", f"{web['status']['podIP']}:7300"
    await assert_a_reading_is_seen(deployed, *addresses, Host="iot.example")  # as the Ingress of components/ingress asks


def test_a_load_balancers_address_is_answered_by_nodes_with_a_pod_for_it_and_by_no_other(
    three_nodes: Cluster, deployed: Deployed
) -> None:
    (address,) = {
        one["ip"]
        for service in three_nodes.plane.items("services", "--namespace=isotherm")
        if service["metadata"]["name"] == "isotherm-tcp"
        for one in service["status"]["loadBalancer"]["ingress"]
    }
    answering = set()
    for name in NAMES:
        three_nodes.lead(address, name)
        try:
            with socket.create_connection((address, 7301), 3):
                answering.add(name)
        except OSError:
            continue
    assert answering == set(nodes_of(deployed, "tcp"))


class Load:
    """Fleets over every protocol, on one node."""

    def __init__(self, deployed: Deployed, run: str, node: str, protocols: Sequence[str] = tuple(LOAD)) -> None:
        self.deployed = deployed
        self.names = [f"{run}-{protocol}" for protocol in protocols]
        with tempfile.TemporaryDirectory() as folder:
            documents = render(add_components(Path(shutil.copytree(K8S, folder, dirs_exist_ok=True)) / CLUSTER, "simulator"))
        deployed.kubectl("apply", "--filename=-", stdin=json.dumps(named(documents, "NetworkPolicy", "simulates")))
        simulator = named(documents, "Deployment", "isotherm-simulator")
        pods = [
            fleet_pod(simulator, name, FLEETS.index(name), protocol, "--rate", "10", "--devices", "5")
            for name, protocol in zip(self.names, protocols, strict=True)
        ]
        for pod in pods:
            pod["spec"]["nodeName"] = node
        fleets.start(deployed, pods, FLEETS, PATIENCE_SECONDS)

    def goes_on(self) -> None:
        """Wait until the store has more of each than it has now."""
        now = stored(self.deployed.isotherm, FLEETS)
        wait_until_more(self.deployed.isotherm, FLEETS, {name: now[name] for name in self.names}, PATIENCE_SECONDS)

    def end(self) -> None:
        """End it, and see that the store has all that was acknowledged, and no more than was sent."""
        accounts = fleets.end(self.deployed, self.names)
        wait_until_stored(self.deployed.isotherm, FLEETS, accounts, PATIENCE_SECONDS)
        print({name: (account["acknowledged"], account["errors"]) for name, account in accounts.items()})


def spare(deployed: Deployed) -> str:
    """Return a node with neither the store nor the MQTT broker, of which there is one each."""
    return next(one for one in NAMES if one not in nodes_of(deployed, "valkey") + nodes_of(deployed, "mosquitto"))


def on(deployed: Deployed, node: str) -> set[str]:
    """Return which parts have a pod that is ready on a node."""
    return {component_of(one) for one in ready(deployed) if one["spec"]["nodeName"] == node}


def without(deployed: Deployed, node: str) -> Deployed:
    """Have commands of ours run elsewhere."""
    web = next(one for one in ready(deployed) if component_of(one) == "web" and one["spec"]["nodeName"] != node)
    return replace(deployed, desk=f"pod/{web['metadata']['name']}")


def wait_until_ready(deployed: Deployed, *parts: str, but: str | None = None) -> None:
    """Wait until parts have as many pods that are ready as they should, on other nodes than one."""
    wanted = {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: least_of(one, deployed.documents)
        for one in workloads(deployed.documents)
        if one["kind"] in ("Deployment", "StatefulSet")
    }
    deadline = time.monotonic() + BACK_SECONDS
    for part in parts:
        while len(where := [one for one in nodes_of(deployed, part) if one != but]) < wanted[part]:
            assert time.monotonic() < deadline, f"{part} is on {where}"
            time.sleep(POLL_SECONDS)


def test_a_node_is_drained_under_load_within_the_budgets_and_no_acknowledged_reading_is_lost(
    three_nodes: Cluster, deployed: Deployed
) -> None:
    node, plane = spare(deployed), three_nodes.plane
    load = Load(without(deployed, node), "drained", *nodes_of(deployed, "valkey"))
    there = on(deployed, node)
    assert "kafka" in there and there & {"tcp", "http", "coap", "worker", "web"}, there
    plane.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=280s")
    assert on(deployed, node) == set()
    load.goes_on()
    wait_until_ready(deployed, *STATELESS, "mqtt", but=node)

    for broker in (one["metadata"]["name"] for one in ready(deployed) if component_of(one) == "kafka"):
        with pytest.raises(AssertionError, match="disruption budget"):
            evict(deployed, broker)  # the third one's volume is on the node that is away
    plane.kubectl("uncordon", node)
    deployed.kubectl("rollout", "status", "statefulset/kafka", "--timeout=280s")
    load.end()


def evict(deployed: Deployed, pod: str) -> None:
    """Ask for an eviction as ``kubectl drain`` does; raises AssertionError with the reason when it is refused."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "isotherm"}}
    where = f"/api/v1/namespaces/isotherm/pods/{pod}/eviction"
    deployed.kubectl("create", f"--raw={where}", "--filename=-", stdin=json.dumps(eviction))


def test_a_node_loses_its_power_under_load_and_no_acknowledged_reading_is_lost(
    three_nodes: Cluster, deployed: Deployed
) -> None:
    node, plane = spare(deployed), three_nodes.plane
    # It is the emptiest after it was drained: each part's new pods go there first.
    deployed.kubectl("rollout", "restart", *(f"deployment/isotherm-{one}" for one in STATELESS))
    for one in STATELESS:
        deployed.kubectl("rollout", "status", f"deployment/isotherm-{one}", "--timeout=280s")
    assert on(deployed, node) >= {"kafka", *STATELESS}
    rest = without(deployed, node)
    load = Load(rest, "cut", *nodes_of(deployed, "valkey"))

    three_nodes.cut_power(node)
    plane.until(lambda: not on(rest, node), "the node is known to be lost")
    load.goes_on()
    wait_until_ready(rest, *STATELESS, but=node)
    # Kubernetes never starts a pod of a StatefulSet twice: somebody has to say that the node is off.
    plane.kubectl("taint", "nodes", node, OUT_OF_SERVICE)
    wait_until_ready(rest, "mqtt", but=node)
    load.end()

    three_nodes.switch_on(node)
    plane.kubectl("taint", "nodes", node, f"{OUT_OF_SERVICE}-")
    deployed.kubectl("rollout", "status", "statefulset/kafka", "--timeout=280s")
    plane.until(lambda: all(one["in_sync"] == 3 for one in topics(rest)), "all brokers have all of the log")


def topics(deployed: Deployed) -> list[Document]:
    """Return the topics as Kafka keeps them."""
    found: list[Document] = json.loads(deployed.isotherm("topics", "--json"))
    return found


def test_the_stores_node_is_lost_and_the_replica_takes_over_as_the_page_says(
    three_nodes: Cluster, deployed: Deployed
) -> None:
    (node,) = nodes_of(deployed, "valkey")
    protocols = [one for one in LOAD if one != "mqtt" or node not in nodes_of(deployed, "mosquitto")]
    rest = without(deployed, node)
    load = Load(rest, "store", spare(deployed), protocols)
    three_nodes.cut_power(node)
    three_nodes.plane.until(lambda: not on(rest, node), "the node is known to be lost")
    page = (K8S.parents[1] / "docs/operations.md").read_text()
    commands = page.partition("**The store's node is lost for good**")[2].partition("```sh\n")[2].partition("```")[0]
    done = subprocess.run(
        ["sh", "-eu", "-c", commands],
        env=deployed.plane.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    load.goes_on()
    load.end()
