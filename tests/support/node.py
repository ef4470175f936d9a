"""A Kubernetes of one node: control plane, containerd, kubelet, kube-proxy, CoreDNS and kube-router on a machine."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
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

        def start(name: str, *command: str | Path) -> None:
            stack.enter_context(control_plane.process(host.folder / f"{name}.log", *host.command(*command)))

        _prepare(host)
        start("containerd", "containerd", f"--config={host.folder / 'containerd.toml'}")
        plane = stack.enter_context(control_plane.running(host.folder, host))
        plane.until(lambda: _exists(host, "/run/containerd/containerd.sock"), "containerd is ready")
        _load(host, loaded)
        start(
            "kubelet",
            HYPERKUBE,
            "kubelet",
            *(f"--config={host.folder / 'kubelet.yaml'}", f"--kubeconfig={plane.kubeconfig(f'system:node:{NODE}')}"),
            *(f"--root-dir={host.folder / 'kubelet'}", f"--cert-dir={host.folder / 'kubelet-certificates'}"),
            *(f"--hostname-override={NODE}", f"--node-ip={host.address}"),
        )
        start(
            "proxy",
            HYPERKUBE,
            "proxy",
            *("--proxy-mode=nftables", "--cluster-cidr=10.244.0.0/16", f"--hostname-override={NODE}"),
            *(f"--kubeconfig={plane.kubeconfig('system:kube-proxy')}", "--conntrack-max-per-core=0", "--oom-score-adj=0"),
        )
        plane.kubectl("apply", "--filename=-", stdin="".join(_volumes(host.folder / "volumes")))
        plane.kubectl("apply", "--filename=-", stdin=Template((FILES / "dns.yaml").read_text()).substitute(built=BUILT))
        plane.until(lambda: _knows(plane, set(loaded)), "the node is ready and knows its images")
        start(  # now, for it ends where no such node is known
            "policies",
            BUILT / "policies",
            *("--run-firewall", "--run-router=false", "--run-service-proxy=false", f"--hostname-override={NODE}"),
            *(f"--kubeconfig={plane.kubeconfig('admin')}", f"--service-cluster-ip-range={SERVICES}"),
        )
        plane.until(lambda: "KUBE-ROUTER-FORWARD" in host.run("iptables", "-S"), "policies are enforced")
        plane.kubectl("rollout", "status", "--namespace=kube-system", "deployment/coredns", "--timeout=60s")
        stack.enter_context(_addresses_given(plane, host.further))
        yield Node(host, plane)


def _prepare(host: Machine) -> None:
    for folder in ("/run", "/var/log"):
        host.run("mount", "-t", "tmpfs", "tmpfs", folder)
    for name, value in KERNEL.items():
        file = host.folder / name.replace("/", ".")
        file.write_text(f"{value}\n")
        host.run("mount", "--bind", file, f"/proc/sys/{name}")
    for name in ("containerd.toml", "kubelet.yaml", "cni/pods.conflist"):
        path = host.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(Template((FILES / path.name).read_text()).substitute(folder=host.folder, name=host.name))


def _exists(host: Machine, path: str) -> bool:
    return subprocess.run(host.command("test", "-e", path), check=False).returncode == 0


def _load(host: Machine, loaded: Mapping[str, str]) -> None:
    loaded = {"localhost/pause:1": images.built("pause", PEERS / "pause"), **loaded}
    command = [images.PODMAN, "save", "--quiet", "--multi-image-archive", *set(loaded.values())]
    with subprocess.Popen(command, env=os.environ | images.ENVIRONMENT, stdout=subprocess.PIPE) as save:
        taken = host.command(*CTR, "import", "-")
        subprocess.run(taken, stdin=save.stdout, stdout=subprocess.DEVNULL, timeout=IMPORT_SECONDS, check=True)
    assert save.returncode == 0, "podman saves no images"
    for ours, theirs in loaded.items():
        host.run(*CTR, "tag", theirs, ours)


def _volumes(folder: Path) -> Iterator[str]:
    for number in range(VOLUMES):
        path = folder / str(number)
        path.mkdir(parents=True)
        yield VOLUME.format(node=NODE, number=number, path=path)


@contextmanager
def _addresses_given(plane: ControlPlane, addresses: tuple[str, ...]) -> Iterator[None]:
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


def _knows(plane: ControlPlane, names: set[str]) -> bool:
    for node in plane.items("nodes"):
        conditions = {one["type"]: one["status"] for one in node["status"]["conditions"]}
        there = {name for image in node["status"].get("images", ()) for name in image.get("names") or ()}
        return conditions["Ready"] == "True" and names <= there
    return False
