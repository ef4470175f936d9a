"""Virtual hosts in Kubernetes: against an API that keeps and checks objects, and runs nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import msgspec
import pytest
import yaml

from isotherm.errors import SettingsError
from isotherm.hosts import Backend, HostsAway, HostsUnusable, Spec
from isotherm.hosts.kubernetes import Kubernetes
from isotherm.hosts.manifests import namespace_name
from isotherm.settings import Settings
from tests.contracts.hosts import HostsContract
from tests.support.kubernetes_api import PATH, UNPULLABLE, UNSCHEDULABLE, VERSION, KubernetesApi

PARTS = ("resourcequotas", "limitranges", "networkpolicies", "secrets", "services", "statefulsets")


ROLE = Path(__file__).parents[2] / "infra" / "hosts" / "cluster-role.yaml"
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def asked_for(asked: str) -> tuple[str, str, str]:
    """Return the group, the resource and the verb of a request, as roles name them."""
    method, _, path = asked.partition(" ")
    found = PATH.fullmatch(path)
    assert found is not None
    group = (found["group"] or "").removesuffix("/v1")
    verb = VERBS.get(method) or ("get" if found["name"] else "list")
    return group, found["resource"] + (found["log"] or ""), verb


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApi]:
    with KubernetesApi(tmp_path) as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig))
        yield api


@pytest.fixture
def backend(api: KubernetesApi) -> Backend:
    return Kubernetes(Settings(hosts="kubernetes"))


class TestKubernetes(HostsContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, api: KubernetesApi) -> None:
        self.api = api

    async def left_of(self, name: str) -> list[str]:
        where = namespace_name(name)
        return sorted("/".join(key) for key in self.api.objects if where in key)

    async def test_all_parts_lie_in_its_namespace(self, backend: Backend, spec: Spec) -> None:
        await backend.create(spec)
        parts = {resource for resource in PARTS if self.api.of(resource, namespace_name(spec.name))}
        assert parts == set(PARTS)

    @pytest.mark.parametrize("part", PARTS)
    async def test_whatever_part_is_refused_nothing_is_left(self, backend: Backend, spec: Spec, part: str) -> None:
        self.api.refused[f"POST {part}"] = 403
        with pytest.raises(SettingsError, match=f"the Kubernetes API refuses it: the tests refuse POST {part}"):
            await backend.create(spec)
        assert await self.left_of(spec.name) == []

    @pytest.mark.parametrize("part", ["namespaces", *PARTS])
    async def test_wherever_it_is_interrupted_nothing_is_left(self, backend: Backend, spec: Spec, part: str) -> None:
        come = self.api.held[f"POST {part}"] = threading.Event()
        creating = asyncio.create_task(backend.create(spec))
        await asyncio.to_thread(come.wait, 20)
        creating.cancel()
        self.api.release.set()
        with pytest.raises(asyncio.CancelledError):
            await creating
        assert await self.left_of(spec.name) == []

    async def test_a_volume_that_was_kept_stays_when_the_next_host_cannot_be_made(
        self, backend: Backend, spec: Spec
    ) -> None:
        await backend.create(spec)
        await backend.delete(spec.name, keep_volume=True)
        self.api.refused["POST statefulsets"] = 500
        with pytest.raises(HostsAway):
            await backend.create(spec)
        assert self.api.of("persistentvolumeclaims", namespace_name(spec.name))
        found = await backend.find(spec.name)
        assert found is not None
        assert found.state == "kept"

    async def test_it_says_why_a_host_does_not_run(self, backend: Backend, spec: Spec) -> None:
        self.api.pod = UNPULLABLE
        await backend.create(spec)
        found = await backend.find(spec.name)
        assert found is not None
        assert (found.state, found.detail) == ("failed", "ErrImagePull: no such image")

    async def test_it_says_what_a_host_waits_for(self, backend: Backend, spec: Spec) -> None:
        self.api.pod = UNSCHEDULABLE
        await backend.create(spec)
        found = await backend.find(spec.name)
        assert found is not None
        assert (found.state, found.detail) == ("starting", "0/3 nodes are available")

    async def test_without_metallb_it_says_that_there_is_no_address(self, backend: Backend, spec: Spec) -> None:
        self.api.address = ""
        await backend.create(spec)
        found = await backend.find(spec.name)
        assert found is not None
        assert (found.state, found.detail) == ("starting", "the cluster has given it no address yet: MetalLB does that")
        await backend.delete(spec.name)
        self.api.address = "192.0.2.11"

    async def test_the_key_by_which_clients_know_it_is_read_from_its_log(self, backend: Backend, spec: Spec) -> None:
        await backend.create(spec)
        self.api.log = "something else\nhost key: ssh-ed25519 AAAA lab\nServer listening on 0.0.0.0 port 22.\n"
        assert await backend.host_key(spec.name) == "ssh-ed25519 AAAA lab"

    async def test_a_namespace_that_is_none_of_ours_is_neither_shown_nor_deleted(self, backend: Backend, spec: Spec) -> None:
        name = namespace_name(spec.name)
        alien = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "resourceVersion": "1"}}
        self.api.objects["namespaces", "", name] = alien
        assert await backend.find(spec.name) is None
        with pytest.raises(SettingsError, match="there is a host"):
            await backend.create(spec)
        assert self.api.of("namespaces") == [alien]

    async def test_what_may_not_be_is_told_as_the_cluster_says_it(self, backend: Backend, spec: Spec) -> None:
        self.api.refused["GET namespaces"] = 403
        with pytest.raises(SettingsError, match="the tests refuse GET namespaces"):
            await backend.check()

    async def test_all_that_is_asked_may_be_asked_with_the_role_that_is_given(self, backend: Backend, spec: Spec) -> None:
        await backend.check()
        for _ in range(2):
            await backend.create(spec)
            await backend.find(spec.name)
            await backend.host_key(spec.name)
            await backend.set_keys(spec.name, [*spec.keys, *(await backend.keys(spec.name)).splitlines()])
            await backend.delete(spec.name, keep_volume=True)
        await backend.delete(spec.name)
        role = yaml.safe_load(ROLE.read_text())
        kubernetes_validate.validate(role, VERSION, strict=True)
        allowed = {
            (group, resource, verb)
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
        assert {asked_for(one) for one in self.api.asked} == allowed

    async def test_a_disk_that_differs_does_not_change_a_volume_that_was_kept(self, backend: Backend, spec: Spec) -> None:
        await backend.create(spec)
        before = self.api.of("persistentvolumeclaims", namespace_name(spec.name))
        await backend.delete(spec.name, keep_volume=True)
        await backend.create(msgspec.structs.replace(spec, disk=2 * spec.disk))
        assert self.api.of("persistentvolumeclaims", namespace_name(spec.name)) == before


async def test_a_cluster_that_does_not_answer_is_told_in_a_line(api: KubernetesApi, backend: Backend) -> None:
    api.kubeconfig.write_text(api.kubeconfig.read_text().replace("http://127.0.0.1:", "http://127.0.0.1:1#"))
    with pytest.raises(HostsAway, match="the Kubernetes API does not answer"):
        await backend.all()


async def test_where_there_is_no_cluster_it_is_said_how_to_name_one(api: KubernetesApi, backend: Backend) -> None:
    api.kubeconfig.unlink()
    with pytest.raises(HostsUnusable, match="set KUBECONFIG"):
        await backend.check()
