"""Who reaches whom in a cluster with nodes, tried from every pod of ours, and by a stranger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.infra.deployed import Deployed
from tests.infra.test_network import ANYWHERE, Network
from tests.support.control_plane import ControlPlane
from tests.support.manifests import named, pod_of

REACH = """\
import socket, sys
from concurrent.futures import ThreadPoolExecutor

def reaches(target):
    host, _, port = target.partition(":")
    try:
        socket.create_connection((host, int(port)), 20).close()
    except OSError:
        return False
    return True

with ThreadPoolExecutor(32) as pool:
    print(*(target for target, reached in zip(sys.argv[1:], pool.map(reaches, sys.argv[1:])) if reached))
"""
"""Prints those of its arguments, HOST:PORT, at which somebody answers."""

AT_ONCE = 8
"""So many pods try: what is bridged is not refused but dropped, so most of the time they wait."""

PARTS = ("tcp", "http", "coap", "mqtt", "worker", "analytics", "web", "simulator")


def assert_policies_hold(deployed: Deployed) -> None:
    """Have every pod of ours try every port of the other parts, and a pod of another namespace all of them."""
    network = Network(deployed.documents)
    component = {
        one["status"]["podIP"]: one["metadata"]["labels"]["app.kubernetes.io/component"]
        for one in deployed.pods()
        if "podIP" in one["status"] and one["status"]["phase"] == "Running"
    }
    targets = {
        f"{address}:{port}": (target, protocol, port)
        for target, protocol, port in network.ports()
        for address, there in component.items()
        if there == target and protocol == "TCP"
    }
    with stranger(deployed), ThreadPoolExecutor(AT_ONCE) as pool:
        tries: dict[tuple[str, ...], tuple[str, dict[str, tuple[str, str, int]]]] = {("stranger",): (ANYWHERE, targets)}
        for one in deployed.pods():
            name, source = one["metadata"]["name"], one["metadata"]["labels"]["app.kubernetes.io/component"]
            if source in PARTS:
                others = {address: there for address, there in targets.items() if there[0] != source}
                tries[name, "--namespace=isotherm"] = (source, others)
        found = pool.map(lambda pod: reached(deployed.plane, tries[pod][1], *pod), tries)
        for (pod, (source, others)), got in zip(tries.items(), found, strict=True):
            assert got == {address for address, one in others.items() if network.may(source, *one)}, pod


def reached(plane: ControlPlane, targets: Iterable[str], *pod: str) -> set[str]:
    """Return those of some addresses, HOST:PORT, that a pod reaches."""
    return set(plane.kubectl("exec", *pod, "--", "python3", "-c", REACH, *targets).split())


@contextmanager
def stranger(deployed: Deployed) -> Iterator[None]:
    """A pod called so, of another namespace."""
    image = pod_of(named(deployed.documents, "Deployment", "isotherm-tcp"))["spec"]["containers"][0]["image"]
    command = ["python3", "-c", "import signal; signal.pause()"]
    deployed.plane.kubectl("run", "stranger", f"--image={image}", "--command", "--", *command)
    try:
        deployed.plane.kubectl("wait", "pod/stranger", "--for=condition=Ready", "--timeout=60s")
        yield
    finally:
        deployed.plane.kubectl("delete", "pod", "stranger", "--now")
