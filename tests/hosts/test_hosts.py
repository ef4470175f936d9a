"""What one may do with hosts: checked before anything is done, and kept in the audit log; the command line in a cluster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isotherm.accounts.accounts import Accounts, Actor
from isotherm.accounts.role import Role
from isotherm.accounts.users import User
from isotherm.cli import app
from isotherm.errors import BadField, IsothermError
from isotherm.hosts import Hosts, HostsAway, NoSuchHost, Spec
from isotherm.hosts.kubernetes import Kubernetes
from isotherm.settings import Settings
from isotherm.store.client import Client
from tests.contracts.hosts import ADA, BOB
from tests.dashboards.people import add_viewer
from tests.support.kubernetes_api import UNPULLABLE, KubernetesApi
from tests.support.valkey import Valkey

pytestmark = pytest.mark.servers

ANNA = Actor("anna", "192.0.2.1")
SPEC = Spec(name="lab", user="ada", keys=(ADA,))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApi]:
    with KubernetesApi(tmp_path) as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig))
        yield api


@pytest.fixture
async def accounts(redis: Client, server: Valkey) -> Accounts:
    accounts = Accounts.of(redis, Settings(redis=server.url))
    await accounts.users.create(User("ada", Role.VIEWER))
    return accounts


@pytest.fixture
def hosts(cluster: KubernetesApi, accounts: Accounts) -> Hosts:
    return Hosts(Kubernetes(Settings()), accounts)


async def outcomes(accounts: Accounts) -> list[tuple[str, str, str]]:
    return [(one.what, one.target, one.outcome) for one in reversed(await accounts.audit.read())]


async def test_what_is_done_and_what_fails_is_in_the_audit_log(
    hosts: Hosts, accounts: Accounts, cluster: KubernetesApi
) -> None:
    await hosts.create(SPEC, ANNA)
    await hosts.set_keys("lab", f"{ADA}\n{BOB}", ANNA)
    cluster.refused["DELETE namespaces"] = 500
    with pytest.raises(HostsAway):
        await hosts.delete("lab", ANNA)
    await hosts.delete("lab", ANNA)
    assert await outcomes(accounts) == [
        ("create host", "lab", "done"),
        ("change host keys", "lab", "done"),
        ("delete host", "lab", "failed"),
        ("delete host", "lab", "done"),
    ]


async def test_a_user_is_meant_in_whatever_case_they_are_typed(hosts: Hosts) -> None:
    await hosts.create(Spec(name="lab", user=" ADA ", keys=(ADA,)), ANNA)
    assert (await hosts.get("lab")).user == "ada"
    assert [one.name for one in await hosts.all("ada")] == ["lab"]
    assert await hosts.all("bob") == []


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (Spec(name="Lab", user="ada", keys=(ADA,)), "name"),
        (Spec(name="lab", user="nobody", keys=(ADA,)), "user"),
        (Spec(name="lab", user="ada", keys=("ssh-ed25519 AAAA",)), "keys"),
        (Spec(name="lab", user="ada"), "keys"),
        (Spec(name="lab", user="ada", keys=(ADA,), cpus=float("nan")), "cpus"),
        (Spec(name="lab", user="ada", keys=(ADA,), memory=1), "memory"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_may_not_be_is_refused_before_anything_is_asked_of_the_cluster(
    hosts: Hosts, cluster: KubernetesApi, spec: Spec, field: str
) -> None:
    with pytest.raises(BadField) as refused:
        await hosts.create(spec, ANNA)
    assert refused.value.field == field
    assert cluster.asked == []


async def test_keys_that_are_none_do_not_replace_those_that_are(hosts: Hosts) -> None:
    await hosts.create(SPEC, ANNA)
    with pytest.raises(BadField):
        await hosts.set_keys("lab", "hello", ANNA)
    assert await hosts.keys("lab") == (ADA,)


async def test_one_that_cannot_run_is_not_waited_for(hosts: Hosts, cluster: KubernetesApi) -> None:
    cluster.pod = UNPULLABLE
    await hosts.create(SPEC, ANNA)
    with pytest.raises(HostsAway, match="the host lab cannot run: ErrImagePull: no such image"):
        await hosts.until_it_answers("lab", 60)


async def test_one_that_goes_while_it_is_waited_for_is_told_so(hosts: Hosts, cluster: KubernetesApi) -> None:
    cluster.address = ""
    await hosts.create(SPEC, ANNA)
    looked = asyncio.Event()
    waiting = asyncio.create_task(hosts.until_it_answers("lab", 60, lambda _: looked.set()))
    await looked.wait()
    await hosts.delete("lab", ANNA)
    with pytest.raises(NoSuchHost):
        await waiting


@pytest.fixture
def command_line(server: Valkey, cluster: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    server.empty()
    monkeypatch.setenv("ISOTHERM_REDIS", server.url)
    monkeypatch.setenv("ISOTHERM_HOSTS", "kubernetes")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key.pub").write_text(ADA)
    asyncio.run(add_viewer(Settings(redis=server.url), "ada"))
    return CliRunner()


CREATE = ("hosts", "create", "lab", "--key", "key.pub", "--user", "ada")


def test_create_says_why_a_host_cannot_run_and_leaves_nothing(command_line: CliRunner, cluster: KubernetesApi) -> None:
    cluster.pod = UNPULLABLE
    with pytest.raises(IsothermError, match="the host lab cannot run: ErrImagePull: no such image"):
        command_line.invoke(app, CREATE, catch_exceptions=False)
    assert cluster.objects == {}


def test_create_without_waiting_prints_how_to_enter_it(command_line: CliRunner, cluster: KubernetesApi) -> None:
    shown = command_line.invoke(app, [*CREATE, "--no-wait"], catch_exceptions=False)
    assert (shown.exit_code, shown.stdout) == (0, "ssh user@192.0.2.10\n")
    gone = command_line.invoke(app, ["hosts", "delete", "lab", "--yes"], catch_exceptions=False)
    assert (gone.exit_code, gone.stdout, cluster.objects) == (0, "deleted lab\n", {})


def test_delete_waits_until_the_cluster_has_done_it(command_line: CliRunner, cluster: KubernetesApi) -> None:
    command_line.invoke(app, [*CREATE, "--no-wait"], catch_exceptions=False)
    cluster.lingers = threading.Event()
    threading.Timer(1.0, cluster.lingers.set).start()
    gone = command_line.invoke(app, ["hosts", "delete", "lab", "--yes"], catch_exceptions=False)
    assert (gone.exit_code, cluster.lingers.is_set(), cluster.objects) == (0, True, {})
