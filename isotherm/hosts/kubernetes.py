"""Virtual hosts in a Kubernetes cluster, by its API: a namespace each, whose objects `manifests` has.

Making the namespace is what claims a name. Whatever fails on the way deletes it with all that is in it. One in which only
the volume is left is labelled KEPT; to take that label away, as it was read, claims it again.
"""

from __future__ import annotations

import asyncio
import base64
import os
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import aiohttp
import msgspec

from isotherm.errors import SettingsError
from isotherm.hosts.backend import HostsAway, HostsUnusable, HostTaken, NoSuchHost, to_the_end
from isotherm.hosts.host import KEYS_FILE, Host, Label, Spec
from isotherm.hosts.manifests import (
    HOST,
    KEPT,
    KEYS,
    LABEL,
    NAME,
    SELECTOR,
    Object,
    Surroundings,
    bounds,
    manifests,
    namespace_name,
    secret,
)
from isotherm.settings import Settings

REQUEST_SECONDS = 15.0
LOG_BYTES = 4096
_MARK = "host key: "
"""How the line of the log begins that the image writes at its start (infra/hosts/entry.sh)."""

_HOPELESS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CrashLoopBackOff", "CreateContainerConfigError"}

NOT_FOUND, CONFLICT = 404, 409


class Kubernetes:
    """Runs hosts; see `isotherm.hosts.backend.Backend`."""

    def __init__(self, settings: Settings) -> None:
        self._around = Surroundings.of(settings)

    async def check(self) -> None:
        """See that the cluster answers and lets us see namespaces."""
        async with self._connected() as cluster:
            await cluster.namespaces(SELECTOR)

    async def all(self) -> list[Host]:
        """Return every host, ascending by name."""
        async with self._connected() as cluster:
            return await cluster.hosts(SELECTOR)

    async def find(self, name: str) -> Host | None:
        """Return a host, or None."""
        async with self._connected() as cluster:
            found = await cluster.hosts(f"{SELECTOR}={name}")
        return found[0] if found else None

    async def create(self, spec: Spec) -> bool:
        """Begin to run a host, or raise HostTaken and leave everything as it is."""
        namespace, *objects = manifests(spec, self._around)
        async with self._connected() as cluster:
            try:
                await to_the_end(cluster.claim(spec, namespace))
                there = len(bounds(spec, self._around)) if cluster.claimed == "kept" else 0
                for place, one in enumerate(objects):
                    await to_the_end(cluster.apply(one, replace=place < there))
            except BaseException as error:
                await to_the_end(self._undo(cluster, spec.name, error))
                raise
            return cluster.claimed == "kept"

    async def delete(self, name: str, *, keep_volume: bool = False) -> None:
        """Have the cluster delete a host; it takes a while."""
        async with self._connected() as cluster:
            found = await cluster.namespace(name)
            if found is None or (keep_volume and KEPT in found["metadata"]["labels"]):
                raise NoSuchHost(f"there is no host {name}" + ("; its volume is kept already" if found else ""))
            await to_the_end(cluster.empty(name) if keep_volume else cluster.remove(name))

    async def keys(self, name: str) -> str:
        """Return the public keys that let in."""
        async with self._connected() as cluster:
            found = await cluster.secret(name)
        return base64.b64decode(found["data"][KEYS_FILE]).decode()

    async def set_keys(self, name: str, keys: Sequence[str]) -> None:
        """Let these keys in; a node shows them to the host within about a minute."""
        async with self._connected() as cluster:
            await cluster.secret(name)
            await cluster.apply(secret(name, keys), replace=True)

    async def host_key(self, name: str) -> str:
        """Return the public key that the host has written into its log, or an empty text."""
        async with self._connected() as cluster:
            lines = (await cluster.log(name)).splitlines()
        return next((line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)), "")

    async def _undo(self, cluster: _Cluster, name: str, error: BaseException) -> None:
        try:
            if cluster.claimed == "new":
                await cluster.remove(name)
            elif cluster.claimed == "kept":
                await cluster.empty(name)
        except (SettingsError, HostsAway) as left:
            error.add_note(f"something of the host {name} is left: {left}")

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[_Cluster]:
        try:
            from kubernetes_asyncio import client, config
        except ImportError as error:
            raise HostsUnusable("ISOTHERM_HOSTS=kubernetes needs a package: pip install 'isotherm[k8s]'") from error
        configuration = client.Configuration()
        configuration.client_side_validation = False  # a cluster may be newer than the package, and answer with more
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that there is no kubeconfig is told by the error
                named = {"config_file": file} if (file := os.environ.get("KUBECONFIG")) else {}
                await config.load_config(client_configuration=configuration, **named)
        except (config.ConfigException, OSError, ValueError) as error:
            raise HostsUnusable(f"there is no cluster to use: {error}; set KUBECONFIG to a file that names one") from error
        async with client.ApiClient(configuration) as api:
            yield _Cluster(client, api)


