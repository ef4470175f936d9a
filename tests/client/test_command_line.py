"""Commands from elsewhere: over ISOTHERM_URL they print what they print beside the store, and do the same."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

from isotherm.cli import main
from isotherm.cli.devices import register_fleet
from isotherm.cli.server import address
from isotherm.kafka import Producer
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store import client as stores
from isotherm.topics import REJECTS
from tests.api.broker import kafka as kafka
from tests.api.conftest import HOT
from tests.api.test_rejects import BINARY, GOOD, reject
from tests.client.conftest import token_of
from tests.dashboards.beside import write_presence
from tests.dashboards.stack import Web
from tests.support.ports import free_port

pytestmark = pytest.mark.servers


class Said(NamedTuple):
    """What a command has said."""

    code: int
    out: str
    error: str


Command = Callable[..., Said]


def isotherm(*arguments: str, **settings: str) -> Said:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name, value in settings.items():
            patch.setenv(f"ISOTHERM_{name.upper()}", value)
        patch.setattr("sys.argv", ["isotherm", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
    return Said(int(end.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def rejected(settings: Settings) -> dict[str, str]:
    """Give ids of rejects."""

    async def fill() -> dict[str, str]:
        made = {"good": reject(GOOD, 1), "text": reject(b"junk", 2), "binary": reject(BINARY, 3), "last": reject(b"x", 4)}
        made["foreign"] = reject(b'{"n":"room-1/t","v":666}', 5, reason="identity")
        async with AsyncExitStack() as ending:
            producer = Producer(settings, "a-test")
            await producer.start()
            ending.push_async_callback(producer.stop)
            for value in made.values():
                await producer.deliver(REJECTS, value, partition=2)
        return {name: f"2/{offset}" for offset, name in enumerate(made)}

    return asyncio.run(fill())


@pytest.fixture(scope="module")
def filled(settings: Settings, web: Web, rejected: dict[str, str]) -> None:
    """Have it said of devices what can be said of them."""

    async def say() -> None:
        async with stores.connected(settings) as redis:
            registry = Registry(redis)
            await registry.add("gate", is_gateway=True, type="hub")
            await registry.add("room-0", gateway="gate", type="lamp")
            await registry.label("room-0", add=["floor=1", "vip"])
            await registry.new_token("gate")
            await write_presence(settings, {"room-0": "online", "room-1": "late"}, cadence=5_000_000)

    asyncio.run(say())


@pytest.fixture
def beside(settings: Settings, filled: None) -> Command:
    """Run a command on the server: it asks the store."""
    where = {"redis": settings.redis, "kafka": settings.kafka, "data_dir": str(settings.data_dir)}
    return lambda *arguments: isotherm(*arguments, **where)


@pytest.fixture(scope="module")
def elsewhere(settings: Settings, web: Web, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """Run a command on another machine: neither store nor log can be reached from there."""
    token = token_of(settings, "anna", "read", "write")
    nothing = {"redis": "redis://127.0.0.1:1", "kafka": "127.0.0.1:1", "data_dir": str(tmp_path_factory.mktemp("laptop"))}
    yield lambda *arguments: isotherm(*arguments, url=web.url, api_token=token, **nothing)


def timeless(said: Said) -> Said:
    """Return what was said without how long ago things were, and the room that this takes in a table."""
    return said._replace(out=re.sub(r" +", " ", re.sub(r"\d+ (s|min|h) ago", "… ago", said.out)))


READING = [
    "devices",
    "devices --json",
    "devices list",
    "devices list --label floor --json",
    "devices list --label nowhere",
    "devices show room-0",
    "devices show gate --json",
    "devices label room-0",
    "query room-1 temperature",
    "query room-1 temperature --points 7 --json",
    "query room-1 temperature --csv",
    "query room-1 nothing --json",
    "ledger",
    "ledger --json",
    "alarms",
    "alarms --json --all",
    "alarms --device nobody",
    "rules list",
    "rules list --json",
    "rules show hot",
    "users list",
    "users list --json",
    "rejects list --limit 3",
    "rejects list --reason malformed --device room-1 --last 1h --limit 5 --json",
    "rejects list --reason none-such",
    "rejects show 2/0",
    "rejects show 2/2 --json",
    "rejects replay 2/0 --dry-run --json",
]


@pytest.mark.parametrize("command", READING)
def test_it_prints_the_same(command: str, beside: Command, elsewhere: Command) -> None:
    here, there = beside(*command.split()), elsewhere(*command.split())
    assert here.code == 0, here.error
    assert timeless(there) == timeless(here)


def test_devices_are_changed(beside: Command, elsewhere: Command) -> None:
    steps = [
        "devices add pump-1 pump-2 --type pump --via gate",
        "devices add pump-1",
        "devices label pump-1 +floor=2 +wet",
        "devices label pump-1 +floor=3 -wet --json",
        "devices show pump-1",
        "devices token pump-1 --revoke",
        "devices remove pump-1 pump-2",
        "devices list --json",
    ]
    here = [beside(*step.split()) for step in steps]
    assert [elsewhere(*step.split()) for step in steps] == here
    assert [said.code for said in here] == [0] * len(steps)
    assert "pump-1: 0 tokens, a pump, labelled floor=3" in here[4].out


def test_a_token_that_was_made_elsewhere_is_one(settings: Settings, beside: Command, elsewhere: Command) -> None:
    made = json.loads(elsewhere("devices", "token", "room-2", "--json").out)

    async def owner() -> str:
        async with stores.connected(settings) as redis:
            device = await Registry(redis).by_token(made["token"])
            return device.name if device else ""

    assert asyncio.run(owner()) == "room-2"
    assert elsewhere("devices", "token", "room-2", "--revoke").out.startswith("1 tokens of room-2 work no longer")
    assert asyncio.run(owner()) == ""


def test_alarms_are_acknowledged_and_shelved(beside: Command, elsewhere: Command) -> None:
    assert elsewhere("alarms", "ack", HOT, "--note", "seen").out == f"acknowledged {HOT}\n"
    assert re.fullmatch(rf"shelved {HOT} until \S+Z\n", elsewhere("alarms", "shelve", HOT, "--for", "2h").out)
    (found,) = [one for one in json.loads(beside("alarms", "--all", "--json").out) if one["alarm"] == HOT]
    assert (found["acknowledged"]["by"], found["acknowledged"]["note"], found["shelved"]["by"]) == ("anna", "seen", "anna")
    assert elsewhere("alarms", "unshelve", HOT).out == f"unshelved {HOT}\n"
    refused = elsewhere("alarms", "ack", HOT, "--by", "eve")
    assert (refused.code, refused.error.count("\n")) == (1, 1)
    assert "--by is 'eve'" in refused.error


def test_rules_are_changed(beside: Command, elsewhere: Command) -> None:
    unknown = elsewhere("rules", "add", "cold", "--metric", "pressure", "--below", "3")
    assert unknown == beside("rules", "add", "cold", "--metric", "pressure", "--below", "3")
    assert unknown.code == 1
    for step in (
        "rules add cold --metric temperature --below 3 --hold 5m",
        "rules add cold --metric temperature --below 4 --replace",
        "rules disable cold",
    ):
        assert elsewhere(*step.split()).code == 0
    (rule,) = [one for one in json.loads(beside("rules", "list", "--json").out) if one["id"] == "cold"]
    assert (rule["below"], rule["enabled"]) == (4.0, False)
    assert "--replace" in elsewhere("rules", "add", "cold", "--metric", "temperature", "--below", "3").error
    assert elsewhere("rules", "enable", "cold").code == 0
    assert elsewhere("rules", "remove", "cold").out == "removed cold\n"
    for step in ("rules show cold", "rules remove cold"):
        assert elsewhere(*step.split()) == beside(*step.split()), "there is no such rule any more"


def test_users_are_changed(web: Web, beside: Command, elsewhere: Command) -> None:
    made = json.loads(elsewhere("users", "add", "ben", "--role", "operator", "--json").out)
    assert (made["name"], made["role"], len(made["password"]) > 10) == ("ben", "operator", True)
    assert elsewhere("users", "add", "ben").code == beside("users", "add", "ben").code == 1
    for command in ("users role ben viewer", "users disable ben", "users enable ben", "users disable ben --json"):
        assert elsewhere(*command.split()) == beside(*command.split())
    (ben,) = [one for one in json.loads(beside("users", "list", "--json").out) if one["name"] == "ben"]
    assert (ben["role"], ben["disabled"]) == ("viewer", True)
    assert elsewhere("users", "invite", "--role", "viewer").out.startswith(web.url)
    assert elsewhere("users", "remove", "ben").out == "removed ben\n"
    gone = elsewhere("users", "role", "ben", "admin")
    assert (gone.code, gone.error.count("\n")) == (1, 1)


def test_a_reject_is_taken_in_after_all(rejected: dict[str, str], beside: Command, elsewhere: Command) -> None:
    replay = ("rejects", "replay", rejected["good"], "--device", "room-1", "--as-device", "room-1", "--json")
    taken = elsewhere(*replay)
    assert json.loads(taken.out) | {"errors": []} == {
        "rejects": 1,
        "cut": 0,
        "stored": 0,
        "strangers": 0,
        "replayed_before": 0,
        "accepted": 1,
        "rejected": 0,
        "errors": [],
    }
    assert json.loads(beside(*replay).out)["replayed_before"] == 1


def test_a_reject_that_spoke_for_another_device_is_passed_over_unless_it_is_meant(
    rejected: dict[str, str], beside: Command
) -> None:
    for meant, strangers in (("--reason=identity", 1), ("--strangers", 0), (rejected["foreign"], 0)):
        found = beside("rejects", "replay", "--reason", "identity", meant, "--dry-run", "--json")
        figures = json.loads(found.out)
        assert (figures["rejects"], figures["strangers"]) == (1 - strangers, strangers)


@pytest.mark.parametrize(
    "command",
    ["devices show nobody", "devices label room-0 -none", "devices add a/b", "query room-1 nothing", "rejects show 9/9"],
)
def test_what_is_wrong_is_said_in_one_line(command: str, beside: Command, elsewhere: Command) -> None:
    here, there = beside(*command.split()), elsewhere(*command.split())
    assert (here.code, there.code) == (1, 1)
    assert (here.out, there.out) == ("", "")
    assert there.error.count("\n") == 1


@pytest.mark.parametrize("command", ["devices", "ledger", "rules remove hot"])
def test_who_shows_no_good_token_or_asks_nobody_is_told_so(command: str, web: Web, filled: None) -> None:
    refused = isotherm(*command.split(), url=web.url, api_token="iso_wrong")
    assert (refused.code, refused.out, refused.error.count("\n")) == (1, "", 1)
    assert "isotherm tokens create USER --scope " in refused.error
    nobody = isotherm(*command.split(), url=f"http://127.0.0.1:{free_port()}", api_token="iso_wrong")
    assert (nobody.code, nobody.out, nobody.error.count("\n")) == (1, "", 1)
    assert "127.0.0.1" in nobody.error


def test_a_token_without_the_scope_is_told_which_it_lacks(settings: Settings, web: Web, filled: None) -> None:
    token = token_of(settings, "vera", "read")
    refused = isotherm("devices", "add", "pump-1", url=web.url, api_token=token)
    assert (refused.code, refused.error.count("\n")) == (1, 1)
    assert "devices:write" in refused.error


@pytest.mark.parametrize(
    "command",
    [
        "backup NEW",
        "restore OLD",
        "export NEW.csv",
        "import OLD",
        "tail",
        "topics",
        "users audit",
        "tokens list anna",
        "agent list",
        "agent try OLD",
        "notify list",
        "hosts list",
        "rules try hot",
        "mqtt users NEW",
    ],
)
def test_what_the_api_has_not_is_refused_and_no_other_store_is_asked(
    command: str, settings: Settings, web: Web, tmp_path: Path
) -> None:
    old, new = tmp_path / "old.csv", tmp_path / "new"
    old.touch()
    given = command.replace("OLD", str(old)).replace("NEW", str(new)).split()
    refused = isotherm(*given, url=web.url, redis=settings.redis, kafka=settings.kafka)
    assert (refused.code, refused.out, refused.error.count("\n")) == (1, "", 1)
    assert f"ISOTHERM_URL names ({web.url})" in refused.error
    assert list(tmp_path.iterdir()) == [old]


def test_of_the_apis_address_the_platforms_is_taken() -> None:
    assert address(Settings(url="https://iot.example/house/api/v1/")) == "https://iot.example/house"


def test_a_simulated_fleet_is_registered_where_it_is_asked_to(web: Web, settings: Settings, elsewhere: Command) -> None:
    token = token_of(settings, "anna", "read", "write")
    made = asyncio.run(register_fleet(Settings(url=web.url, api_token=token), "hub", ["room-8", "room-9"]))
    assert len(made) == 32
    assert json.loads(elsewhere("devices", "show", "hub", "--json").out)["children"] == ["room-8", "room-9"]
