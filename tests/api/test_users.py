"""Users and API tokens, as programs see them."""

from __future__ import annotations

import aiohttp
import pytest

from isotherm.accounts.accounts import Actor
from isotherm.settings import Settings
from tests.api.conftest import Login
from tests.api.program import Program
from tests.dashboards.client import Client
from tests.dashboards.stack import Web
from tests.dashboards.test_access import PASSWORD, kernel

pytestmark = pytest.mark.servers

CLI = Actor("test", "cli")


async def test_a_user_comes_changes_and_goes(login: Login, settings: Settings, web: Web) -> None:
    anna = await login("anna", "users:read", "users:write")
    made = await anna.post("/users", {"name": "Zoë", "role": "operator"})
    assert made.status == 201
    assert made.headers["cache-control"] == "no-store"
    user = made.json["user"]
    assert (user["name"], user["role"], user["must_change_password"], user["last_log_in"]) == ("zoë", "operator", True, None)
    async with Client(web.url) as browser:
        await browser.log_in("zoë", made.json["password"])
        assert (await browser.get("/account")).status == 200
    assert (await anna.post("/users", {"name": "ZOË"})).status == 409
    seen = await anna.get("/users/zoë")
    assert seen.json["last_log_in"] is not None
    changed = await anna.patch("/users/zoë", {"role": "viewer"}, if_match=seen.headers["etag"])
    assert (changed.status, changed.json["role"]) == (200, "viewer")
    assert (await anna.patch("/users/zoë", {"role": "admin"}, if_match=seen.headers["etag"])).status == 412
    assert (await anna.patch("/users/zoë", {"is_disabled": True})).json["is_disabled"]
    reset = await anna.post("/users/zoë/reset")
    assert reset.json["url"].startswith(web.url + "/reset")
    assert (await anna.delete("/users/zoë")).status == 204
    assert (await anna.get("/users/zoë")).status == 404
    invited = await anna.post("/invitations", {"role": "viewer"})
    assert invited.json["url"].startswith(web.url + "/register")
    async with kernel(settings) as accounts:
        noted = {(entry.who, entry.what) for entry in await accounts.audit.read() if entry.target == "zoë"}
    whats = ("create user", "change role", "disable user", "make reset link", "remove user")
    assert noted >= {("anna", what) for what in whats}


async def test_the_last_admin_stays_one(login: Login) -> None:
    anna = await login("anna", "users:read", "users:write")
    for change in ({"role": "viewer"}, {"is_disabled": True}, {"role": "operator", "is_disabled": True}):
        refused = await anna.patch("/users/anna", change)
        assert refused.status == 409
        assert "last admin" in refused.detail
    assert (await anna.delete("/users/anna")).status == 409
    found = (await anna.get("/users/anna")).json
    assert (found["role"], found["is_disabled"]) == ("admin", False)


async def test_users_are_an_admins_business(login: Login) -> None:
    otto = await login("otto", "read", "write")
    assert (await otto.get("/users")).status == 403
    assert (await otto.patch("/users/otto", {"role": "admin"})).status == 403
    assert (await otto.post("/invitations", {"role": "admin"})).status == 403
    anna = await login("anna", "read")
    assert (await anna.post("/users", {"name": "eve"})).status == 403, "this token may read"
    assert {one["name"] for one in (await anna.get("/users")).json["items"]} >= {"anna", "otto", "vera"}


@pytest.mark.parametrize(
    ("form", "field"),
    [({"name": "a b"}, "name"), ({"name": "local"}, "name"), ({"name": "eve", "role": "king"}, "role"), ({}, "name")],
)
async def test_a_user_that_cannot_be_is_refused(login: Login, form: dict[str, str], field: str) -> None:
    anna = await login("anna", "users:write", "users:read")
    refused = await anna.post("/users", form)
    assert (refused.status, refused.json["errors"][0]["field"]) == (422, field)
    assert (await anna.get("/users/eve")).status == 404


async def token_of(settings: Settings, user: str, days: int, *scopes: str) -> str:
    async with kernel(settings) as accounts:
        token, _ = await accounts.create_token(user, "a test", scopes, days, CLI)
        return token


async def test_a_token_makes_others_that_may_no_more_and_last_no_longer(
    settings: Settings, web: Web, client: aiohttp.ClientSession
) -> None:
    own = Program(client, web.url, await token_of(settings, "vera", 30, "tokens:write", "tokens:read", "devices:read"))
    made = await own.post("/tokens", {"name": "report", "scopes": ["devices:read"], "days": 7})
    assert (made.status, made.json["scopes"]) == (201, ["devices:read"])
    assert made.headers["cache-control"] == "no-store"
    other = Program(client, web.url, made.json["token"])
    assert (await other.get("/devices")).status == 200
    assert (await other.get("/alarms")).status == 403
    listed = {one["id"]: one for one in (await own.get("/tokens")).json["items"]}
    assert listed[made.json["id"]]["name"] == "report"
    assert "token" not in listed[made.json["id"]]
    more = await own.post("/tokens", {"name": "more", "scopes": ["devices:read", "alarms:read"], "days": 7})
    assert more.status == 403
    assert "alarms:read" in more.detail
    longer = await own.post("/tokens", {"name": "longer", "scopes": ["devices:read"], "days": 31})
    assert longer.status == 403
    assert "end later" in longer.detail
    assert (await own.delete(f"/tokens/{made.json['id']}")).status == 204
    assert (await other.get("/devices")).status == 401
    assert (await own.delete(f"/tokens/{made.json['id']}")).status == 404
    assert len((await own.get("/tokens")).json["items"]) == len(listed) - 1


async def test_nobody_revokes_the_token_of_somebody_else(login: Login, settings: Settings) -> None:
    async with kernel(settings) as accounts:
        _, made = await accounts.create_token("vera", "a test", ["read"], 1, CLI)
    anna = await login("anna", "tokens:write")
    assert (await anna.delete(f"/tokens/{made.id}")).status == 404


async def test_a_person_makes_and_revokes_a_token_on_the_account_page(
    web: Web, client: aiohttp.ClientSession, settings: Settings
) -> None:
    async with Client(web.url) as browser:
        await browser.log_in("otto", PASSWORD)
        wrong = await browser.post("/account/tokens/create", "/account", name="laptop", access="read", days="0")
        assert wrong.status == 422
        assert "expected 1 to 366" in wrong.text
        made = await browser.post("/account/tokens/create", "/account", name="laptop", access="write", days="7")
        assert made.status == 200
        token = made.text.partition('value="iso_')[2].partition('"')[0]
        program = Program(client, web.url, f"iso_{token}")
        assert (await program.put("/devices/lamp-1", {})).status == 201
        assert token not in (await browser.get("/account")).text
        async with kernel(settings) as accounts:
            [id] = [one.id for one in await accounts.tokens.of("otto") if one.name == "laptop"]
        assert (await browser.post("/account/tokens/revoke", "/account", id=id)).status == 303
    assert (await program.get("/devices")).status == 401
