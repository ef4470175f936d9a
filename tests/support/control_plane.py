"""A Kubernetes without nodes: etcd, API server and controllers, as processes on loopback; built by ``make k8s-lab``."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support.manifests import kubectl
from tests.support.ports import free_port

BUILT = Path(__file__).resolve().parents[2] / ".k8s-lab"
VERSION = "v1.34.4"
START_SECONDS = 60.0
POLL_SECONDS = 0.2
STOP_SECONDS = 20.0

KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: lab, cluster: {{server: "https://127.0.0.1:{port}", insecure-skip-tls-verify: true}}}}]
users: [{{name: admin, user: {{token: lab-admin}}}}]
contexts: [{{name: lab, context: {{cluster: lab, user: admin}}}}]
current-context: lab
"""

STORAGE_CLASS = """\
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: standard, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: lab
volumeBindingMode: WaitForFirstConsumer
"""


def available() -> str | None:
    """Say why there is no control plane, or None when there is one."""
    if all((BUILT / name).exists() for name in ("control-plane", "etcd")):
        return None
    return "Kubernetes' control plane is not built, which takes some ten minutes of CPU: make k8s-lab"


class ControlPlane:
    """One that runs."""

    def __init__(self, kubeconfig: Path) -> None:
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "PATH": f"{Path(kubectl()).parent}:{os.environ['PATH']}",
        }

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl; raises AssertionError with what it says when it fails."""
        command = [kubectl(), *arguments]
        done = subprocess.run(
            command, env=self.environment, input=stdin, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def items(self, *what: str) -> list[dict[str, Any]]:
        """Return what ``kubectl get`` finds."""
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", "--output=json", *what))["items"]
        return found

    def until(self, holds: Any, what: str) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + START_SECONDS
        while not holds():
            assert time.monotonic() < deadline, f"{what}: not within {START_SECONDS:g} s"
            time.sleep(POLL_SECONDS)


@contextmanager
def running(folder: Path) -> Iterator[ControlPlane]:
    """A control plane for the length of the block."""
    etcd, peers, api, controllers = (free_port() for _ in range(4))
    key, tokens, kubeconfig = folder / "accounts.key", folder / "tokens.csv", folder / "kubeconfig"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    tokens.write_text('lab-admin,admin,1,"system:masters"\n')
    kubeconfig.write_text(KUBECONFIG.format(port=api))
    plane = ControlPlane(kubeconfig)
    with ExitStack() as stack:
        stack.enter_context(
            _process(
                folder / "etcd.log",
                BUILT / "etcd",
                f"--data-dir={folder / 'etcd'}",
                *(f"--{kind}-client-urls=http://127.0.0.1:{etcd}" for kind in ("listen", "advertise")),
                f"--listen-peer-urls=http://127.0.0.1:{peers}",
            )
        )
        stack.enter_context(
            _process(
                folder / "apiserver.log",
                BUILT / "control-plane",
                "apiserver",
                f"--etcd-servers=http://127.0.0.1:{etcd}",
                *(f"--service-account-{kind}-file={key}" for kind in ("key", "signing-key")),
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-cluster-ip-range=10.96.0.0/16",
                *("--bind-address=127.0.0.1", f"--secure-port={api}", f"--cert-dir={folder / 'certificates'}"),
                *(f"--token-auth-file={tokens}", "--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount"),
            )
        )
        plane.until(lambda: _answers(plane), "the API server is ready")
        stack.enter_context(
            _process(
                folder / "controllers.log",
                BUILT / "control-plane",
                "controller-manager",
                *(f"--kubeconfig={kubeconfig}", f"--service-account-private-key-file={key}", "--leader-elect=false"),
                *("--bind-address=127.0.0.1", f"--secure-port={controllers}", f"--cert-dir={folder / 'certificates-too'}"),
            )
        )
        plane.kubectl("apply", "--filename=-", stdin=STORAGE_CLASS)
        yield plane


def _answers(plane: ControlPlane) -> bool:
    command = [kubectl(), "get", "--raw", "/readyz"]
    return subprocess.run(command, env=plane.environment, capture_output=True, timeout=30, check=False).returncode == 0


@contextmanager
def _process(log: Path, *command: str | Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=output, cwd=log.parent)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
