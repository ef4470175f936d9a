"""Virtual hosts, as programs and an admin's browser see them; a Kubernetes API keeps them."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import expect

from isotherm import client as programs
from isotherm.client import operations
from isotherm.hosts.manifests import namespace_name
from isotherm.settings import Settings
from tests.api.conftest import Login
from tests.api.program import Program
from tests.contracts.hosts import ADA, BOB
from tests.dashboards.client import Client
from tests.dashboards.people import log_in, register
from tests.dashboards.stack import Web
from tests.dashboards.test_access import PASSWORD, kernel
from tests.support import chromium as browsers
from tests.support.kubernetes_api import RUNNING, UNSCHEDULABLE, KubernetesApi
from tests.support.ports import free_port
from tests.support.valkey import Valkey

pytestmark = pytest.mark.servers

PAGE = "/admin/hosts"
FORM = {"name": "lab", "user": "vera", "keys": [ADA]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hosts-api")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[KubernetesApi]:
    with KubernetesApi(folder) as api:
        yield api


@pytest.fixture(scope="module")
def settings(folder: Path) -> Iterator[Settings]:
    with Valkey(folder / "valkey") as valkey:
        settings = Settings(
            data_dir=folder, redis=valkey.url, web_port=free_port(), kafka="127.0.0.1:1", hosts="kubernetes", api_rate=1_000
        )
        asyncio.run(register(settings))
        yield settings


@pytest.fixture(scope="module")
def web(settings: Settings, cluster: KubernetesApi) -> Iterator[Web]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        with Web(settings) as process:
            yield process


@pytest.fixture(autouse=True)
def _nothing_is_there(cluster: KubernetesApi) -> None:
    cluster.objects.clear()


@pytest.fixture
async def anna(login: Login) -> Program:
    return await login("anna", "hosts:read", "hosts:write", "host-keys:write")


@pytest.fixture
async def browser(web: Web) -> AsyncIterator[Client]:
    async with Client(web.url) as browser:
        await browser.log_in("anna", PASSWORD)
        yield browser


async def noted(settings: Settings) -> list[tuple[str, str, str, str]]:
    async with kernel(settings) as accounts:
        return [(one.who, one.what, one.target, one.outcome) for one in await accounts.audit.read() if "host" in one.what]


async def test_a_host_comes_changes_and_goes(anna: Program, settings: Settings, cluster: KubernetesApi) -> None:
    assert (await anna.get("/hosts")).json == {"items": [], "next": None}
    made = await anna.post("/hosts", {**FORM, "cpus": 0.5, "memory": "512Mi", "disk": "2Gi"})
    assert made.status == 201, made.body
    seen = await anna.get("/hosts/lab")
    assert seen.json == made.json
    assert (seen.json["state"], seen.json["ssh"], seen.json["memory"]) == ("running", "ssh user@192.0.2.10", "512Mi")
    assert (await anna.get("/hosts/lab", if_none_match=seen.headers["etag"])).status == 304
    assert [one["name"] for one in (await anna.get("/hosts")).json["items"]] == ["lab"]
    assert (await anna.delete("/hosts/lab", if_match='"another"')).status == 412
    assert (await anna.delete("/hosts/lab?keep_volume=true")).status == 204
    assert (await anna.get("/hosts/lab")).json["state"] == "kept"
    assert (await anna.delete("/hosts/lab")).status == 204
    assert (await anna.get("/hosts/lab")).status == (await anna.delete("/hosts/lab")).status == 404
    assert cluster.objects == {}
    whats = await noted(settings)
    assert {("anna", "create host", "lab", "done"), ("anna", "delete host", "lab", "done")} <= set(whats)


async def test_keys_are_replaced_as_they_were_seen(anna: Program) -> None:
    await anna.post("/hosts", FORM)
    seen = await anna.get("/hosts/lab/keys")
    assert seen.json == {"keys": [ADA]}
    changed = await anna.put("/hosts/lab/keys", {"keys": [ADA, BOB]}, if_match=seen.headers["etag"])
    assert (changed.status, changed.json) == (200, {"keys": [ADA, BOB]})
    assert (await anna.put("/hosts/lab/keys", {"keys": [BOB]}, if_match=seen.headers["etag"])).status == 412
    assert (await anna.get("/hosts/lab/keys")).json == {"keys": [ADA, BOB]}


async def test_a_request_that_is_sent_again_makes_one_host(anna: Program, cluster: KubernetesApi) -> None:
    first = await anna.post("/hosts", FORM, idempotency_key="k1")
    again = await anna.post("/hosts", FORM, idempotency_key="k1")
    assert (first.status, again.status, again.body) == (201, 201, first.body)
    taken = await anna.post("/hosts", FORM, idempotency_key="k2")
    assert (taken.status, "there is a host lab already; choose another name" in taken.detail) == (409, True)
    assert len(cluster.of("namespaces")) == 1


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"name": "No"}, "name", "'No' is no name of a host"),
        ({"user": "zeno"}, "user", "there is no user 'zeno'"),
        ({"keys": ["hello"]}, "keys", "line 1 begins with 'hello'"),
        ({"keys": [f"{ADA}\n-----BEGIN OPENSSH PRIVATE KEY-----"]}, "keys", "line 2 begins a private key"),
        ({"keys": []}, "keys", "at least 1 item"),
        ({"cpus": 0}, "cpus", "cpus is 0, expected 0.1 to 64"),
        ({"memory": "1G"}, "memory", "memory is '1G', expected a number with Mi, Gi or Ti behind it"),
        ({"disk": "999Ti"}, "disk", "disk is 999Ti, expected 1Gi to 64Ti"),
        ({"privileged": True}, "privileged", "Extra inputs are not permitted"),
    ],
)
async def test_what_cannot_be_is_told_by_its_field_and_nothing_is_made(
    anna: Program, cluster: KubernetesApi, change: dict[str, object], field: str, said: str
) -> None:
    refused = await anna.post("/hosts", FORM | change)
    assert refused.status == 422
    assert said in refused.detail
    assert [one["field"] for one in refused.json["errors"]] == [field]
    assert cluster.objects == {}


async def test_who_is_no_admin_sees_their_own_hosts_and_changes_their_keys(anna: Program, login: Login) -> None:
    await anna.post("/hosts", FORM)
    await anna.post("/hosts", FORM | {"name": "other", "user": "otto"})
    vera = await login("vera", "read", "write")
    assert [one["name"] for one in (await vera.get("/hosts")).json["items"]] == ["lab"]
    assert (await vera.get("/hosts/lab")).status == 200
    assert (await vera.put("/hosts/lab/keys", {"keys": [BOB]})).json == {"keys": [BOB]}
    for path in ("/hosts/other", "/hosts/other/keys"):
        assert (await vera.get(path)).status == 404
    assert (await vera.put("/hosts/other/keys", {"keys": [BOB]})).status == 404
    assert (await vera.post("/hosts", FORM | {"name": "mine"})).status == (await vera.delete("/hosts/lab")).status == 403
    assert (await anna.get("/hosts/other/keys")).json == {"keys": [ADA]}


async def test_a_cluster_that_fails_is_unavailable_and_not_an_error_of_ours(anna: Program, cluster: KubernetesApi) -> None:
    cluster.refused["POST services"] = 500
    failed = await anna.post("/hosts", FORM)
    assert (failed.status, "the tests refuse POST services" in failed.detail) == (503, True)
    assert cluster.objects == {}
    cluster.refused["GET namespaces"] = 503
    assert (await anna.get("/hosts")).status == 503


async def test_both_clients_know_hosts(anna: Program, web: Web, login: Login) -> None:
    token = (await login("anna", "hosts:read", "hosts:write", "host-keys:write"))._headers["Authorization"].split()[1]
    async with programs.AsyncClient(web.url, token) as isotherm:
        made = await isotherm.create_host("lab", "vera", [ADA], memory="512Mi")
        assert await isotherm.host("lab") == made
        keys = await isotherm.host_keys("lab")
        assert (await isotherm.set_host_keys("lab", [BOB], etag=keys.etag)).keys == [BOB]
        with pytest.raises(programs.PreconditionFailed):
            await isotherm.set_host_keys("lab", [ADA], etag=keys.etag)
        assert [one.name async for one in isotherm.hosts()] == ["lab"]
        await isotherm.delete_host("lab", keep_volume=True)
        assert (await isotherm.host("lab")).state == "kept"
        await isotherm.delete_host("lab")
        with pytest.raises(programs.NotFound):
            await isotherm.host("lab")
    assert hasattr(programs.Client, "create_host")
    assert operations.hosts.create_host.__doc__


async def test_an_admin_creates_one_on_the_page_and_deletes_it(browser: Client, cluster: KubernetesApi) -> None:
    assert "No virtual host yet: the form below makes one." in (await browser.get(PAGE)).text
    cluster.pod = UNSCHEDULABLE
    fields = {"name": "lab", "user": "vera", "cpus": "1", "memory": "1Gi", "disk": "10Gi", "keys": ADA}
    made = await browser.post(f"{PAGE}/create", PAGE, **fields)
    assert (made.status, made.location) == (303, f"{PAGE}?done=starting")
    page = (await browser.get(made.location)).text
    for text in ("ssh user@192.0.2.10", "starting", "0/3 nodes are available", "The host is starting"):
        assert text in page
    assert ADA in (await browser.get(f"{PAGE}/lab/keys")).text
    changed = await browser.post(f"{PAGE}/keys", f"{PAGE}/lab/keys", name="lab", keys=BOB)
    assert changed.location == f"{PAGE}?done=keys"
    assert BOB in (await browser.get(f"{PAGE}/lab/keys")).text
    assert "Delete lab?" in (await browser.post(f"{PAGE}/delete", PAGE, name="lab")).text
    assert cluster.of("statefulsets", namespace_name("lab"))
    gone = await browser.post(f"{PAGE}/delete", PAGE, name="lab", sure="yes", keep="yes")
    assert gone.location == f"{PAGE}?done=keep"
    assert cluster.of("persistentvolumeclaims")
    await browser.post(f"{PAGE}/delete", PAGE, name="lab", sure="yes")
    assert cluster.objects == {}


async def test_the_page_shows_that_a_host_has_started_and_keeps_what_is_typed_meanwhile(
    web: Web, anna: Program, cluster: KubernetesApi
) -> None:
    if missing := browsers.available():
        pytest.skip(missing)
    cluster.pod = UNSCHEDULABLE
    await anna.post("/hosts", FORM)
    async with browsers.chromium() as browser:
        page = browser.page
        await log_in(page, web.url + PAGE, "anna")
        state = page.get_by_role("row", name="lab").get_by_role("cell").nth(1)
        await expect(state).to_contain_text("starting")
        await page.get_by_label("Name").fill("another")
        for pod in cluster.of("pods", namespace_name("lab")):
            pod["status"] = copy.deepcopy(RUNNING)
        for one in cluster.of("statefulsets", namespace_name("lab")):
            one["status"]["readyReplicas"] = 1
        await expect(state).to_have_text("running", timeout=20_000)
        await expect(page.get_by_label("Name")).to_have_value("another")
        assert browser.errors == []


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"name": "No"}, "name", "&#39;No&#39; is no name of a host"),
        ({"cpus": "many"}, "cpus", "Cpus is &#39;many&#39;, expected a number such as 1 or 0.5."),
        ({"memory": "1"}, "memory", "expected a number with Mi, Gi or Ti behind it"),
        ({"keys": "hello <b>"}, "keys", "Line 1 begins with &#39;hello&#39;"),
    ],
)
async def test_the_page_says_at_the_field_what_is_wrong_and_keeps_what_was_typed(
    browser: Client, cluster: KubernetesApi, change: dict[str, str], field: str, said: str
) -> None:
    fields = {"name": "lab", "user": "vera", "cpus": "1", "memory": "1Gi", "disk": "10Gi", "keys": ADA}
    refused = await browser.post(f"{PAGE}/create", PAGE, **(fields | change))
    assert refused.status == 422
    assert said in refused.text.partition(f'id="{field}-note">')[2].partition("</p>")[0]
    assert "<option selected>vera</option>" in refused.text
    assert "<b>" not in refused.text
    assert cluster.objects == {}


async def test_the_page_says_when_the_cluster_fails(browser: Client, cluster: KubernetesApi) -> None:
    cluster.refused["GET namespaces"] = 500
    failed = await browser.get(PAGE)
    assert (failed.status, "the tests refuse GET namespaces" in failed.text) == (503, True)
