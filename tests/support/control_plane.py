"""A Kubernetes without nodes: etcd, API server, controllers and scheduler, as processes; built by ``make k8s-lab``."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support.machine import Machine
from tests.support.manifests import kubectl
from tests.support.ports import free_port

BUILT = Path(__file__).resolve().parents[2] / ".k8s-lab"
HYPERKUBE = BUILT / "hyperkube"
VERSION = "v1.34.4"
START_SECONDS = 180.0
POLL_SECONDS = 0.2
STOP_SECONDS = 20.0
KUBECTL_SECONDS = 300.0

NODE, SERVICES = "lab", "10.96.0.0/16"
USERS = {
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "system:kube-proxy": "",
    "hosts": "",
}
"""Each with its groups: what they may do is Kubernetes' own choice; of `hosts` that of infra/hosts/cluster-role.yaml."""

KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: lab, cluster: {{server: "https://{address}:{port}", insecure-skip-tls-verify: true}}}}]
users: [{{name: user, user: {{token: "lab-{user}"}}}}]
contexts: [{{name: lab, context: {{cluster: lab, user: user}}}}]
current-context: lab
"""

STORAGE_CLASS = """\
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: standard, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
"""


def available() -> str | None:
    """Say why there is no control plane, or None when there is one."""
    if all((BUILT / name).exists() for name in ("hyperkube", "etcd")):
        return None
    return "Kubernetes is not built, which takes some ten minutes of CPU: make k8s-lab"


class ControlPlane:
    """One that runs; its users' kubeconfigs lie in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig("admin")),
            "PATH": f"{Path(kubectl()).parent}:{os.environ['PATH']}",
        }

    def kubeconfig(self, user: str) -> Path:
        """Return the file by which a user comes in."""
        return self.folder / f"kubeconfig-{user}"

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl; raises AssertionError with what it says when it fails."""
        command = [kubectl(), *arguments]
        done = subprocess.run(
            command, env=self.environment, input=stdin, capture_output=True, text=True, timeout=KUBECTL_SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def items(self, *what: str) -> list[dict[str, Any]]:
        """Return what ``kubectl get`` finds."""
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", "--output=json", *what))["items"]
        return found

    def until(self, holds: Callable[[], Any], what: str) -> None:
        """Wait until something holds."""
        until(holds, what)


def until(holds: Callable[[], Any], what: str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + START_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {START_SECONDS:g} s"
        time.sleep(POLL_SECONDS)


@contextmanager
def running(folder: Path, machine: Machine | None = None, nodes: Sequence[str] = (NODE,)) -> Iterator[ControlPlane]:
    """A control plane for the length of the block, on loopback or on a machine of its own; nodes come in by their names."""
    users = USERS | {f"system:node:{name}": "system:nodes" for name in nodes}
    etcd, peers, api = (free_port() for _ in range(3))
    address = machine.address if machine else "127.0.0.1"
    key, tokens, certificates = folder / "accounts.key", folder / "tokens.csv", folder / "certificates"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    tokens.write_text("".join(f'lab-{user},{user},{user},"{groups}"\n' for user, groups in users.items()))
    plane = ControlPlane(folder)
    for user in users:
        plane.kubeconfig(user).write_text(KUBECONFIG.format(address=address, port=api, user=user))

    def client(name: str) -> Iterator[str]:
        yield f"--kubeconfig={plane.kubeconfig(f'system:kube-{name}')}"
        yield from ("--leader-elect=false", "--bind-address=127.0.0.1", f"--secure-port={free_port()}")
        yield f"--cert-dir={certificates / name}"

    with ExitStack() as stack:

        def start(name: str, *command: str | Path) -> None:
            whole = machine.command(*command) if machine else command
            stack.enter_context(process(folder / f"{name}.log", *whole))

        start(
            "etcd",
            BUILT / "etcd",
            f"--data-dir={folder / 'etcd'}",
            *(f"--{kind}-client-urls=http://127.0.0.1:{etcd}" for kind in ("listen", "advertise")),
            f"--listen-peer-urls=http://127.0.0.1:{peers}",
        )
        start(
            "apiserver",
            HYPERKUBE,
            "apiserver",
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            *(f"--service-account-{kind}-file={key}" for kind in ("key", "signing-key")),
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICES}",
            *(f"--bind-address={address}", f"--secure-port={api}", f"--cert-dir={certificates}"),
            *(f"--token-auth-file={tokens}", "--authorization-mode=Node,RBAC"),
            *("--enable-admission-plugins=NodeRestriction", "--kubelet-preferred-address-types=InternalIP"),
            *_aggregation(folder),
        )
        plane.until(lambda: _answers(plane), "the API server is ready")
        start(
            "controllers",
            HYPERKUBE,
            "controller-manager",
            *(*client("controller-manager"), "--use-service-account-credentials"),
            *(f"--service-account-private-key-file={key}", f"--root-ca-file={certificates / 'apiserver.crt'}"),
        )
        start("scheduler", HYPERKUBE, "scheduler", *client("scheduler"))
        plane.kubectl("apply", "--filename=-", stdin=STORAGE_CLASS)
        yield plane


def _aggregation(folder: Path) -> Iterator[str]:
    """Make a certificate by which APIs of others, such as that of metrics, know requests that the API server passes on."""
    certificate, key = folder / "front-proxy.crt", folder / "front-proxy.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=front-proxy",
         "-addext", "extendedKeyUsage=clientAuth", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    yield from (f"--requestheader-client-ca-file={certificate}", "--requestheader-allowed-names=front-proxy")
    for what, header in (("username", "User"), ("group", "Group")):
        yield f"--requestheader-{what}-headers=X-Remote-{header}"
    yield "--requestheader-extra-headers-prefix=X-Remote-Extra-"
    yield from (f"--proxy-client-cert-file={certificate}", f"--proxy-client-key-file={key}")


def _answers(plane: ControlPlane) -> bool:
    command = [kubectl(), "get", "--raw", "/readyz"]
    return subprocess.run(command, env=plane.environment, capture_output=True, timeout=30, check=False).returncode == 0


@contextmanager
def process(log: Path, *command: str | Path) -> Iterator[None]:
    """A process for the length of the block, which says what it says into a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=log.parent
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
