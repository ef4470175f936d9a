"""Virtual hosts in Kubernetes itself: its admission, its controllers and a kubelet, with the rights of the role alone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isotherm.hosts import Backend, Spec
from isotherm.hosts import Host as Shown
from isotherm.hosts.kubernetes import Kubernetes
from isotherm.hosts.manifests import namespace_name
from isotherm.settings import Settings
from tests.contracts.hosts import HostsContract
from tests.dashboards.people import add_viewer
from tests.hosts.test_cli import Desk, Host
from tests.infra.conftest import HOST_IMAGE
from tests.support.node import Node
from tests.support.valkey import Valkey

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

ROLE = Path(__file__).resolve().parents[2] / "infra/hosts/cluster-role.yaml"
SETTLED_SECONDS = 90.0
KEYS_SECONDS = 150.0
POLL_SECONDS = 0.2
PARTS = "resourcequotas,limitranges,networkpolicies,secrets,services,statefulsets,pods,persistentvolumeclaims"


@pytest.fixture(scope="module", autouse=True)
def _rights(one_node: Node) -> Iterator[None]:
    """Come in as a user who has the role, and no other."""
    one_node.plane.kubectl("apply", f"--filename={ROLE}")
    one_node.plane.kubectl("create", "clusterrolebinding", "hosts", "--clusterrole=isotherm-hosts", "--user=hosts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(one_node.plane.kubeconfig("hosts")))
        yield


class Settled(Kubernetes):
    """Waits for what a cluster does in its own time: to give an address, and to delete."""

    async def create(self, spec: Spec) -> bool:
        kept = await super().create(spec)
        await self._until(spec.name, lambda found: bool(found and found.address))
        return kept

    async def delete(self, name: str, *, keep_volume: bool = False) -> None:
        await super().delete(name, keep_volume=keep_volume)
        await self._until(name, lambda found: found is None or found.state == "kept")

    async def _until(self, name: str, holds: Callable[[Shown | None], bool]) -> None:
        async with asyncio.timeout(SETTLED_SECONDS):
            while not holds(await self.find(name)):  # noqa: ASYNC110 # nothing tells
                await asyncio.sleep(POLL_SECONDS)


class TestKubernetes(HostsContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, one_node: Node) -> None:
        self.plane = one_node.plane

    @pytest.fixture
    def backend(self) -> Backend:
        return Settled(Settings(hosts="kubernetes", hosts_image=HOST_IMAGE))

    async def left_of(self, name: str) -> list[str]:
        where = namespace_name(name)
        if where not in {one["metadata"]["name"] for one in self.plane.items("namespaces")}:
            return []
        found = self.plane.items(PARTS, f"--namespace={where}")
        return sorted(f"{one['kind']}/{one['metadata']['name']}" for one in found)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("hosts")
    with Valkey(folder / "valkey") as valkey:
        settings = Settings(data_dir=folder, redis=valkey.url, hosts="kubernetes", hosts_image=HOST_IMAGE)
        asyncio.run(add_viewer(settings, "ada"))
        yield Desk(folder, settings)


@pytest.fixture(scope="module")
def host(desk: Desk) -> Iterator[Host]:
    yield desk.create("lab")
    assert desk.isotherm("delete", "lab", "--yes").stdout == "deleted lab\n"


def test_its_user_comes_in_with_the_key_and_may_become_root(desk: Desk, host: Host) -> None:
    done = host.run("id -un; hostname; sudo id -un; pwd")
    assert done.stdout.split() == ["user", "lab-0", "root", "/home/user"], done.stderr
    (listed,) = json.loads(desk.isotherm("list", "--json").stdout)
    assert (listed["name"], listed["user"], listed["state"]) == ("lab", "ada", "running")


def test_it_asks_for_names_and_reaches_no_other_pod(host: Host, one_node: Node) -> None:
    assert host.run("getent hosts kube-dns.kube-system.svc.cluster.local").stdout.split()[:1] == ["10.96.0.10"]
    (dns,) = one_node.plane.items("pods", "--namespace=kube-system", "--selector=k8s-app=kube-dns")
    where = f"{dns['status']['podIP']}:8181"
    assert one_node.machine.run("curl", "--silent", f"http://{where}/ready") == "OK"
    refused = host.run("curl", "--silent", "--show-error", "--max-time", "5", f"http://{where}/ready")
    assert (refused.returncode, refused.stdout) != (0, "OK")
    assert "Failed to connect" in refused.stderr or "timed out" in refused.stderr


def test_its_volume_is_the_next_ones_if_it_is_kept(desk: Desk, one_node: Node) -> None:
    before = desk.create("kept")
    assert before.run("cat >kept", stdin="21.5").returncode == 0
    assert desk.isotherm("delete", "kept", "--keep-volume", "--yes").returncode == 0
    again = desk.create("kept")
    assert again.run("cat kept").stdout == "21.5", "ssh knows it by the same key, and its home is as it was"
    said = desk.isotherm("delete", "kept", "--yes")
    assert said.stdout == "deleted kept\n", said.stderr
    assert namespace_name("kept") not in {one["metadata"]["name"] for one in one_node.plane.items("namespaces")}


def test_new_keys_let_in_when_the_node_has_looked(desk: Desk) -> None:
    host = desk.create("keys")
    other = desk.new_key("other")
    assert desk.isotherm("key", "keys", "--key", f"{other}.pub").returncode == 0
    deadline = time.monotonic() + KEYS_SECONDS
    while host.run("true", key=other).returncode != 0:
        assert time.monotonic() < deadline, "the key does not let in"
        time.sleep(POLL_SECONDS)
    assert host.run("true").returncode != 0
    assert desk.isotherm("delete", "keys", "--yes").returncode == 0