class _Cluster:
    """What we ask of the API of a cluster; objects are plain JSON."""

    def __init__(self, client: Any, api: Any) -> None:
        self._refused = client.ApiException
        self._api = api
        self._core, self._apps = client.CoreV1Api(api), client.AppsV1Api(api)
        self._networking = client.NetworkingV1Api(api)
        self.claimed: Literal["", "new", "kept"] = ""

    async def claim(self, spec: Spec, namespace: Object) -> None:
        """Make the namespace of a host, or take up one in which the volume was kept; `claimed` says which.

        Raises:
            HostTaken: there is a host.
        """
        try:
            await self._asked(self._core.create_namespace, namespace)
        except _Conflict:
            await self._claim_kept(spec, namespace)
            self.claimed = "kept"
        else:
            self.claimed = "new"

    async def _claim_kept(self, spec: Spec, namespace: Object) -> None:
        found = await self.namespace(spec.name)
        taken = f"there is a host {spec.name} already; choose another name, or `isotherm hosts delete {spec.name}`"
        if found is None or KEPT not in found["metadata"]["labels"]:
            raise HostTaken(taken)
        owner = _label(found).user
        if owner != spec.user:
            raise HostTaken(f"{owner} has kept the volume of a host {spec.name}; choose another name")
        again = {**namespace, "metadata": {**namespace["metadata"], "resourceVersion": found["metadata"]["resourceVersion"]}}
        try:
            await self._asked(self._core.replace_namespace, namespace_name(spec.name), again)
        except _Conflict as error:
            raise HostTaken(taken) from error

    async def apply(self, one: Object, *, replace: bool = False) -> None:
        """Make an object, or replace the one of its name."""
        where = one["metadata"]["namespace"]
        kind = {
            "ResourceQuota": "resource_quota",
            "LimitRange": "limit_range",
            "NetworkPolicy": "network_policy",
            "Secret": "secret",
            "Service": "service",
            "StatefulSet": "stateful_set",
        }[one["kind"]]
        group = {"NetworkPolicy": self._networking, "StatefulSet": self._apps}.get(one["kind"], self._core)
        if replace:
            await self._asked(getattr(group, f"replace_namespaced_{kind}"), one["metadata"]["name"], where, one)
        else:
            await self._asked(getattr(group, f"create_namespaced_{kind}"), where, one)

    async def remove(self, name: str) -> None:
        """Have the namespace of a host deleted, with all that is in it."""
        await self._gone(self._core.delete_namespace, namespace_name(name))

    async def empty(self, name: str) -> None:
        """Have all of a host deleted but its volume and its bounds, and mark its namespace so."""
        where = namespace_name(name)
        for delete, one in (
            (self._apps.delete_namespaced_stateful_set, name),
            (self._core.delete_namespaced_service, NAME),
            (self._core.delete_namespaced_secret, KEYS),
        ):
            await self._gone(delete, one, where)
        await self._asked(self._core.patch_namespace, where, {"metadata": {"labels": {KEPT: "true"}}})

    async def namespace(self, name: str) -> Object | None:
        """Return the namespace of a host, if there is one of ours."""
        found = await self.namespaces(f"{SELECTOR}={name}")
        return found[0] if found else None

    async def namespaces(self, selector: str) -> list[Object]:
        """Return the namespaces of hosts."""
        return await self._listed(self._core.list_namespace, selector)

    async def secret(self, name: str) -> Object:
        """Return the secret of a host.

        Raises:
            NoSuchHost: there is none.
        """
        try:
            found: Object = await self._asked(self._core.read_namespaced_secret, KEYS, namespace_name(name))
        except _NotFound as error:
            raise NoSuchHost(f"there is no host {name}") from error
        return found

    async def log(self, name: str) -> str:
        """Return the beginning of the log of a host, or an empty text while there is none."""
        try:
            found = await self._asked(
                self._core.read_namespaced_pod_log, f"{name}-0", namespace_name(name), limit_bytes=LOG_BYTES
            )
        except (_NotFound, SettingsError):
            return ""
        return str(found)

    async def hosts(self, selector: str) -> list[Host]:
        """Return hosts, ascending by name."""
        namespaces, sets, services, pods = await asyncio.gather(
            self.namespaces(selector),
            self._listed(self._apps.list_stateful_set_for_all_namespaces, selector),
            self._listed(self._core.list_service_for_all_namespaces, selector),
            self._listed(self._core.list_pod_for_all_namespaces, selector),
        )
        of = [{one["metadata"]["namespace"]: one for one in found} for found in (sets, services, pods)]
        found = [_host(one, *(kind.get(one["metadata"]["name"]) for kind in of)) for one in namespaces]
        return sorted(found, key=lambda one: one.name)

    async def _listed(self, ask: Callable[..., Awaitable[Any]], selector: str) -> list[Object]:
        found = await self._asked(ask, label_selector=selector)
        return list(found["items"])

    async def _gone(self, delete: Callable[..., Awaitable[Any]], *arguments: str) -> None:
        try:
            await self._asked(delete, *arguments)
        except (_NotFound, _Conflict):  # it is, or is about to be
            return

    async def _asked(self, ask: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> Any:
        """Ask the API; what it refuses, or that it does not answer, becomes an error of ours."""
        try:
            answer = await ask(*arguments, **options, _request_timeout=REQUEST_SECONDS)
        except self._refused as error:
            raise _said(error.status, error.body, error.reason) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise HostsAway(f"the Kubernetes API does not answer: {error or type(error).__name__}") from error
        return self._api.sanitize_for_serialization(answer)


class _Conflict(SettingsError):
    """There is one of its name already, or it has changed."""


class _NotFound(SettingsError):
    """There is none of its name."""


def _said(status: int, body: object, reason: str) -> SettingsError | HostsAway:
    try:
        text = msgspec.json.decode(body if isinstance(body, (str, bytes)) else b"", type=dict[str, Any])["message"]
    except (msgspec.DecodeError, KeyError):
        text = reason
    said = f"the Kubernetes API refuses it: {text}"
    if status >= 500 or status == 429:
        return HostsAway(said)
    return {NOT_FOUND: _NotFound, CONFLICT: _Conflict}.get(status, SettingsError)(said)


def _label(namespace: Object) -> Label:
    return msgspec.json.decode(namespace["metadata"]["annotations"][LABEL], type=Label)


def _host(namespace: Object, stateful_set: Object | None, service: Object | None, pod: Object | None) -> Host:
    metadata = namespace["metadata"]
    label, name = _label(namespace), metadata["labels"][HOST]
    if metadata.get("deletionTimestamp") or namespace.get("status", {}).get("phase") == "Terminating":
        return label.host(name, "deleting")
    if KEPT in metadata["labels"]:
        return label.host(name, "deleting" if pod else "kept")
    if stateful_set is None:
        return label.host(name, "incomplete", detail="it is being created, or that was cut off: then delete it")
    image = stateful_set["spec"]["template"]["spec"]["containers"][0]["image"]
    address = _address(service)
    if why := _hopeless(pod):
        return label.host(name, "failed", address=address, image=image, detail=why)
    if stateful_set.get("status", {}).get("readyReplicas") and address:
        return label.host(name, "running", address=address, image=image)
    why = _waiting(pod) or ("" if address else "the cluster has given it no address yet: MetalLB does that")
    return label.host(name, "starting", address=address, image=image, detail=why)


def _address(service: Object | None) -> str:
    given = ((service or {}).get("status", {}).get("loadBalancer") or {}).get("ingress") or []
    return str(given[0].get("ip") or given[0].get("hostname") or "") if given else ""


def _hopeless(pod: Object | None) -> str:
    """Return why a pod will not run, if so."""
    for status in (pod or {}).get("status", {}).get("containerStatuses") or []:
        waiting = status.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in _HOPELESS:
            return f"{waiting['reason']}: {waiting.get('message', 'see its log')}"
    return ""


def _waiting(pod: Object | None) -> str:
    """Return what a pod waits for, such as a node with room for it."""
    for condition in (pod or {}).get("status", {}).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message", ""))
    return ""
