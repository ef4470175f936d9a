"""``isotherm users``: what an admin does from the command line, against a real store."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from isotherm.accounts.accounts import Accounts, Actor
from isotherm.accounts.passwords import Passwords
from isotherm.accounts.role import Role
from isotherm.cli import app
from isotherm.errors import IsothermError, Unauthorized
from isotherm.settings import Settings
from isotherm.store import client
from tests.accounts.conftest import CHEAP
from tests.support.valkey import Valkey

pytestmark = pytest.mark.servers

THERE = Actor("", "192.0.2.1")
_Answer = TypeVar("_Answer")


def users(*arguments: str) -> str:
    shown = CliRunner().invoke(app, ["users", *arguments], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def test_an_admin_manages_users_from_the_command_line(server: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    server.empty()
    monkeypatch.setenv("ISOTHERM_REDIS", server.url)
    monkeypatch.setenv("ISOTHERM_WEB_ORIGIN", "https://iot.example")

    def there(work: Callable[[Accounts], Awaitable[_Answer]]) -> _Answer:
        async def do() -> _Answer:
            async with client.connected(Settings(redis=server.url)) as redis:
                return await work(Accounts(redis, Passwords(CHEAP)))

        return asyncio.run(do())

    assert "there is no user; try: isotherm users add" in users("list")
    given = json.loads(users("add", "Ada", "--role", "admin", "--json"))
    assert there(lambda accounts: accounts.log_in("ada", given["password"], THERE))
    assert there(lambda accounts: accounts.users.existing("ada")).must_change
    for arguments, said in (
        (("add", "ada"), "there is a user ada already"),
        (("disable", "ada"), "ada is the last admin; make somebody else admin first"),
        (("role", "bob", "viewer"), "there is no user 'bob'; see `isotherm users list`"),
    ):
        with pytest.raises(IsothermError, match=said):
            users(*arguments)

    users("add", "bob")
    assert "bob is operator now" in users("role", "bob", "operator")
    assert "bob is disabled" in users("disable", "bob")
    listed = {one["name"]: one for one in json.loads(users("list", "--json"))}
    assert (listed["bob"]["role"], listed["bob"]["disabled"], listed["ada"]["role"]) == ("operator", True, "admin")
    users("enable", "bob")
    link = urlsplit(users("reset", "bob").strip())
    assert (link.scheme, link.netloc, link.path) == ("https", "iot.example", "/reset")
    secret = link.query.partition("=")[2]
    assert there(lambda accounts: accounts.reset_password(secret, "correct horse battery", THERE)) == "bob"
    invitation = json.loads(users("invite", "--role", "operator", "--json"))["link"].partition("link=")[2]
    eve = there(lambda accounts: accounts.register("eve", "correct horse battery", THERE, invitation))
    assert eve.role is Role.OPERATOR
    users("remove", "bob")
    with pytest.raises(Unauthorized):
        there(lambda accounts: accounts.log_in("bob", "correct horse battery", THERE))
    acts = [one["what"] for one in json.loads(users("audit", "--text", "cli (", "--json"))]
    assert {"create user", "change role", "disable user", "enable user", "make reset link", "remove user"} <= set(acts)
