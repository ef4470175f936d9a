"""Who may use the API: tokens, their scopes, their users' roles, and browsers."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from dashboards.api.rate import rate_of
from isotherm.accounts.accounts import Actor
from isotherm.accounts.audit import REFUSED
from isotherm.accounts.role import Role
from isotherm.errors import BadField
from isotherm.settings import Settings
from isotherm.store import client as stores
from tests.api.conftest import Login
from tests.api.program import Program
from tests.dashboards.client import Client
from tests.dashboards.stack import Web
from tests.dashboards.test_access import PASSWORD, kernel
from tests.support.ports import free_port

pytestmark = pytest.mark.servers

CLI = Actor("test", "cli")


async def test_without_a_token_a_program_is_told_how_to_show_one(web: Web, client: aiohttp.ClientSession) -> None:
    refused = await Program(client, web.url).get("/devices")
    assert refused.status == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer" in refused.detail
    assert (await Program(client, web.url, "iso_guessed").get("/devices")).status == 401


async def test_a_browser_without_a_session_is_led_to_the_log_in(web: Web, client: aiohttp.ClientSession) -> None:
    answer = await Program(client, web.url).get("/docs", accept="text/html")
    assert (answer.status, answer.headers["location"]) == (303, "/login?next=%2Fapi%2Fv1%2Fdocs")


async def test_a_token_does_what_its_scopes_say_and_no_more(login: Login) -> None:
    reader = await login("anna", "devices:read")
    assert (await reader.get("/devices")).status == 200
    refused = await reader.put("/devices/cellar", {})
    assert refused.status == 403
    assert "devices:write" in refused.detail
    assert (await reader.get("/devices/cellar")).status == 404


async def test_a_token_never_does_more_than_its_user_may(login: Login, settings: Settings) -> None:
    program = await login("otto", "write")
    assert (await program.put("/devices/attic", {})).status == 201
    assert (await program.post("/devices/attic/tokens")).status == 403, "an admin's business"
    async with kernel(settings) as accounts:
        await accounts.set_role("otto", Role.VIEWER, CLI)
        assert (await program.put("/devices/attic", {})).status == 403
        await accounts.set_disabled("otto", True, CLI)
        assert (await program.get("/devices/attic")).status == 401
        await accounts.set_disabled("otto", False, CLI)
        await accounts.set_role("otto", Role.OPERATOR, CLI)


async def test_a_revoked_token_works_no_longer_and_that_is_in_the_audit_log(settings: Settings, web: Web) -> None:
    async with kernel(settings) as accounts, aiohttp.ClientSession() as client:
        token, made = await accounts.create_token("vera", "report", ["read"], 1, CLI)
        program = Program(client, web.url, token)
        assert (await program.get("/alarms")).status == 200
        assert token not in str(await accounts.tokens.of("vera"))
        await accounts.revoke_token("vera", made.id, CLI)
        assert (await program.get("/alarms")).status == 401
        noted = {entry.what for entry in await accounts.audit.read()}
    assert noted >= {"make API token", "revoke API token"}


async def test_a_token_of_a_user_who_is_gone_is_not_the_next_ones(settings: Settings, web: Web) -> None:
    async with kernel(settings) as accounts, aiohttp.ClientSession() as client:
        await accounts.create("eve", Role.VIEWER, CLI)
        token, _ = await accounts.create_token("eve", "report", ["read"], 1, CLI)
        await accounts.remove("eve", CLI)
        await accounts.create("eve", Role.ADMIN, CLI)
        assert (await Program(client, web.url, token).get("/alarms")).status == 401


@pytest.mark.parametrize(
    ("name", "scopes", "days", "field"),
    [("", ["read"], 1, "name"), ("a", [], 1, "scopes"), ("a", ["rules:eat"], 1, "scopes"), ("a", ["read"], 367, "days")],
)
async def test_an_impossible_token_is_refused(
    settings: Settings, filler: object, name: str, scopes: list[str], days: int, field: str
) -> None:
    async with kernel(settings) as accounts:
        with pytest.raises(BadField) as refused:
            await accounts.create_token("vera", name, scopes, days, CLI)
    assert refused.value.field == field


async def test_a_session_may_what_its_user_may_and_no_foreign_page_may_use_it(web: Web) -> None:
    async with Client(web.url) as browser:
        await browser.log_in("anna", PASSWORD)
        assert (await browser.get("/api/v1/devices", accept="application/json")).status == 200
        body = '{"key": "hot", "seconds": 60}'
        kind = "application/json"
        foreign = await browser.ask("POST", "/api/v1/alarms/shelve", body, origin="http://evil.example", content_type=kind)
        assert foreign.status == 403
        silent = await browser.ask("POST", "/api/v1/alarms/shelve", body, origin="", content_type=kind)
        assert silent.status == 403, "who shows a cookie is a browser, and browsers name the origin"
        ours = await browser.ask("POST", "/api/v1/alarms/shelve", body, content_type=kind)
        assert ours.status == 200, ours.text


async def test_a_token_may_make_so_many_requests_and_is_told_when_again(settings: Settings) -> None:
    strict = settings.model_copy(update={"web_port": free_port(), "api_rate": 0.01, "api_burst": 3})
    async with kernel(settings) as accounts:
        token, _ = await accounts.create_token("vera", "busy", ["read"], 1, CLI)
        other, _ = await accounts.create_token("vera", "idle", ["read"], 1, CLI)
    with Web(strict) as web:
        async with aiohttp.ClientSession() as client:
            program = Program(client, web.url, token)
            answers = [await program.get("/alarms") for _ in range(4)]
            assert [one.status for one in answers] == [200, 200, 200, 429]
            assert 0 < int(answers[-1].headers["retry-after"]) <= 100
            assert "too many requests" in answers[-1].detail
            assert (await Program(client, web.url, other).get("/alarms")).status == 200


async def test_processes_that_share_a_port_share_the_rate(settings: Settings) -> None:
    async with stores.connected(settings) as redis, stores.connected(settings) as other:
        first, second = (rate_of(one, 0.01, 6, is_shared=True) for one in (redis, other))
        waits = await asyncio.gather(*((first, second)[number % 2].wait("somebody") for number in range(10)))
        assert waits.count(0) == 6
        assert all(0 < one <= 100 for one in waits if one)
        assert await second.wait("somebody else") == 0
        quick = [rate_of(one, 2.0, 1, is_shared=True) for one in (redis, other)]
        async with asyncio.timeout(10):
            while not await quick[0].wait("quick"):
                pass
            while await quick[1].wait("quick"):
                pass


async def test_who_was_refused_what_they_may_not_do_is_in_the_audit_log(login: Login, settings: Settings) -> None:
    async with kernel(settings) as accounts:
        await accounts.create("rita", Role.VIEWER, CLI)
    writer, reader = await login("rita", "write"), await login("rita", "system:read")
    assert (await writer.put("/devices/attic", {})).status == 403
    assert (await writer.put("/devices/cellar", {})).status == 403
    assert (await reader.get("/alarms")).status == 403
    assert (await reader.get("/../prometheus/api/v1/labels")).status == 403
    async with kernel(settings) as accounts:
        noted = {(one.what, one.target): one for one in await accounts.audit.read() if one.who == "rita"}
    assert set(noted) == {
        ("role", "/api/v1/devices/attic"),  # that of the cellar came within a minute: it is counted
        ("scope", "/api/v1/alarms"),
        ("scope", "/api/prometheus/api/v1/labels"),
    }
    assert {one.outcome for one in noted.values()} == {REFUSED}
    assert "has the scopes system:read, not alarms:read" in noted["scope", "/api/v1/alarms"].detail


async def test_what_is_no_json_is_refused_as_such(login: Login) -> None:
    anna = await login("anna", "write", "read")
    for kind in ("application/x-www-form-urlencoded", "text/plain", "application/xml; charset=utf-8", ""):
        for method, path in (("PUT", "/devices/form"), ("PUT", "/rules/form"), ("POST", "/devices/room-1/commands")):
            refused = await anna.send(method, path, b'{"kind": "silence"}', **{"Content-Type": kind})
            assert refused.status == 415, (kind, path)
            assert "Content-Type: application/json" in refused.detail
    assert (await anna.get("/devices/form")).status == 404
    merge = {"Content-Type": "application/merge-patch+json; charset=utf-8"}
    assert (await anna.send("PUT", "/devices/patched", b"{}", **merge)).status == 201
