"""A Kubernetes of one node: control plane, containerd, kubelet, kube-proxy, CoreDNS and kube-router on a machine."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

from tests.support import control_plane, images, machine
from tests.support.control_plane import BUILT, HYPERKUBE, NODE, SERVICES, ControlPlane
from tests.support.machine import Machine
from tests.support.manifests import kubectl

PEERS = Path(__file__).resolve().parents[1] / "peers/kubernetes"
FILES = PEERS / "node"
PLUGINS = Path("/usr/lib/cni")
CTR = ("ctr", "--namespace=k8s.io", "images")
VOLUMES = 40
PODS = "10.244.0.0/16"
IMPORT_SECONDS = 300

KERNEL = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
"""What a kubelet sets for all of a machine. It finds it set, in files of ours in that place: this machine stays as it is."""

VOLUME = """\
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {node}-{number}}}
spec:
  capacity: {{storage: 20Gi}}
  accessModes: [ReadWriteOnce]
  storageClassName: standard
  local: {{path: {path}}}
  nodeAffinity:
    required:
      nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{node}]}}]}}]
---
"""


@dataclass(frozen=True, slots=True)
class Node:
    """One that runs."""

    machine: Machine
    plane: ControlPlane


def available() -> str | None:
    """Say why there can be no node here, or None when there can."""
    if reason := control_plane.available() or images.available():
        return reason
    if not all((BUILT / name).exists() for name in ("dns", "policies")):
        return "CoreDNS and kube-router are not built: make k8s-lab"
    absent = [
        one
        for one in ("containerd", "ctr", "runc", "nft", "iptables", "ipset", *machine.PROGRAMS)
        if shutil.which(one) is None
    ]
    absent += [str(PLUGINS / one) for one in ("ptp", "portmap", "host-local") if not (PLUGINS / one).exists()]
    return f"{', '.join(absent)} not installed; see tests/prepare.sh" if absent else None


@contextmanager
def running(loaded: Mapping[str, str]) -> Iterator[Node]:
    """A cluster of one node for the length of the block.

    Args:
        loaded: What it calls an image → what podman calls it.
    """
    with machine.started() as host, ExitStack() as stack:
        prepare(host)
        write(host, "cni/pods.conflist")
        start_containerd(host, stack)
        plane = stack.enter_context(control_plane.running(host.folder, host))
        load([host], loaded)
        join(host, NODE, plane, stack)
        plane.kubectl("apply", "--filename=-", stdin="".join(volumes(NODE, host.folder, VOLUMES)))
        plane.kubectl("apply", "--filename=-", stdin=dns())
        plane.until(lambda: knows(plane, NODE, set(loaded)), "the node is ready and knows its images")
        enforce_policies(host, NODE, plane, stack)
        plane.kubectl("rollout", "status", "--namespace=kube-system", "deployment/coredns", "--timeout=60s")
        stack.enter_context(addresses_given(plane, host.further))
        yield Node(host, plane)


def prepare(host: Machine) -> None:
    """Give a machine what Kubernetes expects of one."""
    for folder in ("/run", "/var/log"):
        host.run("mount", "-t", "tmpfs", "tmpfs", folder)
    for name, value in {**KERNEL, "kernel/random/boot_id": uuid.uuid4()}.items():
        file = host.folder / name.replace("/", ".")
        file.write_text(f"{value}\n")
        host.run("mount", "--bind", file, f"/proc/sys/{name}")
    write(host, "containerd.toml")
    write(host, "kubelet.yaml")


def write(host: Machine, name: str) -> None:
    """Write one of the files of a node into a machine's folder."""
    path = host.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(Template((FILES / path.name).read_text()).substitute(folder=host.folder, name=host.name))


def start_containerd(host: Machine, stack: ExitStack) -> None:
    """Have containers run on a machine, for as long as the stack is not unwound."""
    start(host, stack, "containerd", "containerd", f"--config={host.folder / 'containerd.toml'}")
    control_plane.until(lambda: exists(host, "/run/containerd/containerd.sock"), "containerd is ready")


def join(host: Machine, name: str, plane: ControlPlane, stack: ExitStack) -> None:
    """Make a machine a node."""
    start(
        host,
        stack,
        "kubelet",
        HYPERKUBE,
        "kubelet",
        *(f"--config={host.folder / 'kubelet.yaml'}", f"--kubeconfig={plane.kubeconfig(f'system:node:{name}')}"),
        *(f"--root-dir={host.folder / 'kubelet'}", f"--cert-dir={host.folder / 'kubelet-certificates'}"),
        *(f"--hostname-override={name}", f"--node-ip={host.address}"),
    )
    start(
        host,
        stack,
        "proxy",
        HYPERKUBE,
        "proxy",
        *("--proxy-mode=nftables", f"--cluster-cidr={PODS}", f"--hostname-override={name}"),
        *(f"--kubeconfig={plane.kubeconfig('system:kube-proxy')}", "--conntrack-max-per-core=0", "--oom-score-adj=0"),
    )


