"""A small Kubernetes API over HTTP: the part that virtual hosts need, with the refusals of a real one.

Every object that it is given must be of the strict schema of Kubernetes. In the place of controllers, a StatefulSet has its
pod and its claim at once, and a Service its address; `pod` and `address` say how they do. It is no cluster: nothing runs.
"""

from __future__ import annotations

import copy
import functools
import json
import re
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml
from kubernetes_validate import utils

utils.schema_contents = functools.cache(utils.schema_contents)  # else it parses 2 MB of definitions for each object

VERSION = "1.37"
TOKEN = "a-token-of-the-tests"

KINDS = {
    "namespaces": "Namespace",
    "resourcequotas": "ResourceQuota",
    "limitranges": "LimitRange",
    "networkpolicies": "NetworkPolicy",
    "secrets": "Secret",
    "services": "Service",
    "statefulsets": "StatefulSet",
    "pods": "Pod",
    "persistentvolumeclaims": "PersistentVolumeClaim",
}
PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[a-z.0-9]+/v1))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/.))?/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?(?P<log>/log)?"
)

Object = dict[str, Any]
Key = tuple[str, str, str]

_CONTAINER: Object = {"name": "host", "image": "host", "imageID": "", "restartCount": 0}
RUNNING: Object = {"phase": "Running", "containerStatuses": [{**_CONTAINER, "ready": True, "state": {"running": {}}}]}
UNPULLABLE: Object = {
    "phase": "Pending",
    "containerStatuses": [
        {**_CONTAINER, "ready": False, "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
    ],
}
UNSCHEDULABLE: Object = {
    "phase": "Pending",
    "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}],
}


class Refusal(Exception):
    """What the API does not do."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class KubernetesApi:
    """Serves on entry.

    Attributes:
        pod: Status that pods of new StatefulSets have.
        address: Address that new Services have, or an empty text for none.
        log: What pods have written.
        asked: METHOD PATH of all requests.
        refused: ``METHOD resource`` → status with which the next such request is refused.
        lingers: While it is given and not set, a namespace that is deleted stays, and says that it is about to go.
        held: ``METHOD resource`` → set by the request when it has come; it is answered when `release` is set.
    """

    def __init__(self, folder: Path) -> None:
        self.objects: dict[Key, Object] = {}
        self.pod = RUNNING
        self.address = "192.0.2.10"
        self.log = ""
        self.asked: list[str] = []
        self.refused: dict[str, int] = {}
        self.held: dict[str, threading.Event] = {}
        self.release = threading.Event()
        self.lingers: threading.Event | None = None
        self.kubeconfig = folder / "kubeconfig"
        self._version = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                try:
                    api._serve(self)
                except ConnectionError:
                    self.close_connection = True  # who asked did not wait for the answer

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.kubeconfig.write_text(yaml.safe_dump(self._config()))
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def of(self, resource: str, namespace: str = "") -> list[Object]:
        """Return the objects of a resource, in a namespace perhaps."""
        with self._lock:
            return [one for (kind, where, _), one in self.objects.items() if kind == resource and namespace in ("", where)]

    def _config(self) -> Object:
        host, port = self._server.server_address[:2]
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": {"server": f"http://{host!s}:{port}"}}],
            "users": [{"name": "tests", "user": {"token": TOKEN}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
            "current-context": "tests",
        }

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        address = urlsplit(request.path)
        try:
            status, answer = self._answer(request, address.path, parse_qs(address.query), body)
        except Refusal as error:
            status, answer = (
                error.status,
                {
                    "apiVersion": "v1",
                    "kind": "Status",
                    "status": "Failure",
                    "reason": error.reason,
                    "message": str(error),
                    "code": error.status,
                },
            )
        is_text = isinstance(answer, str)
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("content-type", "text/plain" if is_text else "application/json")
        request.send_header("content-length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def _answer(
        self, request: BaseHTTPRequestHandler, path: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[int, Object | str]:
        method = request.command
        found = PATH.fullmatch(path)
        if found is None or found["resource"] not in KINDS:
            raise Refusal(404, "NotFound", f"the server could not find the requested resource {path}")
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            raise Refusal(401, "Unauthorized", "Unauthorized")
        resource, where, name = found["resource"], found["namespace"] or "", found["name"] or ""
        what = f"{method} {resource}"
        self.asked.append(f"{method} {path}")
        if event := self.held.pop(what, None):
            event.set()
            self.release.wait(30)
        if status := self.refused.pop(what, 0):
            raise Refusal(status, "Refused", f"the tests refuse {what}")
        with self._lock:
            self._finish()
            if found["log"]:
                self._get((resource, where, name))
                return 200, self.log
            return self._act(method, (resource, where, name), query, body, request.headers.get("content-type", ""))

    def _act(self, method: str, key: Key, query: dict[str, list[str]], body: bytes, kind: str) -> tuple[int, Object]:
        match method:
            case "GET" if key[2]:
                return 200, self._get(key)
            case "GET":
                return 200, {"apiVersion": "v1", "kind": KINDS[key[0]] + "List", "items": list(self._chosen(key, query))}
            case "POST":
                return 201, self._create(key, json.loads(body))
            case "PUT":
                return 200, self._replace(key, json.loads(body))
            case "PATCH":
                if "merge-patch" not in kind:
                    raise Refusal(415, "UnsupportedMediaType", f"{kind} is no patch that the tests know")
                return 200, self._replace(key, _merged(self._get(key), json.loads(body)))
            case "DELETE":
                self._delete(key)
                return 200, {"apiVersion": "v1", "kind": "Status", "status": "Success"}
        raise Refusal(405, "MethodNotAllowed", method)

    def _get(self, key: Key) -> Object:
        if key not in self.objects:
            raise Refusal(404, "NotFound", f'{key[0]} "{key[2]}" not found')
        return self.objects[key]

    def _chosen(self, key: Key, query: dict[str, list[str]]) -> Iterator[Object]:
        selector = query.get("labelSelector", [""])[0]
        for (resource, where, _), one in self.objects.items():
            if resource == key[0] and key[1] in ("", where) and _is_selected(one["metadata"].get("labels", {}), selector):
                yield one

    def _create(self, key: Key, one: Object) -> Object:
        resource, where, _ = key
        self._check(key, one)
        name = one["metadata"]["name"]
        if (resource, where, name) in self.objects:
            raise Refusal(409, "AlreadyExists", f'{resource} "{name}" already exists')
        one["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
        made = self._keep((resource, where, name), one)
        if resource == "services" and self.address:
            one["status"] = {"loadBalancer": {"ingress": [{"ip": self.address}]}}
        if resource == "statefulsets":
            self._run(where, one)
        return made

    def _run(self, where: str, stateful_set: Object) -> None:
        """Do what the controller of StatefulSets, the scheduler and a node would do."""
        name, spec = stateful_set["metadata"]["name"], stateful_set["spec"]
        template = copy.deepcopy(spec["template"])
        pod = {"apiVersion": "v1", "kind": "Pod", **template, "status": copy.deepcopy(self.pod)}
        pod["metadata"] |= {"name": f"{name}-0", "namespace": where}
        kubernetes_validate.validate({key: pod[key] for key in pod if key != "status"}, VERSION, strict=True)
        self._keep(("pods", where, f"{name}-0"), pod)
        for claim in spec["volumeClaimTemplates"]:
            key = ("persistentvolumeclaims", where, f"{claim['metadata']['name']}-{name}-0")
            if key not in self.objects:
                self._keep(key, {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **copy.deepcopy(claim)})
        ready = 1 if self.pod is RUNNING else 0
        stateful_set["status"] = {"replicas": 1, "readyReplicas": ready}

    def _replace(self, key: Key, one: Object) -> Object:
        before = self._get(key)
        self._check(key, one)
        version = one["metadata"].get("resourceVersion")
        if version is not None and version != before["metadata"]["resourceVersion"]:
            raise Refusal(409, "Conflict", f'{key[0]} "{key[2]}": the object has been modified')
        for name in ("uid", "creationTimestamp"):
            one["metadata"][name] = before["metadata"][name]
        return self._keep(key, one)

    def _delete(self, key: Key) -> None:
        resource, _, name = key
        one = self._get(key)
        if resource == "namespaces" and self.lingers is not None and not self.lingers.is_set():
            one["metadata"]["deletionTimestamp"] = one["metadata"]["creationTimestamp"]
            one["status"] = {"phase": "Terminating"}
            return
        del self.objects[key]
        pod = ("pods", key[1], f"{name}-0")
        for other in list(self.objects):
            if (resource == "namespaces" and other[1] == name) or (resource == "statefulsets" and other == pod):
                del self.objects[other]

    def _finish(self) -> None:
        """Delete what has lingered for long enough."""
        if self.lingers is not None and self.lingers.is_set():
            for key in [key for key, one in self.objects.items() if "deletionTimestamp" in one["metadata"]]:
                self._delete(key)

    def _check(self, key: Key, one: Object) -> None:
        resource, where, name = key
        if one.get("kind") != KINDS[resource] or (name and one["metadata"]["name"] != name):
            raise Refusal(400, "BadRequest", f"{one.get('kind')} {one['metadata'].get('name')} sent to {resource}/{name}")
        if resource != "namespaces" and ("namespaces", "", where) not in self.objects:
            raise Refusal(404, "NotFound", f'namespaces "{where}" not found')
        sent = {part: value for part, value in one.items() if part != "status"}
        try:
            kubernetes_validate.validate(sent, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Refusal(422, "Invalid", f"{one['kind']} is invalid: {error.message} at {list(error.path)}") from error

    def _keep(self, key: Key, one: Object) -> Object:
        self._version += 1
        one["metadata"]["resourceVersion"] = str(self._version)
        self.objects[key] = one
        return one


def _merged(one: Object, patch: Object) -> Object:
    """Return an object with a merge patch (RFC 7386) applied."""
    made = copy.deepcopy(one)
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, dict) and isinstance(made.get(name), dict):
            made[name] = _merged(made[name], value)
        else:
            made[name] = value
    return made


def _is_selected(labels: dict[str, str], selector: str) -> bool:
    for part in filter(None, selector.split(",")):
        name, equals, value = part.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    return True
