"""Channels in the registry of a real store, and `isotherm notify` beside it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agents.notifications.router import Router
from isotherm.channels import Apprise, Channel, Channels, Email, Quiet, Webhook
from isotherm.cli import notify
from isotherm.errors import SettingsError
from isotherm.settings import Settings
from isotherm.store import client, layout
from isotherm.store.client import Client
from tests.support.far_ends import hook, mailbox
from tests.support.notifications import BEGIN, event
from tests.support.stack import ISOTHERM
from tests.support.valkey import Valkey

HOOK = Webhook(url="https://example.org/T0KEN")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("valkey")) as valkey:
        yield valkey


@pytest.fixture
async def redis(server: Valkey, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    server.empty()
    monkeypatch.setenv("ISOTHERM_REDIS", server.url)
    async with client.connected(Settings.load()) as redis:
        yield redis


async def isotherm(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a command; the far ends that it may talk to are in this process."""
    process = await asyncio.create_subprocess_exec(
        *ISOTHERM, "notify", *arguments, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode or 0, output.decode(), errors.decode())


# The registry


@pytest.mark.servers
async def test_a_channel_is_kept_as_it_was_put_and_the_version_grows(redis: Client) -> None:
    channels = Channels(redis)
    every = [
        Channel(id="a", to=HOOK, quiet=Quiet(start="22:00", end="07:00"), zone="Europe/Berlin", rules=("x",)),
        Channel(id="b", to=Email.through("smtps://me:word@example.org", to=("a@b.c",))),
        Channel(id="c", to=Apprise(url="tgram://1/2"), kinds=("presence.*",), severity="info"),
    ]
    versions = [await channels.version()]
    for one in reversed(every):
        await channels.put(one)
        versions.append(await channels.version())
    assert await channels.all() == every
    assert await channels.get("b") == every[1]
    await channels.remove("b")
    versions.append(await channels.version())
    assert versions == sorted(set(versions))
    assert [one.id for one in await channels.all()] == ["a", "c"]
    for call in (channels.get, channels.remove):
        with pytest.raises(SettingsError, match="no channel 'b'; see: isotherm notify list"):
            await call("b")


@pytest.mark.servers
async def test_a_channel_that_cannot_be_read_is_named_with_the_mend(redis: Client) -> None:
    async with redis.pipeline(transaction=True) as change:
        change.hset("iso:{registry}:channels", "odd", b'{"id":"odd","to":{"kind":"webhook","url":"http://x"},"loud":1}')
        await change.execute()
    with pytest.raises(SettingsError, match=r"channel 'odd' cannot be read: .*`loud`.*isotherm notify remove odd"):
        await Channels(redis).all()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"id": "no name"}, "id is 'no name', expected letters"),
        ({"devices": ""}, "devices is '', expected a pattern"),
        ({"kinds": ()}, "kinds is empty"),
        ({"kinds": ("a b",)}, "kinds has 'a b', expected"),
        ({"zone": "Europe/Bärlin"}, "zone is 'Europe/Bärlin', expected an IANA time zone"),
        ({"zone": "../etc/passwd"}, "zone is '../etc/passwd', expected an IANA time zone"),
        ({"window": 9999}, "window is 9999, expected 0 to 3600"),
        ({"digest_above": 0}, "digest_above is 0, expected 1 to 1000"),
        ({"per_hour": 0}, "per_hour is 0, expected 1 to 3600"),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_the_rule(fields: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"id": "ops", "to": HOOK} | fields
    with pytest.raises(ValueError, match=said):
        Channel(**given)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Quiet(start="24:00", end="07:00"), "quiet.start is '24:00', expected a time such as 22:00"),
        (lambda: Quiet(start="07:00", end="07:00"), "quiet.end is '07:00', as quiet.start"),
        (lambda: Quiet.of("22", "critical"), "quiet hours are '22', expected such as 22:00-07:00"),
        (lambda: Webhook(url="ftp://example.org"), "expected https://HOST"),
        (lambda: Email(to=(), host="h", port=25), "to.to of an e-mail is empty"),
        (lambda: Email(to=("a\nBcc: b@c.d",), host="h", port=25), "to.to of an e-mail is 'a"),
        (lambda: Email(to=("a@b.c",), host="h", port=0), "to.port of an e-mail is 0, expected 1 to 65535"),
        (
            lambda: Email(to=("a@b.c",), host="example.org", port=25, security="plain"),
            "without TLS mail goes to this machine",
        ),
        (lambda: Email.through("https://example.org", to=("a@b.c",)), "expected smtp://USER"),
        (lambda: Apprise(url="telegram"), "expected an address such as tgram://"),
    ],
)
def test_a_wrong_far_end_is_named_with_the_rule(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


# The command line


@pytest.mark.servers
async def test_a_channel_is_added_listed_without_its_secrets_and_removed(redis: Client, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("k3y-of-ours\n")
    quiet = ("--quiet", "22:00-07:00", "--zone", "Europe/Berlin", "--through", "major")
    hook_of = ("--webhook", "https://example.org/services/T0KEN", "--secret", "@secret")
    added = await isotherm("add", "ops", *hook_of, "--devices", "room-*", *quiet, directory=tmp_path)
    assert (added.returncode, added.stderr) == (0, "")
    assert added.stdout == "added ops: https://example.org/…; try it: isotherm notify test ops\n"
    stored = await Channels(redis).get("ops")
    assert stored.to == Webhook(url="https://example.org/services/T0KEN", secret="k3y-of-ours")
    assert stored.quiet == Quiet(start="22:00", end="07:00", through="major")
    shown = await isotherm("list", directory=tmp_path)
    listed = await isotherm("list", "--json", directory=tmp_path)
    assert "22:00-07:00 Europe/Berlin, major gets through" in shown.stdout
    assert json.loads(listed.stdout)[0]["to"] == "https://example.org/…"
    for secret in ("T0KEN", "k3y"):
        assert secret not in added.stdout + shown.stdout + listed.stdout
    removed = await isotherm("remove", "ops", "--json", directory=tmp_path)
    assert json.loads(removed.stdout) == {"removed": "ops"}
    assert await Channels(redis).all() == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "expected one of --webhook URL, --email TO, --apprise URL"),
        (("--webhook", "http://x", "--apprise", "json://x"), "expected one of --webhook URL"),
        (("--email", "a@b.c"), "--email TO and --smtp URL need each other"),
        (("--webhook", "http://x", "--severity", "loud"), "--severity is 'loud', expected one of critical, major"),
        (("--webhook", "http://x", "--quiet", "22-7"), "quiet.start is '22', expected a time such as 22:00"),
        (("--webhook", "@nowhere"), "nowhere cannot be read"),
        (("--apprise", "smoke://T0KEN"), "apprise does not know this address"),
    ],
)
def test_a_channel_that_is_none_is_not_added(options: tuple[str, ...], said: str) -> None:
    failed = CliRunner().invoke(notify.app, ["add", "ops", *options])  # it fails before it needs a store
    assert isinstance(failed.exception, SettingsError)
    assert str(failed.exception).startswith("channel 'ops' was not added: ")
    assert said in str(failed.exception)
    assert "T0KEN" not in str(failed.exception) + failed.output


