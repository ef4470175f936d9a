"""Log-in with an OpenID Connect provider: the real web process and a provider, which does wrong where a test says so."""

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dashboards.access.oidc import role_of
from isotherm.accounts.accounts import Accounts
from isotherm.accounts.passwords import Passwords
from isotherm.accounts.role import Role
from isotherm.accounts.users import User
from isotherm.settings import Settings
from isotherm.store import client
from tests.accounts.conftest import CHEAP
from tests.dashboards.client import Answer, Client
from tests.dashboards.provider import CLIENT_ID, CLIENT_SECRET, OpenIdProvider
from tests.dashboards.stack import Web
from tests.support.ports import free_port
from tests.support.valkey import Valkey

ZOE = {"sub": "7", "preferred_username": "Zoe", "roles": ["ops"]}


@pytest.fixture
async def provider() -> AsyncIterator[OpenIdProvider]:
    async with OpenIdProvider() as one:
        one.claims = dict(ZOE)
        yield one


@pytest.fixture
def settings(tmp_path: Path, valkey: Valkey, provider: OpenIdProvider) -> Settings:
    return Settings(
        data_dir=tmp_path,
        redis=valkey.url,
        web_port=free_port(),
        oidc_issuer=provider.issuer,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
        oidc_roles={"ops": "operator", "boss": "admin"},
    )


@pytest.fixture
async def visitor(web: Web) -> AsyncIterator[Client]:
    async with Client(web.url) as one:
        yield one


async def begin(visitor: Client, page: str = "/account") -> str:
    """Go as far as the provider; returns the path that it sends the browser back to."""
    sent = await visitor.get(f"/login/oidc?next={page}")
    assert sent.status == 303, sent.text
    async with aiohttp.ClientSession() as session, session.get(sent.location, allow_redirects=False) as answer:
        back = answer.headers["Location"]
    assert back.startswith(visitor.url + "/login/oidc/callback?")
    return back.removeprefix(visitor.url)


async def log_in(visitor: Client) -> Answer:
    return await visitor.get(await begin(visitor))


@pytest.mark.servers
async def test_somebody_logs_in_with_the_role_that_the_provider_says_each_time(
    visitor: Client, provider: OpenIdProvider, settings: Settings
) -> None:
    assert "single sign-on" in (await visitor.get("/login")).text
    back = await begin(visitor)
    done = await visitor.get(back)
    assert (done.status, done.location) == (303, "/account")
    assert "<h1>zoe <small>operator" in (await visitor.get("/account")).text
    replayed = Client(visitor.url)
    assert (await replayed.get(back)).status == 401
    assert (await visitor.post("/logout", "/account")).status == 303

    provider.claims["roles"] = "boss"
    await log_in(visitor)
    assert "<h1>zoe <small>admin" in (await visitor.get("/account")).text
    assert (await visitor.get("/admin")).status == 200
    await visitor.post("/logout", "/account")
    provider.claims["roles"] = ["guests"]
    refused = await log_in(visitor)
    assert (refused.status, "Zoe has no role here" in refused.text) == (401, True)
    await replayed.__aexit__(None, None, None)


@pytest.mark.servers
async def test_what_does_not_hold_is_refused(visitor: Client, provider: OpenIdProvider, settings: Settings) -> None:
    async with client.connected(settings) as redis:
        accounts = Accounts(redis, Passwords(CHEAP))
        await accounts.users.create(User("local-user", Role.ADMIN, password=CHEAP.hash("x")))
        wrongs: list[Callable[[], Any]] = [
            lambda: setattr(provider, "algorithm", "none"),
            lambda: setattr(provider, "algorithm", "HS256"),
            lambda: provider.wrong.update(nonce="of another log-in"),
            lambda: provider.wrong.update(aud="somebody else"),
            lambda: provider.wrong.update(aud=[CLIENT_ID, "somebody else"], azp="somebody else"),
            lambda: provider.wrong.update(iss="https://evil.example"),
            lambda: provider.wrong.update(exp=int(time.time()) - 3_600),
            lambda: provider.wrong.update(sub=None),
            lambda: provider.wrong.update(preferred_username=7),
            lambda: provider.wrong.update(preferred_username="<script>"),
            lambda: provider.wrong.update(preferred_username="local-user"),
        ]
        for wrong in wrongs:
            provider.algorithm, provider.wrong = "RS256", {}
            wrong()
            answer = await log_in(visitor)
            assert (answer.status, "<script>" in answer.text.partition("<main")[2]) == (401, False), answer.text
            assert "__Host-isotherm" not in visitor.cookies
        assert [one.name for one in await accounts.users.all() if one.subject] == []
        provider.algorithm, provider.wrong = "RS256", {}

        other = Client(visitor.url)
        back = await begin(visitor)
        await other.get("/login")
        assert "another browser" in (await other.get(back)).text
        await other.__aexit__(None, None, None)
        for forged in ("/login/oidc/callback", "/login/oidc/callback?state=x&code=y", back):
            assert "was not begun here" in (await visitor.get(forged)).text
        refusal = (await begin(visitor)).replace("code=", "error=access_denied&x=")
        assert "The identity provider refuses: access_denied" in (await visitor.get(refusal)).text
        assert {one.what for one in await accounts.audit.read()} == {"single sign-on", "log in"}


@pytest.mark.servers
async def test_a_provider_that_is_away_is_said(
    settings: Settings, web: Web, visitor: Client, provider: OpenIdProvider
) -> None:
    await provider.stop()
    answer = await visitor.get("/login/oidc")
    assert (answer.status, "The identity provider does not answer" in answer.text) == (503, True)


def test_a_role_is_the_greatest_of_those_that_the_table_gives() -> None:
    table = {"ops": "operator", "boss": "admin"}
    assert role_of({"roles": ["ops", "boss", 7]}, "roles", table) is Role.ADMIN
    assert role_of({"realm": {"roles": ["ops"]}}, "realm.roles", table) is Role.OPERATOR
    assert role_of({"roles": {"boss": True}}, "roles", table) is None
    assert role_of({}, "roles", table | {"*": "viewer"}) is Role.VIEWER