def enforce_policies(host: Machine, name: str, plane: ControlPlane, stack: ExitStack) -> None:
    """Have the pods of a node speak with whom they may: not before it is known, for this ends where no such node is."""
    start(
        host,
        stack,
        "policies",
        BUILT / "policies",
        *("--run-firewall", "--run-router=false", "--run-service-proxy=false", f"--hostname-override={name}"),
        *(f"--kubeconfig={plane.kubeconfig('admin')}", f"--service-cluster-ip-range={SERVICES}"),
    )
    plane.until(lambda: "KUBE-ROUTER-FORWARD" in host.run("iptables", "-S"), "policies are enforced")


def start(host: Machine, stack: ExitStack, name: str, *command: str | Path) -> None:
    """Start a program on a machine, for as long as the stack is not unwound."""
    stack.enter_context(control_plane.process(host.folder / f"{name}.log", *host.command(*command)))


def dns() -> str:
    """Return CoreDNS, as documents."""
    return Template((FILES / "dns.yaml").read_text()).substitute(built=BUILT)


def exists(host: Machine, path: str) -> bool:
    """Tell whether a machine has a file."""
    return subprocess.run(host.command("test", "-e", path), check=False).returncode == 0


def load(hosts: Sequence[Machine], loaded: Mapping[str, str]) -> None:
    """Bring images to machines where containerd runs, all of them at once."""
    loaded = {"localhost/pause:1": images.built("pause", PEERS / "pause"), **loaded}
    command = [images.PODMAN, "save", "--quiet", "--multi-image-archive", *set(loaded.values())]
    with tempfile.TemporaryFile() as archive, ThreadPoolExecutor(len(hosts)) as pool:
        subprocess.run(command, env=os.environ | images.ENVIRONMENT, stdout=archive, timeout=IMPORT_SECONDS, check=True)
        list(pool.map(lambda host: _import(host, archive.fileno(), loaded), hosts))


def _import(host: Machine, archive: int, loaded: Mapping[str, str]) -> None:
    with Path(f"/proc/self/fd/{archive}").open("rb") as file:
        taken = host.command(*CTR, "import", "-")
        subprocess.run(taken, stdin=file, stdout=subprocess.DEVNULL, timeout=IMPORT_SECONDS, check=True)
    for ours, theirs in loaded.items():
        host.run(*CTR, "tag", theirs, ours)


def volumes(node: str, folder: Path, count: int) -> Iterator[str]:
    """Make volumes of a node, as documents."""
    for number in range(count):
        path = folder / "volumes" / str(number)
        path.mkdir(parents=True)
        yield VOLUME.format(node=node, number=number, path=path)


@contextmanager
def addresses_given(plane: ControlPlane, addresses: Sequence[str]) -> Iterator[None]:
    """In the place of MetalLB: a Service of the kind LoadBalancer has one of these addresses, in turn."""
    shown = '{.metadata.namespace} {.metadata.name} {.spec.type} {.status.loadBalancer.ingress[0].ip}{"\\n"}'
    watch = subprocess.Popen(
        [kubectl(), "get", "services", "--all-namespaces", "--watch", f"--output=jsonpath={shown}"],
        env=plane.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    turn = itertools.cycle(addresses)

    def give() -> None:
        assert watch.stdout is not None
        for line in watch.stdout:
            namespace, name, kind, *given = line.split()
            if kind == "LoadBalancer" and not given:
                status = json.dumps({"status": {"loadBalancer": {"ingress": [{"ip": next(turn)}]}}})
                with contextlib.suppress(AssertionError):  # it is gone already
                    plane.kubectl(
                        "patch", "service", name, f"--namespace={namespace}", "--subresource=status", f"--patch={status}"
                    )

    giving = threading.Thread(target=give)
    giving.start()
    try:
        yield
    finally:
        watch.terminate()
        watch.wait()
        giving.join()


def knows(plane: ControlPlane, node: str, wanted: set[str]) -> bool:
    """Tell whether a node is ready and has these images."""
    for one in plane.items("nodes"):
        if one["metadata"]["name"] == node:
            conditions = {condition["type"]: condition["status"] for condition in one["status"]["conditions"]}
            there = {name for image in one["status"].get("images", ()) for name in image.get("names") or ()}
            return conditions["Ready"] == "True" and wanted <= there
    return False