@pytest.mark.servers
async def test_a_test_message_says_exactly_what_the_far_end_answered(redis: Client, tmp_path: Path) -> None:
    async with hook() as web, mailbox() as mail:
        await Channels(redis).put(Channel(id="web", to=Webhook(url=web.url), severity="critical"))
        await Channels(redis).put(
            Channel(id="mail", to=Email.through(f"smtp+plain://127.0.0.1:{mail.port}", to=("ops@example.org",)))
        )
        sent = await isotherm("test", "web", directory=tmp_path)
        assert sent.stdout == f"sent to {web.url.removesuffix('/hooks/t0ken-of-the-hook')}/…: HTTP 204 No Content\n"
        web.answers = [(403, {}, "who are you, t0ken-of-the-hook?")]
        failed = await isotherm("test", "web", directory=tmp_path)
        assert failed.returncode == 1
        assert failed.stderr.endswith("did not take it: HTTP 403 Forbidden: who are you, …?\n")
        mailed = await isotherm("test", "mail", "--json", directory=tmp_path)
        assert "taken as 4711" in json.loads(mailed.stdout)["answer"]
    [(_, mail_of)] = mail.mails
    assert mail_of["Subject"] == "[info] test message of isotherm to channel mail"
    nobody = await isotherm("test", "nobody", directory=tmp_path)
    assert nobody.stderr == "isotherm: there is no channel 'nobody'; see: isotherm notify list\n"


@pytest.mark.servers
async def test_what_was_not_told_in_the_end_is_listed(redis: Client, tmp_path: Path) -> None:
    nothing = await isotherm("failed", directory=tmp_path)
    assert nothing.stdout == "everybody was told everything\n"
    router = Router()
    router.refresh([Channel(id="ops", to=HOOK)])
    router.take([event(1), event(2, device="room-2")], BEGIN)
    for one, retry_at in zip(router.due(BEGIN), (None, BEGIN + 5_000_000), strict=True):
        router.bind(one.id, [one], 1, BEGIN)
        router.failed(one.id, "HTTP 404 Not Found", BEGIN, retry_at=retry_at)
    async with redis.pipeline(transaction=True) as change:
        change.hset(layout.state_key(3, "notifications"), mapping=dict(router.changes().rows))
        await change.execute()
    shown = await isotherm("failed", directory=tmp_path)
    assert "HTTP 404 Not Found" in shown.stdout
    assert "[major] room-1/temperature above 30 °C: raised 2026-09-21 14:13:20 UTC" in shown.stdout
    listed = json.loads((await isotherm("failed", "--json", directory=tmp_path)).stdout)
    [given_up], [again] = listed["given_up"], listed["tried_again"]
    assert (given_up["channel"], given_up["attempts"], given_up["given_up"]) == ("ops", 1, "2026-09-21T14:13:20.000Z")
    assert (again["attempts"], again["retry_at"]) == (1, "2026-09-21T14:13:25.000Z")
